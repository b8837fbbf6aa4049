//! What judges a boot: PCR values (`tpm_policy`), and measured-boot reference states.

use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use serde_json::{Map, Value};

use super::{Import, ImportError, digest_by_length, is_empty, object};
use crate::policy::section::pcr::IMA_PCR;
use crate::policy::{Demand, Field};

impl Import {
    /// Takes over PCR values.
    pub fn tpm_policy(&mut self, json: &str) -> Result<(), ImportError> {
        for (key, values) in &object(json)? {
            let field = Field::of([key]);
            if key == "mask" {
                self.note(field, "left out: what a policy pins is what is quoted");
                continue;
            }
            let index = key.parse().ok().and_then(PcrIndex::new);
            match index {
                Some(index) if index.get() == IMA_PCR => {
                    self.refuse(
                        field,
                        "not imported: PCR 10 holds the IMA list, whose order changes from boot to boot",
                    );
                }
                Some(index) if index.get() == DEBUG_PCR => {
                    self.refuse(
                        field,
                        "not imported: any program can reset PCR 16, and Keylime binds a key with it",
                    );
                }
                Some(index) => self.pcr_values(index, &field, values),
                None => self.refuse(field, "not imported: no PCR from 0 to 23"),
            }
        }
        Ok(())
    }

    fn pcr_values(&mut self, index: PcrIndex, field: &Field, values: &Value) {
        let mut accepted = 0;
        for text in self.texts(field, values) {
            match digest_by_length(text) {
                Some(value) => {
                    self.policy.allow_pcr(index, value);
                    accepted += 1;
                }
                None => self.refuse(field.clone(), format!("{text:?} is not imported: no PCR value in hex")),
            }
        }
        if accepted == 0 {
            self.refuse(field.clone(), "not imported: it has no value, so this PCR is not pinned");
        }
    }

    /// Takes over a measured-boot reference state of Keylime's policy `example`.
    pub fn reference_state(&mut self, json: &str) -> Result<(), ImportError> {
        let state = object(json)?;
        match state.get("has_secureboot") {
            Some(Value::Bool(true)) | None => {}
            Some(Value::Bool(false)) => {
                self.policy.boot.secure_boot = Demand::Optional;
                self.warn(Field::of(["has_secureboot"]), "Secure Boot may be off, and may be on as well");
            }
            Some(_) => {
                self.refuse(Field::of(["has_secureboot"]), "not imported: it is neither true nor false");
            }
        }
        self.dbx(&state);
        self.kernels(&state);
        for (member, pcr) in NO_RULE {
            if state.get(member).is_some_and(|value| !is_empty(value)) {
                self.refuse(
                    Field::of([member]),
                    format!("not imported, because no rule here judges it: pin PCR {pcr}, which holds it"),
                );
            }
        }
        let known = ["has_secureboot", "dbx", "kernels"];
        let known: Vec<&str> = known.into_iter().chain(NO_RULE.iter().map(|(member, _)| *member)).collect();
        self.refuse_unknown(&state, &known);
        Ok(())
    }

    fn dbx(&mut self, state: &Map<String, Value>) {
        for (index, entry) in self.items(state, "dbx").iter().enumerate() {
            let data = entry.get("SignatureData").and_then(Value::as_str).unwrap_or_default();
            match sha256(data) {
                Some(digest) if !self.policy.boot.dbx_contains.contains(&digest) => {
                    self.policy.boot.dbx_contains.push(digest);
                }
                Some(_) => {}
                None => self.refuse(
                    Field::of(["dbx"]).at(index),
                    "not imported: only SHA-256 digests of images can be demanded of dbx",
                ),
            }
        }
    }

    fn kernels(&mut self, state: &Map<String, Value>) {
        let kernels = self.items(state, "kernels");
        let (mut lines, mut images) = (Vec::new(), Vec::new());
        let (mut any_line, mut any_image) = (kernels.is_empty(), kernels.is_empty());
        for (index, kernel) in kernels.iter().enumerate() {
            let field = Field::of(["kernels"]).at(index);
            match kernel.get("kernel_cmdline").and_then(Value::as_str) {
                None => any_line = true,
                // Some tools leave the end of the text that was measured in the line.
                Some(regex) => match literal(regex.trim_end_matches('\0')) {
                    Some(line) => lines.push(line),
                    None => self.refuse(
                        field.clone(),
                        format!("kernel_cmdline {regex:?} is not imported: command lines are compared as they are, so list each one"),
                    ),
                },
            }
            for image in ["shim_authcode_sha256", "grub_authcode_sha256", "kernel_authcode_sha256"] {
                match kernel.get(image).and_then(Value::as_str).map(sha256) {
                    // Without it the list would not be whole, and this kernel would be refused.
                    None => any_image = true,
                    Some(Some(digest)) => images.push(digest),
                    Some(None) => {
                        self.refuse(field.clone(), format!("{image} is not imported: no SHA-256 digest"))
                    }
                }
            }
            for hash in ["vmlinuz_plain_sha256", "initrd_plain_sha256"] {
                if kernel.get(hash).is_some_and(|value| !is_empty(value)) {
                    self.refuse(
                        field.clone(),
                        format!("{hash} is not imported, because no rule here judges it: pin PCR 9"),
                    );
                }
            }
        }
        if any_image && !images.is_empty() {
            self.refuse(
                Field::of(["kernels"]),
                "digests of images are not imported, because not every kernel has all three, and a list accepts nothing else",
            );
        }
        if any_line && !lines.is_empty() {
            self.refuse(
                Field::of(["kernels"]),
                "kernel command lines are not imported, because not every kernel has one, and a list accepts nothing else",
            );
        }
        if !any_image && !images.is_empty() {
            self.note(
                Field::of(["kernels"]),
                "images became boot.applications: each of them counts with each of the others, not only in their set",
            );
            self.policy.boot.applications.get_or_insert_default().extend(sorted(images));
        }
        if !any_line && !lines.is_empty() {
            self.policy.boot.kernel_command_lines.get_or_insert_default().extend(sorted(lines));
        }
    }
}

fn sha256(text: &str) -> Option<Digest> {
    let hex = text.strip_prefix("0x").unwrap_or(text);
    digest_by_length(hex).filter(|digest| digest.algorithm() == HashAlgorithm::Sha256)
}

/// The only text that a regular expression covers, if it is one text.
fn literal(regex: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = regex.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.push(characters.next().filter(|escaped| !escaped.is_alphanumeric())?),
            '.' | '*' | '+' | '?' | '[' | ']' | '(' | ')' | '{' | '}' | '|' | '^' | '$' => return None,
            character => text.push(character),
        }
    }
    Some(text)
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort_unstable();
    list.dedup();
    list
}

/// TCG PC Client Platform TPM Profile: PCR 16 is for debugging.
const DEBUG_PCR: u8 = 16;
/// Members that no typed rule judges, and the PCR that does.
const NO_RULE: [(&str, u8); 7] = [
    ("scrtm_and_bios", 0),
    ("pk", 7),
    ("kek", 7),
    ("db", 7),
    ("vendor_db", 7),
    ("mokdig", 14),
    ("mokxdig", 14),
];
