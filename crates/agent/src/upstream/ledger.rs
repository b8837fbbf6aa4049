//! What the server showed of its ledger, and whether it stands by it.
//!
//! A ledger only grows. The newest head that the device was shown is kept, with the key that signed it, in two files of the
//! state folder that `assay ledger verify --head FILE --key KEY` reads. A server that later shows less, something else of the
//! same length, or a head signed otherwise has lost or rewritten its trail, or is another server. That is said aloud, counted,
//! and kept beside them; what the device holds does not hang on it. Who set the server back on purpose removes the files.

use std::time::{Duration, Instant};

use assay_identity::signed_note::{NoteError, NoteVerifier};
use assay_wire::ledger::LedgerHead;
use thiserror::Error;

use crate::state_dir::{StateDir, StateError};

/// The memory, and the files it is kept in.
#[derive(Debug)]
pub(super) struct LedgerMemory {
    state: StateDir,
    key: Option<NoteVerifier>,
    shown: Option<Shown>,
    kept_at: Option<Instant>,
    /// Whether what was shown last is on disk.
    is_kept: bool,
    contradictions: u64,
}

/// A head as it was shown.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shown {
    note: String,
    head: LedgerHead,
}

/// The server's ledger is not what it was.
#[derive(Debug, PartialEq, Eq, Error)]
enum Contradiction {
    #[error("its heads are signed by {shown}, and were by {known}")]
    OtherKey { known: String, shown: String },
    #[error("a head is not signed by its key: {0}")]
    NotSigned(NoteError),
    #[error("a signed note is no head")]
    NoHead,
    #[error("it has {shown} leaves, and had {known}: it was set back")]
    SetBack { known: u64, shown: u64 },
    #[error("leaf {leaves} is another than it was: it was rewritten")]
    Rewritten { leaves: u64 },
}

impl LedgerMemory {
    /// Of a device that was shown nothing yet.
    pub(super) fn new(state: &StateDir) -> LedgerMemory {
        LedgerMemory {
            state: state.clone(),
            key: None,
            shown: None,
            kept_at: None,
            is_kept: true,
            contradictions: 0,
        }
    }

    /// Reads what was kept.
    pub(super) fn load(state: &StateDir) -> Result<LedgerMemory, StateError> {
        let text = |name| -> Result<Option<String>, StateError> {
            let Some(bytes) = state.read(name)? else { return Ok(None) };
            String::from_utf8(bytes).map(Some).map_err(|_| StateError::Damaged { path: state.path(name) })
        };
        let damaged = |name| StateError::Damaged { path: state.path(name) };
        let key = text(KEY_FILE)?.map(|key| NoteVerifier::parse(&key)).transpose();
        let key = key.map_err(|_| damaged(KEY_FILE))?;
        let shown = match (&key, text(HEAD_FILE)?) {
            (Some(key), Some(note)) => Some(Shown::open(key, &note).map_err(|_| damaged(HEAD_FILE))?),
            (None, Some(_)) => return Err(damaged(HEAD_FILE)),
            (_, None) => None,
        };
        let counted = text(CONTRADICTIONS_FILE)?;
        let counted = counted.as_deref().and_then(|text| text.split(' ').next()?.parse().ok());
        Ok(LedgerMemory { key, shown, contradictions: counted.unwrap_or(0), ..LedgerMemory::new(state) })
    }

    /// What the server says verifies its heads; empty: it is an older one.
    pub(super) fn key(&mut self, key: &str) {
        if key.is_empty() {
            return;
        }
        match (&self.key, NoteVerifier::parse(key)) {
            (Some(known), Ok(shown)) if *known == shown => {}
            (None, Ok(shown)) => {
                self.keep(KEY_FILE, &format!("{shown}\n"));
                self.key = Some(shown);
            }
            (None, Err(error)) => self.contradicted(&Contradiction::NotSigned(error)),
            (Some(known), _) => {
                let (known, shown) = (known.to_string(), key.chars().take(KEY_CHARACTERS_MAX).collect());
                self.contradicted(&Contradiction::OtherKey { known, shown });
            }
        }
    }

    /// A head that the server shows; empty: it shows none.
    pub(super) fn head(&mut self, note: &str) {
        let Some(key) = self.key.as_ref().filter(|_| !note.is_empty()) else { return };
        match newer(key, self.shown.as_ref(), note) {
            Ok(None) => {}
            Ok(Some(shown)) => {
                self.shown = Some(shown);
                self.is_kept = false;
            }
            Err(contradiction) => self.contradicted(&contradiction),
        }
        self.keep_newest();
    }

    /// Keeps a newer head that came too soon to be written, once it is time: the trail may be quiet after it.
    pub(super) fn keep_newest(&mut self) {
        if !self.is_kept
            && self.kept_at.is_none_or(|at| at.elapsed() >= KEEP_EVERY)
            && let Some(shown) = &self.shown
        {
            self.keep(HEAD_FILE, &shown.note);
            (self.is_kept, self.kept_at) = (true, Some(Instant::now()));
        }
    }

    fn contradicted(&mut self, contradiction: &Contradiction) {
        self.contradictions = self.contradictions.saturating_add(1);
        let times = self.contradictions;
        tracing::error!(times, "the server's ledger is not what it showed before: {contradiction}");
        self.keep(CONTRADICTIONS_FILE, &format!("{times} times, the last: {contradiction}\n"));
    }

    fn keep(&self, name: &str, text: &str) {
        if let Err(error) = self.state.write(name, text.as_bytes()) {
            tracing::error!(%error, "what the server showed of its ledger could not be kept");
        }
    }
}

impl Shown {
    fn open(key: &NoteVerifier, note: &str) -> Result<Shown, Contradiction> {
        let text = key.open(note).map_err(Contradiction::NotSigned)?;
        let head = LedgerHead::from_text(text).ok_or(Contradiction::NoHead)?;
        Ok(Shown { note: note.to_owned(), head })
    }
}

/// The head, if it goes on from the one that was shown; `None`: it is the same.
fn newer(key: &NoteVerifier, known: Option<&Shown>, note: &str) -> Result<Option<Shown>, Contradiction> {
    let shown = Shown::open(key, note)?;
    let Some(Shown { head: known, .. }) = known else { return Ok(Some(shown)) };
    match shown.head.leaves.cmp(&known.leaves) {
        std::cmp::Ordering::Greater => Ok(Some(shown)),
        std::cmp::Ordering::Equal if shown.head == *known => Ok(None),
        std::cmp::Ordering::Equal => Err(Contradiction::Rewritten { leaves: known.leaves }),
        std::cmp::Ordering::Less => {
            Err(Contradiction::SetBack { known: known.leaves, shown: shown.head.leaves })
        }
    }
}

const HEAD_FILE: &str = "ledger.head";
const KEY_FILE: &str = "ledger.vkey";
const CONTRADICTIONS_FILE: &str = "ledger.contradictions";
/// A head comes with each verdict; a device that measures all the time need not write all the time.
const KEEP_EVERY: Duration = Duration::from_secs(5);
/// Of another's key, in a log line.
const KEY_CHARACTERS_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use assay_identity::signed_note::NoteSigner;

    use super::*;

    fn note(signer: &NoteSigner, leaves: u64, hash: u8) -> String {
        signer.sign(&LedgerHead { leaves, hash: [hash; 32] }.to_text()).unwrap()
    }

    #[test]
    fn finding_16_what_was_shown_is_remembered_and_less_is_a_contradiction() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let (signer, other) =
            (NoteSigner::generate("a/ledger").unwrap(), NoteSigner::generate("a/ledger").unwrap());
        let mut memory = LedgerMemory::load(&state).unwrap();
        // Heads without a key, and of a server that shows none, say nothing.
        memory.head(&note(&signer, 9, 1));
        memory.key("");
        memory.key(&signer.verifier().to_string());
        memory.head("");
        memory.head(&note(&signer, 3, 1));
        memory.head(&note(&signer, 3, 1));
        assert_eq!(memory.contradictions, 0);
        assert_eq!(std::fs::read_to_string(state.path(HEAD_FILE)).unwrap(), note(&signer, 3, 1));
        // A newer one that came too soon is written with what comes later, the same one again or not.
        memory.head(&note(&signer, 4, 1));
        memory.kept_at = None;
        memory.head(&note(&signer, 4, 1));
        assert_eq!(std::fs::read_to_string(state.path(HEAD_FILE)).unwrap(), note(&signer, 4, 1));
        // Over a restart as well.
        let mut memory = LedgerMemory::load(&state).unwrap();
        memory.head(&note(&signer, 5, 2));
        for (times, said) in
            [note(&signer, 4, 1), note(&signer, 5, 3), note(&other, 6, 1), "no note".to_owned()]
                .iter()
                .enumerate()
        {
            memory.head(said);
            assert_eq!(memory.contradictions, times as u64 + 1, "{said}");
        }
        memory.key(&other.verifier().to_string());
        assert_eq!(memory.contradictions, 5);
        // The newest that was shown stays the measure, and the key that was first.
        memory.head(&note(&signer, 5, 2));
        memory.head(&note(&signer, 6, 2));
        assert_eq!(memory.contradictions, 5);
        assert_eq!(LedgerMemory::load(&state).unwrap().contradictions, 5);
        let text = std::fs::read_to_string(state.path(CONTRADICTIONS_FILE)).unwrap();
        assert!(text.starts_with("5 times, the last: its heads are signed by a/ledger+"), "{text}");
    }

    #[test]
    fn each_contradiction_is_named() {
        let (signer, other) =
            (NoteSigner::generate("a/ledger").unwrap(), NoteSigner::generate("a/ledger").unwrap());
        let key = signer.verifier();
        let known = Shown::open(&key, &note(&signer, 5, 1)).unwrap();
        let check = |note: String, expected| assert_eq!(newer(&key, Some(&known), &note), Err(expected));
        check(note(&signer, 4, 1), Contradiction::SetBack { known: 5, shown: 4 });
        check(note(&signer, 5, 2), Contradiction::Rewritten { leaves: 5 });
        check(note(&other, 6, 1), Contradiction::NotSigned(NoteError::Unsigned));
        check(signer.sign("something else\n").unwrap(), Contradiction::NoHead);
    }

    #[test]
    fn files_that_do_not_fit_are_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let (signer, other) =
            (NoteSigner::generate("a/ledger").unwrap(), NoteSigner::generate("a/ledger").unwrap());
        state.write(HEAD_FILE, note(&signer, 3, 1).as_bytes()).unwrap();
        assert!(matches!(LedgerMemory::load(&state), Err(StateError::Damaged { .. })));
        state.write(KEY_FILE, other.verifier().to_string().as_bytes()).unwrap();
        assert!(matches!(LedgerMemory::load(&state), Err(StateError::Damaged { .. })));
        state.write(KEY_FILE, signer.verifier().to_string().as_bytes()).unwrap();
        LedgerMemory::load(&state).unwrap();
    }
}
