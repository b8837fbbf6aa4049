//! The head of the ledger as text, which the server signs and devices and gateways remember, and what of it contradicts what was
//! shown before.

use std::cmp::Ordering;

use data_encoding::BASE64;
use thiserror::Error;

use crate::signed_note::{NoteError, NoteVerifier};

/// The end of the ledger's chain at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerHead {
    /// Leaves so far.
    pub leaves: u64,
    /// SHA-256 of the last one and everything before it; zero before the first.
    pub hash: [u8; 32],
}

impl LedgerHead {
    /// Three lines, as a signed note has them: what it is of, how many leaves, and the hash in base64.
    pub fn to_text(&self) -> String {
        format!("{ORIGIN}\n{}\n{}\n", self.leaves, BASE64.encode(&self.hash))
    }

    /// Reads such a text; the same head has no other.
    pub fn from_text(text: &str) -> Option<LedgerHead> {
        let mut lines = text.lines();
        let (origin, leaves, hash) = (lines.next()?, lines.next()?, lines.next()?);
        let hash = BASE64.decode(hash.as_bytes()).ok()?.try_into().ok()?;
        let head = LedgerHead { leaves: leaves.parse().ok()?, hash };
        (origin == ORIGIN && head.to_text() == text).then_some(head)
    }
}

/// What somebody was shown of a ledger, which only grows: the key that signs its heads, as it was first shown, and the newest head.
#[derive(Debug, Default)]
pub struct ShownLedger {
    key: Option<NoteVerifier>,
    head: Option<Shown>,
}

/// A head as it was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    note: String,
    head: LedgerHead,
}

/// The ledger is not what it was.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum Contradiction {
    /// Another key signs its heads.
    #[error("its heads are signed by {shown}, and were by {known}")]
    OtherKey {
        /// The one that was first shown.
        known: String,
        /// This one.
        shown: String,
    },
    /// No key of the ledger's signed it.
    #[error("a head is not signed by its key: {0}")]
    NotSigned(NoteError),
    /// Something else was signed.
    #[error("a signed note is no head")]
    NoHead,
    /// It has lost leaves.
    #[error("it has {shown} leaves, and had {known}: it was set back")]
    SetBack {
        /// How many it had.
        known: u64,
        /// How many it has.
        shown: u64,
    },
    /// It has other leaves.
    #[error("leaf {leaves} is another than it was: it was rewritten")]
    Rewritten {
        /// How many it has, and had.
        leaves: u64,
    },
}

impl ShownLedger {
    /// What was kept: the key, and the newest head that it signed.
    pub fn kept(key: Option<&str>, note: Option<&str>) -> Result<ShownLedger, Contradiction> {
        let key = key.map(NoteVerifier::parse).transpose().map_err(Contradiction::NotSigned)?;
        let head = match (&key, note) {
            (Some(key), Some(note)) => Some(Shown::open(key, note)?),
            (None, Some(_)) => return Err(Contradiction::NoHead),
            (_, None) => None,
        };
        Ok(ShownLedger { key, head })
    }

    /// Takes what is said to verify the heads; whether it is the first word of it.
    pub fn take_key(&mut self, key: &str) -> Result<bool, Contradiction> {
        match (&self.key, NoteVerifier::parse(key)) {
            (Some(known), Ok(shown)) if *known == shown => Ok(false),
            (None, Ok(shown)) => {
                self.key = Some(shown);
                Ok(true)
            }
            (None, Err(error)) => Err(Contradiction::NotSigned(error)),
            (Some(known), _) => Err(Contradiction::OtherKey {
                known: known.to_string(),
                shown: key.chars().take(KEY_CHARACTERS_MAX).collect(),
            }),
        }
    }

    /// Takes a head; whether it is newer than the one that was known. Without a key it says nothing.
    pub fn take_head(&mut self, note: &str) -> Result<bool, Contradiction> {
        let Some(key) = &self.key else { return Ok(false) };
        let shown = Shown::open(key, note)?;
        let Some(Shown { head: known, .. }) = &self.head else {
            self.head = Some(shown);
            return Ok(true);
        };
        match shown.head.leaves.cmp(&known.leaves) {
            Ordering::Greater => {
                self.head = Some(shown);
                Ok(true)
            }
            Ordering::Equal if shown.head == *known => Ok(false),
            Ordering::Equal => Err(Contradiction::Rewritten { leaves: known.leaves }),
            Ordering::Less => Err(Contradiction::SetBack { known: known.leaves, shown: shown.head.leaves }),
        }
    }

    /// The key that was first shown.
    pub fn key(&self) -> Option<&NoteVerifier> {
        self.key.as_ref()
    }

    /// The newest head, as it was signed.
    pub fn note(&self) -> Option<&str> {
        self.head.as_ref().map(|shown| shown.note.as_str())
    }
}

impl Shown {
    fn open(key: &NoteVerifier, note: &str) -> Result<Shown, Contradiction> {
        let text = key.open(note).map_err(Contradiction::NotSigned)?;
        let head = LedgerHead::from_text(text).ok_or(Contradiction::NoHead)?;
        Ok(Shown { note: note.to_owned(), head })
    }
}

/// The headers in which a server shows a gateway its ledger: the signed head in base64, and the key that verifies it.
pub const HEAD_HEADER: &str = "assay-ledger-head";
/// See [`HEAD_HEADER`].
pub const KEY_HEADER: &str = "assay-ledger-key";

/// Of another's key, in a log line.
const KEY_CHARACTERS_MAX: usize = 300;
/// A hash of this chain, not the root of a tree.
const ORIGIN: &str = "assay-audit-chain-v1";

#[cfg(test)]
mod tests {
    use crate::signed_note::NoteSigner;

    use super::*;

    #[test]
    fn each_contradiction_is_named() {
        let (signer, other) =
            (NoteSigner::generate("a/ledger").unwrap(), NoteSigner::generate("a/ledger").unwrap());
        let note = |signer: &NoteSigner, leaves: u64, hash: u8| {
            signer.sign(&LedgerHead { leaves, hash: [hash; 32] }.to_text()).unwrap()
        };
        let key = signer.verifier().to_string();
        let known = || ShownLedger::kept(Some(&key), Some(&note(&signer, 5, 1))).unwrap();
        let check = |note: String, expected| assert_eq!(known().take_head(&note), expected);
        check(note(&signer, 6, 9), Ok(true));
        check(note(&signer, 5, 1), Ok(false));
        check(note(&signer, 4, 1), Err(Contradiction::SetBack { known: 5, shown: 4 }));
        check(note(&signer, 5, 2), Err(Contradiction::Rewritten { leaves: 5 }));
        check(note(&other, 6, 1), Err(Contradiction::NotSigned(NoteError::Unsigned)));
        check(signer.sign("something else\n").unwrap(), Err(Contradiction::NoHead));
        assert_eq!(known().take_key(&key), Ok(false));
        let another = other.verifier().to_string();
        assert!(matches!(known().take_key(&another), Err(Contradiction::OtherKey { .. })));
        assert!(ShownLedger::kept(None, Some(&note(&signer, 5, 1))).is_err());
        assert!(ShownLedger::kept(Some(&another), Some(&note(&signer, 5, 1))).is_err());
        // A head without a key says nothing, and the key that comes first is the measure.
        let mut fresh = ShownLedger::default();
        assert_eq!(fresh.take_head(&note(&signer, 5, 1)), Ok(false));
        assert_eq!((fresh.take_key(&key), fresh.take_head(&note(&signer, 5, 1))), (Ok(true), Ok(true)));
        assert_eq!(fresh.note(), Some(note(&signer, 5, 1).as_str()));
    }

    #[test]
    fn a_head_has_one_text() {
        let head = LedgerHead { leaves: 7, hash: [9; 32] };
        let text = head.to_text();
        assert_eq!(LedgerHead::from_text(&text), Some(head));
        for other in [
            text.replace('7', "07"),
            format!("{text}\n"),
            text.replace("v1", "v2"),
            text.trim_end().to_owned(),
        ] {
            assert_eq!(LedgerHead::from_text(&other), None, "{other}");
        }
    }
}
