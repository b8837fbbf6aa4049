//! What an event says, in words for people who look at a log.
//!
//! Nothing is decided by these words, and nobody believes them before the log replays to a quote: what a digest does not
//! cover is the log's word alone, and [`Event::coverage`] says which it is.

use super::coverage::{GRUB_COMMAND, KERNEL_COMMAND_LINE, grub_text};
use super::facts::{extends, version};
use super::remark::{image_path, remark};
use super::secure_boot::authority_signature;
use super::variable::utf16;
use super::{BootLog, Event, EventSummary, EventType, Guid, SignatureKind, Variable, signature_lists};
use crate::HashAlgorithm;
use crate::read::Reader;
use crate::text::escaped;

/// The events that extend a PCR of `bank`, in short.
pub fn summaries(log: &BootLog<'_>, bank: HashAlgorithm) -> Vec<EventSummary> {
    let summary = |(event, pcr, digest): (&Event<'_>, _, _)| EventSummary {
        number: event.number(),
        pcr,
        event_type: event.event_type(),
        digest,
        remark: remark(event),
    };
    extends(log, bank).map(summary).collect()
}

impl Event<'_> {
    /// What the event says, as one line for people.
    pub fn meaning(&self) -> String {
        let named = Some(remark(self)).filter(|named| is_likely_text(named));
        let named = named.unwrap_or_else(|| self.event_type().to_string());
        let words = match self.event_type() {
            EventType::NO_ACTION => no_action(self.data()),
            EventType::SEPARATOR => Some(separator(self.data())),
            EventType::EFI_VARIABLE_DRIVER_CONFIG => variable(self.data()),
            EventType::EFI_VARIABLE_AUTHORITY => authority(self.data()),
            EventType::EFI_VARIABLE_BOOT | EventType::EFI_VARIABLE_BOOT2 => boot_variable(self.data()),
            EventType::EFI_BOOT_SERVICES_APPLICATION
            | EventType::EFI_BOOT_SERVICES_DRIVER
            | EventType::EFI_RUNTIME_SERVICES_DRIVER => Some(self.image()),
            EventType::EFI_GPT_EVENT | EventType::EFI_GPT_EVENT2 => partitions(self.data()),
            EventType::ACTION | EventType::EFI_ACTION => action(&named),
            EventType::IPL => self.boot_loader(&named),
            EventType::EVENT_TAG => tagged(self.data(), &named),
            // As a policy has it: firmware may state a GUID, whose bytes read like words of far scripts.
            EventType::S_CRTM_VERSION if !self.data().is_empty() => {
                Some(format!("firmware version: {}", version(self.data())))
            }
            other => prefix(other).map(|what| match named == other.to_string() {
                true => what.to_owned(),
                false => format!("{what}: {named}"),
            }),
        };
        words.map_or(named, |words| bounded(&words))
    }

    fn image(&self) -> String {
        let what = match self.event_type() {
            EventType::EFI_BOOT_SERVICES_APPLICATION => "started",
            EventType::EFI_BOOT_SERVICES_DRIVER => "loaded the driver",
            _ => "loaded the run-time driver",
        };
        match image_path(self.data()) {
            Some(path) => format!("{what} {path}"),
            None => format!("{what} an image whose path the log does not give"),
        }
    }

    /// EV_IPL is whatever a boot loader makes of it; the PCR tells which it is.
    fn boot_loader(&self, named: &str) -> Option<String> {
        let text = || grub_text(self.data()).map(|text| String::from_utf8_lossy(text).into_owned());
        if self.data().starts_with(KERNEL_COMMAND_LINE) {
            return text().map(|line| format!("GRUB gave the kernel the command line {line:?}"));
        }
        if self.data().starts_with(GRUB_COMMAND) {
            return text().map(|command| format!("GRUB ran {command:?}"));
        }
        match self.pcr()?.get() {
            9 => Some(format!("the boot loader read {named}")),
            11 => Some(format!("systemd-stub measured {named}")),
            12 => Some(format!("the kernel was told {named}")),
            14 => Some(format!("shim measured {named}")),
            _ => None,
        }
    }
}

fn no_action(data: &[u8]) -> Option<String> {
    let signature = data.get(..SIGNATURE_BYTES)?;
    let rest = data.get(SIGNATURE_BYTES..).unwrap_or_default();
    Some(match signature {
        b"Spec ID Event03\0" => {
            let mut reader = Reader::new(rest);
            let (_class, minor, major) = (reader.u32_le().ok()?, reader.u8().ok()?, reader.u8().ok()?);
            format!("the log's header: crypto-agile, specification {major}.{minor}")
        }
        b"Spec ID Event02\0" | b"Spec ID Event00\0" => "the log's header: SHA-1 alone".to_owned(),
        b"StartupLocality\0" => format!("the TPM was started from locality {}", rest.first()?),
        b"H-CRTM CompMeas\0" => "what a hardware root of trust measured before the firmware".to_owned(),
        b"SP800-155 Event\0" | b"SP800-155 Event2" | b"SP800-155 Event3" => {
            // Sp800_155_PlatformId_Event: the vendor's number, and then the GUID of the manifest.
            let mut reader = Reader::new(rest);
            let vendor = reader.u32_le().ok()?;
            let manifest = Guid::read(&mut reader).ok()?;
            format!("the maker (vendor {vendor:#x}) publishes reference values as manifest {manifest}")
        }
        _ => return None,
    })
}

fn separator(data: &[u8]) -> String {
    match data {
        [0, 0, 0, 0, ..] | [0xff, 0xff, 0xff, 0xff, ..] => "the firmware ends its part here".to_owned(),
        [1, 0, 0, 0, ..] => "the firmware reports an error".to_owned(),
        _ => "a separator of an unknown kind".to_owned(),
    }
}

fn variable(data: &[u8]) -> Option<String> {
    let variable = Variable::parse(data).ok()?;
    let name = escaped(&variable.name);
    if variable.is(Guid::GLOBAL_VARIABLE, "SecureBoot") {
        return Some(match variable.data {
            [1] => "Secure Boot is on".to_owned(),
            [0] | [] => "Secure Boot is off".to_owned(),
            _ => "Secure Boot is neither on nor off".to_owned(),
        });
    }
    let what = match &*name {
        "PK" => "the platform key",
        "KEK" => "who may change what is allowed and forbidden",
        "db" => "what is allowed to start",
        "dbx" => "what is forbidden to start",
        "dbt" => "who may sign time stamps",
        "dbr" => "what recovery may start",
        _ => return Some(format!("variable {name} of {} bytes", variable.data.len())),
    };
    Some(match signature_lists(variable.data) {
        Ok(signatures) if signatures.is_empty() => format!("{name}, {what}: empty"),
        Ok(signatures) => {
            let subjects = signatures.iter().filter_map(|signature| match &signature.kind {
                SignatureKind::Certificate { subject, .. } => Some(subject.as_str()),
                SignatureKind::ImageDigest(_) | SignatureKind::Other { .. } => None,
            });
            let shown: Vec<&str> = subjects.clone().take(NAMES_MAX).collect();
            let (certificates, others) = (subjects.count(), signatures.len());
            let others = others.saturating_sub(certificates);
            let mut words =
                format!("{name}, {what}: {certificates} certificate(s), {others} digest(s) and others");
            if !shown.is_empty() {
                words.push_str(&format!(" ({})", shown.join("; ")));
            }
            words
        }
        Err(_) => format!("{name}, {what}: not readable"),
    })
}

fn authority(data: &[u8]) -> Option<String> {
    let variable = Variable::parse(data).ok()?;
    let name = escaped(&variable.name);
    if let Some(words) = shim_setting(&variable) {
        return Some(words);
    }
    Some(match authority_signature(variable.data) {
        Some(SignatureKind::Certificate { subject, .. }) if !subject.is_empty() => {
            format!("trusted by {name}: {subject}")
        }
        Some(SignatureKind::ImageDigest(digest)) => format!("trusted by {name}: the image {digest}"),
        _ => format!("trusted by {name}, {} bytes", variable.data.len()),
    })
}

/// What shim measures beside what it trusts images by.
fn shim_setting(variable: &Variable<'_>) -> Option<String> {
    let is_on = variable.data == [1];
    let words = match variable.name.as_str() {
        _ if variable.vendor != Guid::SHIM_LOCK => return None,
        "SbatLevel" => {
            let level = String::from_utf8_lossy(variable.data);
            return Some(format!("shim enforces the SBAT level {:?}", level.trim_end()));
        }
        "MokListTrusted" if is_on => "MokListTrusted: the kernel is told to trust shim's keys as well",
        "MokListTrusted" => "MokListTrusted: the kernel is told not to trust shim's keys",
        "MokSBState" | "MokSBStateRT" if variable.data == [0] => "MokSBState: shim checks what it starts",
        "MokSBState" | "MokSBStateRT" => "MokSBState: shim was told to check nothing that it starts",
        _ => return None,
    };
    Some(words.to_owned())
}

/// BootOrder, and the load options of `Boot####` (UEFI, 3.1.3).
fn boot_variable(data: &[u8]) -> Option<String> {
    let variable = Variable::parse(data).ok()?;
    let name = escaped(&variable.name);
    if name == "BootOrder" {
        let entries = variable.data.chunks_exact(2).filter_map(|entry| entry.try_into().ok());
        let order: Vec<String> =
            entries.take(NAMES_MAX).map(|entry| format!("{:04X}", u16::from_le_bytes(entry))).collect();
        return Some(format!("boot order {}", order.join(", ")));
    }
    let mut reader = Reader::new(variable.data);
    let (_attributes, _path_bytes) = (reader.u32_le().ok()?, reader.u16_le().ok()?);
    let description: Vec<u8> =
        reader.rest().chunks_exact(2).take_while(|unit| *unit != [0, 0]).flatten().copied().collect();
    Some(format!("boot option {name}: {}", escaped(&utf16(&description))))
}

/// UEFI_GPT_DATA: the header (UEFI, 5.3.2), a count, and that many partition entries.
fn partitions(data: &[u8]) -> Option<String> {
    let mut reader = Reader::new(data);
    reader.bytes(GPT_HEADER_BYTES).ok()?;
    let count = usize::try_from(reader.u64_le().ok()?).ok()?;
    let mut names = Vec::new();
    for _ in 0..count.min(NAMES_MAX) {
        let entry = reader.bytes(GPT_ENTRY_BYTES).ok()?;
        let name = utf16(entry.get(GPT_NAME_OFFSET..)?);
        names.push(escaped(name.trim_end_matches('\0')).into_owned());
    }
    names.retain(|name| !name.is_empty());
    let named = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    Some(format!("partition table with {count} partition(s){named}"))
}

/// The strings of TCG PC Client Platform Firmware Profile, 10.4.3 and 10.4.4.
fn action(text: &str) -> Option<String> {
    let meaning = match text {
        "Calling EFI Application from Boot Option" => "the firmware starts a boot option",
        "Returning from EFI Application from Boot Option" => "a boot option came back without booting",
        "Exit Boot Services Invocation" => "the boot loader asks the firmware to step back",
        "Exit Boot Services Returned with Success" => "the firmware stepped back: the kernel is in charge",
        "Exit Boot Services Returned with Failure" => "the firmware did not step back",
        "UEFI Debug Mode" => "a firmware debugger was enabled: nothing measured later is sure",
        "DMA Protection Disabled" => "devices could write to memory while the firmware ran",
        _ => return None,
    };
    Some(format!("{text}: {meaning}"))
}

/// The tags that Linux's EFI stub gives what it measures (include/linux/efi.h).
fn tagged(data: &[u8], named: &str) -> Option<String> {
    let tag = Reader::new(data).u32_le().ok()?;
    Some(match tag {
        0x8f3b_22ec => format!("the kernel measured its initial ramdisk: {named}"),
        0x8f3b_22ed => format!("the kernel measured what it was told: {named}"),
        _ => format!("tag {tag:#010x}: {named}"),
    })
}

fn prefix(event_type: EventType) -> Option<&'static str> {
    Some(match event_type {
        EventType::S_CRTM_CONTENTS => "the firmware's first code",
        EventType::S_CRTM_VERSION => "firmware version",
        EventType::POST_CODE | EventType::POST_CODE2 => "firmware code",
        EventType::EFI_PLATFORM_FIRMWARE_BLOB | EventType::EFI_PLATFORM_FIRMWARE_BLOB2 => "firmware volume",
        EventType::EFI_HANDOFF_TABLES | EventType::EFI_HANDOFF_TABLES2 => "tables handed to the system",
        EventType::CPU_MICROCODE => "microcode",
        EventType::PLATFORM_CONFIG_FLAGS => "configuration",
        EventType::TABLE_OF_DEVICES => "table of devices",
        EventType::NONHOST_CODE => "code of another processor",
        EventType::NONHOST_CONFIG | EventType::NONHOST_INFO => "configuration of another processor",
        EventType::OMIT_BOOT_DEVICE_EVENTS => "boot attempts are not measured",
        EventType::EFI_HCRTM_EVENT => "what a hardware root of trust measured",
        EventType::EFI_SPDM_FIRMWARE_BLOB => "firmware of a device, by its own word",
        EventType::EFI_SPDM_FIRMWARE_CONFIG => "configuration of a device, by its own word",
        EventType::EFI_SPDM_DEVICE_POLICY => "what is demanded of devices",
        EventType::EFI_SPDM_DEVICE_AUTHORITY => "a device was trusted",
        EventType::COMPACT_HASH => "an older boot loader or a management engine",
        _ => return None,
    })
}

/// Half of all pairs of bytes are some character of UTF-16, so that numbers read like words of far scripts.
fn is_likely_text(text: &str) -> bool {
    text.chars().filter(char::is_ascii).count() * 2 >= text.chars().count()
}

fn bounded(words: &str) -> String {
    let short: String = words.chars().take(MEANING_CHARACTERS_MAX).collect();
    escaped(&short).into_owned()
}

const SIGNATURE_BYTES: usize = 16;
/// EFI_PARTITION_TABLE_HEADER without its reserved rest.
const GPT_HEADER_BYTES: usize = 92;
const GPT_ENTRY_BYTES: usize = 128;
/// Two GUIDs, three numbers of eight bytes.
const GPT_NAME_OFFSET: usize = 2 * 16 + 3 * 8;
/// Names shown of one list.
const NAMES_MAX: usize = 32;
/// Characters of one meaning; a long command line is the longest.
const MEANING_CHARACTERS_MAX: usize = 2400;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot_log::parse;

    /// A legacy log of one event.
    fn check(pcr: u8, event_type: EventType, data: &[u8], expected: &str) {
        let mut log = vec![pcr, 0, 0, 0];
        log.extend(event_type.0.to_le_bytes());
        log.extend([0; 20]);
        log.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        log.extend(data);
        let log = parse(&log).unwrap();
        assert_eq!(log.events().first().unwrap().meaning(), expected);
    }

    #[test]
    fn events_say_what_they_mean() {
        check(0, EventType::NO_ACTION, b"StartupLocality\0\x03", "the TPM was started from locality 3");
        check(7, EventType::SEPARATOR, &[0; 4], "the firmware ends its part here");
        check(7, EventType::SEPARATOR, &[0xff; 4], "the firmware ends its part here");
        check(7, EventType::SEPARATOR, &[1, 0, 0, 0], "the firmware reports an error");
        check(8, EventType::IPL, b"grub_cmd: set x=\"1\"\0", r#"GRUB ran "set x=\"1\"""#);
        check(
            8,
            EventType::IPL,
            b"kernel_cmdline: /vmlinuz ro\0",
            r#"GRUB gave the kernel the command line "/vmlinuz ro""#,
        );
        check(0, EventType::S_CRTM_VERSION, b"1.2\0", "firmware version: 1.2");
        check(0, EventType::S_CRTM_VERSION, &[7, 1, 2], "firmware version: 070102");
    }

    #[test]
    fn hostile_text_stays_on_its_line() {
        check(8, EventType::IPL, b"grub_cmd: a\n\x1b[2J\0", "GRUB ran \"a\\n\\u{1b}[2J\"");
        check(9, EventType::IPL, b"a\nb", "the boot loader read a\\nb");
    }

    #[test]
    fn data_that_is_cut_keeps_its_name() {
        check(0, EventType::NO_ACTION, b"StartupLocality\0", "StartupLocality");
        check(5, EventType::EFI_GPT_EVENT, &[1; 12], "EV_EFI_GPT_EVENT");
        check(7, EventType::EFI_VARIABLE_DRIVER_CONFIG, &[1; 3], "EV_EFI_VARIABLE_DRIVER_CONFIG");
    }
}
