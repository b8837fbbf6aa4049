//! What the server showed of its ledger, and whether it stands by it.
//!
//! A ledger only grows. The newest head that the device was shown is kept, with the key that signed it, in two files of the
//! state folder that `assay ledger verify --head FILE --key KEY` reads. A server that later shows less, something else of the
//! same length, or a head signed otherwise has lost or rewritten its trail, or is another server. That is said aloud, counted,
//! and kept beside them; what the device holds does not hang on it. Who set the server back on purpose removes the files.

use std::time::{Duration, Instant};

use assay_identity::ledger::{Contradiction, ShownLedger};

use crate::state_dir::{StateDir, StateError};

/// The memory, and the files it is kept in.
#[derive(Debug)]
pub(super) struct LedgerMemory {
    state: StateDir,
    ledger: ShownLedger,
    kept_at: Option<Instant>,
    /// Whether what was shown last is on disk.
    is_kept: bool,
    contradictions: u64,
}

impl LedgerMemory {
    /// Of a device that was shown nothing yet.
    pub(super) fn new(state: &StateDir) -> LedgerMemory {
        LedgerMemory {
            state: state.clone(),
            ledger: ShownLedger::default(),
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
        let (key, note) = (text(KEY_FILE)?, text(HEAD_FILE)?);
        // Of the two, the key is what everything later is held against.
        let alone = ShownLedger::kept(key.as_deref(), None).map_err(|_| damaged(KEY_FILE))?;
        let ledger = match &note {
            Some(_) => ShownLedger::kept(key.as_deref(), note.as_deref()).map_err(|_| damaged(HEAD_FILE))?,
            None => alone,
        };
        let counted = text(CONTRADICTIONS_FILE)?;
        let counted = counted.as_deref().and_then(|text| text.split(' ').next()?.parse().ok());
        Ok(LedgerMemory { ledger, contradictions: counted.unwrap_or(0), ..LedgerMemory::new(state) })
    }

    /// What the server says verifies its heads; empty: it is an older one.
    pub(super) fn key(&mut self, key: &str) {
        if key.is_empty() {
            return;
        }
        match self.ledger.take_key(key) {
            Ok(false) => {}
            Ok(true) => self.keep(KEY_FILE, &format!("{key}\n")),
            Err(contradiction) => self.contradicted(&contradiction),
        }
    }

    /// A head that the server shows; empty: it shows none.
    pub(super) fn head(&mut self, note: &str) {
        if note.is_empty() {
            return;
        }
        match self.ledger.take_head(note) {
            Ok(is_newer) => self.is_kept &= !is_newer,
            Err(contradiction) => self.contradicted(&contradiction),
        }
        self.keep_newest();
    }

    /// Keeps a newer head that came too soon to be written, once it is time: the trail may be quiet after it.
    pub(super) fn keep_newest(&mut self) {
        if !self.is_kept
            && self.kept_at.is_none_or(|at| at.elapsed() >= KEEP_EVERY)
            && let Some(note) = self.ledger.note()
        {
            self.keep(HEAD_FILE, note);
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

const HEAD_FILE: &str = "ledger.head";
const KEY_FILE: &str = "ledger.vkey";
const CONTRADICTIONS_FILE: &str = "ledger.contradictions";
/// A head comes with each verdict; a device that measures all the time need not write all the time.
const KEEP_EVERY: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use assay_identity::ledger::LedgerHead;
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
