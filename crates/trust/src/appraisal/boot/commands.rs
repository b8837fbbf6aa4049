//! The commands that GRUB ran.

use std::collections::BTreeSet;

use assay_evidence::boot_log::{BootFacts, loaded_line};

use super::Report;
use crate::policy::{BootRule, BootSection, literal};

impl Report<'_> {
    /// GRUB did nothing but load one kernel in a way that is known: whatever it runs, it measures before.
    pub(super) fn judge_commands(&mut self, facts: Option<&BootFacts>, boot: &BootSection) {
        let Some(facts) = facts.filter(|_| boot.rules_kernel() && !self.closes(COMMANDS_PCR)) else { return };
        let citation = self.policy.citation();
        let unread = facts.loaded.iter().find(|item| item.pcr.get() == COMMANDS_PCR);
        if unread.is_some() || facts.unexplained_pcrs.iter().any(|pcr| pcr.get() == COMMANDS_PCR) {
            let what = match unread {
                Some(item) => {
                    format!("Event {} of the boot log hides what it measured into PCR 8", item.event)
                }
                None => "PCR 8 holds more than the boot log tells".to_owned(),
            };
            let message = format!(
                "{what}, so that the boot loader may have run any command, and policy {citation} speaks of what it starts: see \
                 whether the boot loader hands its log to the kernel."
            );
            self.refuse("boot loader command", "commands that load a kernel", "unknown", message);
        }
        let is_named = |text: &str| boot.grub_commands.iter().any(|pattern| pattern.matches(text));
        let mut said = BTreeSet::new();
        let texts = facts.loader_texts.iter().filter(|text| text.pcr.get() == COMMANDS_PCR);
        for text in texts.map(|text| text.text.as_str()) {
            if is_harmless(text) || is_named(text) || !said.insert(text) {
                continue;
            }
            // How many there are the sender chooses; a few say it.
            if said.len() > TEXTS_SAID_MAX {
                break;
            }
            let shown = shown(text);
            let message = format!(
                "The boot loader ran `{shown}`, which can start something other than the kernel that policy {citation} \
                 speaks of, or change what it finds: if this is meant, add it to boot.grub_commands"
            );
            let (claim, expected) = ("boot loader command", "commands that load a kernel");
            match literal(text) {
                Some(_) => {
                    self.refuse_unlisted(
                        BootRule::Command(text.to_owned()),
                        claim,
                        expected,
                        shown,
                        &message,
                    );
                }
                None => self.refuse(claim, expected, shown, message + "."),
            }
        }
        let mut lines = facts.kernel_lines().unwrap_or_default();
        // GRUB quotes arguments with spaces in the line, and not in the command that gives it.
        lines.sort_unstable_by_key(|line| unquoted(line));
        lines.dedup_by_key(|line| unquoted(line));
        if lines.len() > 1 {
            let shown: Vec<String> =
                lines.iter().take(TEXTS_SAID_MAX).map(|line| format!("`{}`", shown(line))).collect();
            let message = format!(
                "The boot log has {} command lines of kernels ({}), and which of them the kernel that runs was given cannot be \
                 known.",
                lines.len(),
                shown.join(", ")
            );
            self.refuse("kernel command line", "one line", lines.len().to_string(), message);
        }
    }
}

fn unquoted(line: &str) -> String {
    line.chars().filter(|c| !matches!(c, '"' | '\'' | '\\')).collect()
}

/// As much of a text as a sentence can bear.
fn shown(text: &str) -> String {
    text.escape_debug().take(TEXT_CHARACTERS_SHOWN).collect()
}

/// Whether a text of PCR 8 is a command that reads, shows or sets something, loads a kernel as a line says or an initial
/// ramdisk, or is that line.
fn is_harmless(text: &str) -> bool {
    let command = text.split([' ', '\n']).next().unwrap_or_default();
    let is_assignment = || {
        let name = command.split_once('=').map(|(name, _)| name).unwrap_or_default();
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    loaded_line(text).is_some()
        || COMMANDS.contains(&command)
        || text == "fwsetup --is-supported"
        || is_assignment()
}

/// Where GRUB measures what it runs.
const COMMANDS_PCR: u8 = 8;
/// GRUB's commands that start nothing, write to no memory and change no table, and the functions of distributions' menus,
/// of which GRUB measures each command inside. Its `linux` only passes what shim verifies where Secure Boot is on.
const COMMANDS: [&str; 46] = [
    "[",
    "background_color",
    "background_image",
    "blscfg",
    "clear",
    "configfile",
    "echo",
    "export",
    "false",
    "gfxmode",
    "hwmatch",
    "if",
    "increment",
    "initrd",
    "initrd16",
    "initrdefi",
    "initrdfail",
    "insmod",
    "keymap",
    "load_env",
    "load_video",
    "loadfont",
    "menuentry",
    "normal",
    "play",
    "probe",
    "recordfail",
    "regexp",
    "save_env",
    "savedefault",
    "search",
    "search.file",
    "search.fs_label",
    "search.fs_uuid",
    "serial",
    "set",
    "setparams",
    "sleep",
    "smbios",
    "source",
    "submenu",
    "terminal_input",
    "terminal_output",
    "test",
    "true",
    "unset",
];
/// Texts that findings name one by one.
const TEXTS_SAID_MAX: usize = 8;
/// A menu entry is a page of text.
const TEXT_CHARACTERS_SHOWN: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_loads_the_kernel_is_harmless() {
        let check = |text: &str, expected: bool| assert_eq!(is_harmless(text), expected, "{text:?}");
        for text in [
            "linux /vmlinuz-6.1 ro",
            "/vmlinuz-6.1 ro",
            "(hd0,gpt2)/vmlinuz-6.1 ro",
            "initrd /initrd.img-6.1",
            "set timeout=0",
            "menuentry Debian {\n  chainloader /evil\n}",
            "[ -e (hd0,gpt1)/grub.cfg ]",
            "defaultA=2",
            "menuentry_id_option=--id",
            "fwsetup --is-supported",
        ] {
            check(text, true);
        }
        for text in [
            "chainloader /vmlinuz init=/bin/sh",
            "kernel /vmlinuz",
            "multiboot /xen",
            "multiboot2 /xen",
            "xen_hypervisor /xen",
            "devicetree /evil.dtb",
            "acpi /evil.aml",
            "Linux /vmlinuz",
            " linux /vmlinuz",
            "LINUX",
            "linux",
            "linux\t/vmlinuz",
            "exit",
            "fwsetup",
            "write_dword 0 1",
            "cutmem 1 2",
            "",
            "=x",
            "a b=c",
        ] {
            check(text, false);
        }
    }
}
