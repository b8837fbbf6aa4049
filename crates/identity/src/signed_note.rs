//! Signed notes: a text and Ed25519 signatures under it, in the form of C2SP `signed-note`.
//!
//! A note is its text, an empty line, and a line per signature: an em dash, the key's name, and in base64 four bytes of the
//! key's hash and the signature over the text. Whoever verifies knows the key as one line of text, `name+hash+key`.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use aws_lc_rs::{digest, rand};
use data_encoding::{BASE64, HEXLOWER};
use thiserror::Error;

/// A key that signs notes. Its `Debug` shows nothing of the key.
pub struct NoteSigner {
    name: String,
    seed: [u8; SEED_BYTES],
    key: Ed25519KeyPair,
}

/// A key that notes are verified with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoteVerifier {
    name: String,
    public_key: [u8; PUBLIC_KEY_BYTES],
}

impl NoteSigner {
    /// Makes a key of this name from the system's random source.
    pub fn generate(name: &str) -> Result<NoteSigner, NoteError> {
        let mut seed = [0; SEED_BYTES];
        rand::fill(&mut seed).map_err(|_| NoteError::Key)?;
        NoteSigner::from_seed(name, seed)
    }

    /// The key of a seed (RFC 8032 §5.1.5).
    pub fn from_seed(name: &str, seed: [u8; SEED_BYTES]) -> Result<NoteSigner, NoteError> {
        check_name(name)?;
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| NoteError::Key)?;
        Ok(NoteSigner { name: name.to_owned(), seed, key })
    }

    /// The seed: secret.
    pub fn seed(&self) -> &[u8; SEED_BYTES] {
        &self.seed
    }

    /// What verifies its notes.
    pub fn verifier(&self) -> NoteVerifier {
        let mut public_key = [0; PUBLIC_KEY_BYTES];
        public_key.copy_from_slice(self.key.public_key().as_ref());
        NoteVerifier { name: self.name.clone(), public_key }
    }

    /// Signs a text, which has to end with a newline.
    pub fn sign(&self, text: &str) -> Result<String, NoteError> {
        if !text.ends_with('\n') {
            return Err(NoteError::Text);
        }
        let signature = [&self.verifier().key_hash(), self.key.sign(text.as_bytes()).as_ref()].concat();
        Ok(format!("{text}\n{DASH}{} {}\n", self.name, BASE64.encode(&signature)))
    }
}

impl std::fmt::Debug for NoteSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NoteSigner({})", self.name)
    }
}

impl NoteVerifier {
    /// Reads `name+hash+key`.
    pub fn parse(line: &str) -> Result<NoteVerifier, NoteError> {
        let mut parts = line.trim().splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(NoteError::Key);
        };
        check_name(name)?;
        let key = BASE64.decode(key.as_bytes()).map_err(|_| NoteError::Key)?;
        let public_key = match key.split_first() {
            Some((&ALGORITHM, key)) => key.try_into().map_err(|_| NoteError::Key)?,
            _ => return Err(NoteError::Key),
        };
        let verifier = NoteVerifier { name: name.to_owned(), public_key };
        if HEXLOWER.encode(&verifier.key_hash()) == hash { Ok(verifier) } else { Err(NoteError::Key) }
    }

    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The text of a note that this key signed.
    pub fn open<'a>(&self, note: &'a str) -> Result<&'a str, NoteError> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Note);
        }
        // The text may have empty lines of its own; the last one ends it.
        let (text, signatures) = note.rsplit_once("\n\n").ok_or(NoteError::Note)?;
        let text = note.get(..text.len() + 1).ok_or(NoteError::Note)?;
        if !signatures.ends_with('\n') {
            return Err(NoteError::Note);
        }
        for line in signatures.lines().take(SIGNATURES_MAX) {
            let (name, signature) =
                line.strip_prefix(DASH).and_then(|rest| rest.split_once(' ')).ok_or(NoteError::Note)?;
            let signature = BASE64.decode(signature.as_bytes()).map_err(|_| NoteError::Note)?;
            let (hash, signature) = signature.split_first_chunk::<KEY_HASH_BYTES>().ok_or(NoteError::Note)?;
            if name != self.name || *hash != self.key_hash() {
                continue;
            }
            let key = UnparsedPublicKey::new(&ED25519, &self.public_key);
            return key.verify(text.as_bytes(), signature).map(|()| text).map_err(|_| NoteError::Signature);
        }
        Err(NoteError::Unsigned)
    }

    /// C2SP signed-note, Signatures: SHA-256(name || 0x0A || algorithm || key), the first four bytes.
    fn key_hash(&self) -> [u8; KEY_HASH_BYTES] {
        let hashed = [self.name.as_bytes(), b"\n", &[ALGORITHM], &self.public_key].concat();
        let mut hash = [0; KEY_HASH_BYTES];
        if let Some(start) = digest::digest(&digest::SHA256, &hashed).as_ref().get(..KEY_HASH_BYTES) {
            hash.copy_from_slice(start);
        }
        hash
    }
}

impl std::fmt::Display for NoteVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = [&[ALGORITHM], self.public_key.as_slice()].concat();
        write!(f, "{}+{}+{}", self.name, HEXLOWER.encode(&self.key_hash()), BASE64.encode(&key))
    }
}

/// Why a note cannot be made or does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoteError {
    /// No usable key, or a name that a note cannot hold.
    #[error("not a key for notes: give it as name+hash+key")]
    Key,
    /// A text that cannot be signed.
    #[error("a note's text ends with a newline")]
    Text,
    /// Not a note.
    #[error("not a signed note")]
    Note,
    /// Nobody asked about signed it.
    #[error("the note is not signed by this key")]
    Unsigned,
    /// Its signature is none.
    #[error("the note's signature does not verify")]
    Signature,
}

/// C2SP signed-note: no white space and no plus.
fn check_name(name: &str) -> Result<(), NoteError> {
    let fits = |c: char| !c.is_whitespace() && !c.is_control() && c != '+';
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(fits);
    if is_name { Ok(()) } else { Err(NoteError::Key) }
}

/// C2SP signed-note, Signature types: Ed25519.
const ALGORITHM: u8 = 1;
const DASH: &str = "\u{2014} ";
const KEY_HASH_BYTES: usize = 4;
const SEED_BYTES: usize = 32;
const PUBLIC_KEY_BYTES: usize = 32;
const NAME_BYTES_MAX: usize = 512;
/// Some lines, and as many signatures as anybody reads.
const NOTE_BYTES_MAX: usize = 64 << 10;
const SIGNATURES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn signer() -> NoteSigner {
        NoteSigner::from_seed("example.org/ledger", [7; 32]).unwrap()
    }

    #[test]
    fn a_note_is_opened_by_its_key_and_no_other() {
        let signer = signer();
        let note = signer.sign("example.org\n3\nAAAA\n\nmore\n").unwrap();
        let verifier = NoteVerifier::parse(&signer.verifier().to_string()).unwrap();
        assert_eq!(verifier.open(&note), Ok("example.org\n3\nAAAA\n\nmore\n"));
        let other = NoteSigner::generate("example.org/ledger").unwrap();
        assert_eq!(other.verifier().open(&note), Err(NoteError::Unsigned));
        let both = format!("{note}{}", other.sign("x\n").unwrap().lines().last().unwrap()) + "\n";
        assert_eq!(verifier.open(&both), Ok("example.org\n3\nAAAA\n\nmore\n"));
    }

    #[test]
    fn another_text_or_signature_is_found() {
        let (signer, verifier) = (signer(), signer().verifier());
        let note = signer.sign("origin\n3\n").unwrap();
        assert_eq!(verifier.open(&note.replacen('3', "4", 1)), Err(NoteError::Signature));
        assert_eq!(verifier.open(note.trim_end()), Err(NoteError::Note));
        assert_eq!(verifier.open("origin\n3\n"), Err(NoteError::Note));
        assert_eq!(signer.sign("no newline"), Err(NoteError::Text));
    }

    #[test]
    fn a_key_is_one_line_and_says_its_own_hash() {
        let verifier = signer().verifier().to_string();
        let parts: Vec<&str> = verifier.split('+').collect();
        assert_eq!(
            (parts[0], parts[1].len(), BASE64.decode(parts[2].as_bytes()).unwrap().len()),
            ("example.org/ledger", 8, 33)
        );
        for broken in ["", "a+b", "a b+00000000+AQ==", &verifier.replacen('+', "+0", 1)] {
            assert_eq!(NoteVerifier::parse(broken), Err(NoteError::Key), "{broken}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            prop_assert!(signer().verifier().open(&text).is_err());
            NoteVerifier::parse(&text).ok();
        }
    }
}
