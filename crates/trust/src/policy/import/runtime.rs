//! Runtime policies: files, excludes, keyrings and keys.

use assay_evidence::ima::SigningKey;
use assay_evidence::{Digest, HashAlgorithm};
use data_encoding::BASE64;
use serde_json::{Map, Value};

use super::{Import, ImportError, digest_by_length, exclude, is_empty, object, without_mark};
use crate::path;
use crate::policy::Field;
use crate::policy::section::ima::BOOT_AGGREGATE;

impl Import {
    /// Takes over a runtime policy, whatever it comes in; that of a signature is not verified.
    pub fn runtime_policy(&mut self, json: &str) -> Result<(), ImportError> {
        let mut policy = self.unwrapped(object(json)?)?;
        if let Some(version) = policy.get("meta").and_then(|meta| meta.get("version"))
            && version.as_u64() != Some(KNOWN_VERSION)
        {
            self.warn(
                Field::of(["meta", "version"]),
                format!(
                    "the format is of version {version}, and version {KNOWN_VERSION} is known: what is read means the same, and each \
                     member that is not known is said"
                ),
            );
        }
        if let Some(files) = policy.remove("hashes") {
            self.note(
                Field::of(["hashes"]),
                "this is an allowlist of an earlier version, whose files are under hashes instead of digests",
            );
            self.earlier_files(&mut policy, files);
        }
        self.take_runtime_policy(&policy);
        Ok(())
    }

    /// Takes over the members of a runtime policy.
    pub(super) fn take_runtime_policy(&mut self, policy: &Map<String, Value>) {
        self.policy.ima.get_or_insert_default();
        self.files(policy);
        self.excludes(policy);
        self.buffers(policy);
        self.verification_keys(policy);
        self.ima_options(policy);
        self.refuse_unknown(
            policy,
            &["meta", "release", "digests", "excludes", "keyrings", "ima", "ima-buf", "verification-keys"],
        );
        self.note(
            Field::default(),
            "violations, such as a file written while it is measured, are refused here where the file is listed (ima.violations); \
             Keylime ignores them unless told otherwise",
        );
    }

    /// Files under the word of earlier versions, beside those under today's.
    fn earlier_files(&mut self, policy: &mut Map<String, Value>, files: Value) {
        let digests = policy.entry("digests").or_insert_with(|| Map::new().into());
        match (digests.as_object_mut(), files) {
            (Some(digests), Value::Object(files)) => {
                for (name, more) in files {
                    let known = digests.entry(name).or_insert_with(|| Vec::<Value>::new().into());
                    let both = [&*known, &more]
                        .map(|one| one.as_array().cloned().unwrap_or_else(|| vec![one.clone()]));
                    *known = both.concat().into();
                }
            }
            (_, files) if !is_empty(&files) => {
                self.refuse(
                    Field::of(["hashes"]),
                    "not imported: it is no object, or digests beside it is none",
                );
            }
            _ => {}
        }
    }

    fn files(&mut self, policy: &Map<String, Value>) {
        let files = self.members(policy, "digests");
        // Files that are listed by SHA-1 alone, and digests of SHA-1 beside others.
        let (mut weak, mut spare) = (0, 0);
        for (name, digests) in files.into_iter().flatten() {
            let field = Field::of(["digests", name]);
            if name == BOOT_AGGREGATE {
                self.note(field, "left out: it is checked against the boot PCRs by itself");
                continue;
            }
            let (mut strong, mut sha1) = (0, 0);
            for text in self.texts(&field, digests) {
                match digest_by_length(text) {
                    Some(digest) if digest.algorithm() == HashAlgorithm::Sha1 => sha1 += 1,
                    Some(digest) => {
                        self.policy.allow_file(name.as_bytes(), digest);
                        strong += 1;
                    }
                    None => self.refuse(
                        field.clone(),
                        format!("{text:?} is not imported: no digest of 40, 64, 96 or 128 hex digits"),
                    ),
                }
            }
            if strong > 0 { spare += sha1 } else { weak += sha1 }
        }
        if files.is_some_and(|files| !files.is_empty()) {
            self.note(
                Field::of(["digests"]),
                "the digests name no algorithm, so their length tells it (64 digits: sha256), and a file counts only with \
                 that algorithm; Keylime compares the digits alone",
            );
        }
        if weak > 0 {
            self.refuse(
                Field::of(["digests"]),
                format!("{weak} SHA-1 digests are not imported, because files with the same digest can be made: measure with ima_hash=sha256"),
            );
        }
        if spare > 0 {
            self.warn(
                Field::of(["digests"]),
                format!("{spare} SHA-1 digests were left out beside stronger ones of the same files: measure with ima_hash=sha256"),
            );
        }
    }

    fn excludes(&mut self, policy: &Map<String, Value>) {
        for (index, regex) in self.items(policy, "excludes").iter().enumerate() {
            let field = Field::of(["excludes"]).at(index);
            match regex.as_str() {
                Some(regex) => self.exclude(field, regex),
                None => self.refuse(field, "not imported: it is no text"),
            }
        }
    }

    /// Takes over the file of excludes that allowlists had beside them: a regular expression on each line.
    pub fn excludes_file(&mut self, text: &str) {
        let lines = without_mark(text).lines().map(|line| line.trim_end_matches('\r')).enumerate();
        for (number, regex) in lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#')) {
            self.exclude(Field::of(["excludes"]).at(number), regex);
        }
    }

    /// Takes over one regular expression.
    fn exclude(&mut self, field: Field, regex: &str) {
        let converted = match exclude::convert(regex) {
            Ok(converted) => converted,
            Err(why) => {
                self.refuse(field, format!("{regex:?} is not imported, so what it covers is judged: {why}"));
                return;
            }
        };
        let written = converted.patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        for difference in &converted.differences {
            self.warn(field.clone(), format!("{regex:?} became {written}: {difference}"));
        }
        let section = self.policy.ima.get_or_insert_default();
        for pattern in converted.patterns {
            if !section.exclude.contains(&pattern) {
                section.exclude.push(pattern);
            }
        }
    }

    /// Keys put on keyrings, and other buffers that the kernel measures by name.
    fn buffers(&mut self, policy: &Map<String, Value>) {
        for (member, is_keyring) in [("keyrings", true), ("ima-buf", false)] {
            for (name, digests) in self.members(policy, member).into_iter().flatten() {
                let field = Field::of([member, name]);
                for text in self.texts(&field, digests) {
                    let strong = |digest: &Digest| digest.algorithm() != HashAlgorithm::Sha1;
                    let Some(digest) = digest_by_length(text).filter(strong) else {
                        self.refuse(
                            field.clone(),
                            format!("{text:?} is not imported: no digest of sha256, sha384 or sha512"),
                        );
                        continue;
                    };
                    if !is_keyring {
                        self.policy.allow_file(name.as_bytes(), digest);
                        continue;
                    }
                    let keyrings = &mut self.policy.ima.get_or_insert_default().keyrings;
                    let known = keyrings.entry(path::to_text(name.as_bytes()).into_owned()).or_default();
                    if !known.contains(&digest) {
                        known.push(digest);
                    }
                }
            }
        }
        if policy.get("ima-buf").is_some_and(|buffers| !is_empty(buffers)) {
            self.note(
                Field::of(["ima-buf"]),
                "became names under ima.allow, where measured buffers are judged like files",
            );
        }
    }

    fn verification_keys(&mut self, policy: &Map<String, Value>) {
        let field = Field::of(["verification-keys"]);
        let Some(keys) = policy.get("verification-keys").filter(|keys| !is_empty(keys)) else { return };
        let parsed = key_list(keys);
        let Some(listed) = parsed.as_ref().and_then(|keys| keys.get("pubkeys")).and_then(Value::as_array)
        else {
            self.refuse(field, "not imported: no list of public keys in it can be read");
            return;
        };
        for (index, key) in listed.iter().enumerate() {
            let der = key.as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok());
            match der
                .map(|der| pem(&der))
                .filter(|pem| SigningKey::from_certificate_or_spki(pem.as_bytes()).is_ok())
            {
                Some(pem) => {
                    let known = &mut self.policy.ima.get_or_insert_default().signing_keys;
                    if !known.contains(&pem) {
                        known.push(pem);
                    }
                }
                None => {
                    self.refuse(field.clone().at(index), "not imported: no public key that can sign files")
                }
            }
        }
    }

    fn ima_options(&mut self, policy: &Map<String, Value>) {
        let Some(ima) = self.members(policy, "ima") else { return };
        for (option, _) in ima.iter().filter(|(_, value)| !is_empty(value)) {
            let field = Field::of(["ima", option]);
            match option.as_str() {
                // The list is replayed in each bank with the hash that the bank shows.
                "log_hash_alg" => {}
                "ignored_keyrings" => self.refuse(
                    field,
                    "not imported: a key counts here only if its digest is under ima.keyrings, so nothing has to be ignored, and \
                     the entries of other keys are refused",
                ),
                "dm_policy" => self.refuse(field, "not imported: no rule here judges device-mapper events one by one"),
                _ => self.refuse(field, "not known, so not imported"),
            }
        }
    }
}

/// Keys are an object, in most versions as text, and in some as text in text.
fn key_list(keys: &Value) -> Option<Map<String, Value>> {
    let mut keys = keys.clone();
    for _ in 0..KEYS_IN_TEXT_MAX {
        match keys {
            Value::Object(keys) => return Some(keys),
            Value::String(text) => keys = serde_json::from_str(&text).ok()?,
            _ => return None,
        }
    }
    None
}

fn pem(der: &[u8]) -> String {
    let base64 = BASE64.encode(der);
    let mut pem = "-----BEGIN PUBLIC KEY-----\n".to_owned();
    for (index, character) in base64.chars().enumerate() {
        if index > 0 && index % PEM_LINE_CHARACTERS == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem + "\n-----END PUBLIC KEY-----\n"
}

/// Of Keylime's runtime policies.
const KNOWN_VERSION: u64 = 1;
/// An object, and twice as text.
const KEYS_IN_TEXT_MAX: usize = 3;
/// RFC 7468, 2: lines of 64 characters.
const PEM_LINE_CHARACTERS: usize = 64;
