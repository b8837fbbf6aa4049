//! Runtime policies: files, excludes, keyrings and keys.

use assay_evidence::ima::SigningKey;
use assay_evidence::{Digest, HashAlgorithm};
use data_encoding::BASE64;
use serde_json::{Map, Value};

use super::{Import, ImportError, digest_by_length, exclude, is_empty, object, texts};
use crate::path;
use crate::policy::Field;
use crate::policy::section::ima::BOOT_AGGREGATE;

impl Import {
    /// Takes over a runtime policy, signed or not.
    pub fn runtime_policy(&mut self, json: &str) -> Result<(), ImportError> {
        let mut policy = object(json)?;
        if let Some(payload) = policy.get("payload").filter(|_| policy.contains_key("signatures")) {
            let payload = payload.as_str().and_then(|text| BASE64.decode(text.as_bytes()).ok());
            let payload = payload.and_then(|bytes| String::from_utf8(bytes).ok());
            policy = object(&payload.ok_or(ImportError::Envelope)?).map_err(|_| ImportError::Envelope)?;
            self.warn(
                Field::of(["signatures"]),
                "the signature was not verified: verify it before you import",
            );
        }
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
            match policy.get_mut("digests").and_then(Value::as_object_mut) {
                Some(digests) => digests.extend(files.as_object().cloned().unwrap_or_default()),
                None => drop(policy.insert("digests".to_owned(), files)),
            }
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
            "violations, such as a file written while it is measured, are refused here (ima.violations); Keylime ignores them \
             unless told otherwise",
        );
    }

    fn files(&mut self, policy: &Map<String, Value>) {
        let files = policy.get("digests").and_then(Value::as_object);
        let mut weak = 0;
        for (name, digests) in files.into_iter().flatten() {
            if name == BOOT_AGGREGATE {
                self.note(
                    Field::of(["digests", name]),
                    "left out: it is checked against the boot PCRs by itself",
                );
                continue;
            }
            for text in texts(digests) {
                match digest_by_length(text) {
                    Some(digest) if digest.algorithm() == HashAlgorithm::Sha1 => weak += 1,
                    Some(digest) => self.policy.allow_file(name.as_bytes(), digest),
                    None => self.refuse(
                        Field::of(["digests", name]),
                        format!("{text:?} is not imported: no digest of 40, 64, 96 or 128 hex digits"),
                    ),
                }
            }
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
    }

    fn excludes(&mut self, policy: &Map<String, Value>) {
        let excludes = policy.get("excludes").and_then(Value::as_array);
        for (index, regex) in excludes.into_iter().flatten().enumerate() {
            let field = Field::of(["excludes"]).at(index);
            match regex.as_str() {
                Some(regex) => self.exclude(field, regex),
                None => self.refuse(field, "not imported: it is no text"),
            }
        }
    }

    /// Takes over the file of excludes that allowlists had beside them: a regular expression on each line.
    pub fn excludes_file(&mut self, text: &str) {
        let lines = text.lines().map(|line| line.trim_end_matches('\r')).enumerate();
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
            for (name, digests) in policy.get(member).and_then(Value::as_object).into_iter().flatten() {
                for text in texts(digests) {
                    let field = Field::of([member, name]);
                    let strong = |digest: &Digest| digest.algorithm() != HashAlgorithm::Sha1;
                    let Some(digest) = digest_by_length(text).filter(strong) else {
                        self.refuse(
                            field,
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
        let parsed = keys.as_str().and_then(|text| object(text).ok());
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
        let Some(ima) = policy.get("ima").and_then(Value::as_object) else { return };
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
/// RFC 7468, 2: lines of 64 characters.
const PEM_LINE_CHARACTERS: usize = 64;
