//! What the servers showed of their ledger, and whether they stand by it.
//!
//! With each answer about the revocation list a server shows the newest head of its ledger. The gateway keeps it, with the key
//! that signed it, beside its credentials, in two files that `assay ledger verify --head FILE --key KEY` reads. A server that later
//! shows less, or something else, was set back or is another; that is said aloud and counted, and nothing hangs on it. Who set the
//! server back on purpose removes the files.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use assay_identity::ledger::{Contradiction, HEAD_HEADER, KEY_HEADER, ShownLedger};
use data_encoding::BASE64;
use http::HeaderMap;

/// The memory, and the folder that it is kept in.
#[derive(Debug)]
pub(crate) struct LedgerMemory {
    folder: PathBuf,
    /// Held for the time of one signature and two small files.
    ledger: Mutex<ShownLedger>,
    contradictions: AtomicU64,
}

impl LedgerMemory {
    /// Reads what was kept; what does not read is said, and the next head that is shown is the first.
    pub(crate) fn load(folder: &Path) -> LedgerMemory {
        let text = |name| std::fs::read_to_string(folder.join(name)).ok();
        let kept = ShownLedger::kept(text(KEY_FILE).as_deref(), text(HEAD_FILE).as_deref());
        let ledger = kept.unwrap_or_else(|error| {
            tracing::error!(folder = %folder.display(), "what was kept of the server's ledger does not read: {error}");
            ShownLedger::default()
        });
        LedgerMemory {
            folder: folder.to_owned(),
            ledger: Mutex::new(ledger),
            contradictions: AtomicU64::new(0),
        }
    }

    /// Takes what a server shows in the headers of an answer; an older one shows nothing.
    pub(crate) fn take(&self, headers: &HeaderMap) {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let (Some(key), Some(head)) = (text(KEY_HEADER), text(HEAD_HEADER)) else { return };
        let note = BASE64.decode(head.as_bytes()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let mut ledger = self.ledger.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = ledger.take_key(key).and_then(|is_first| {
            let note = note.ok_or(Contradiction::NoHead)?;
            Ok((is_first, ledger.take_head(&note)?))
        });
        match taken {
            Ok((is_first, is_newer)) => {
                if is_first && let Some(key) = ledger.key() {
                    self.keep(KEY_FILE, &format!("{key}\n"));
                }
                if is_newer && let Some(note) = ledger.note() {
                    self.keep(HEAD_FILE, note);
                }
            }
            Err(contradiction) => {
                let times = self.contradictions.fetch_add(1, Ordering::Relaxed) + 1;
                tracing::error!(times, "the server's ledger is not what it showed before: {contradiction}");
            }
        }
    }

    /// How often a server contradicted what was shown before, since the gateway started.
    pub(crate) fn contradictions(&self) -> u64 {
        self.contradictions.load(Ordering::Relaxed)
    }

    /// Whole or not at all: beside its place, and then renamed.
    fn keep(&self, name: &str, text: &str) {
        let (beside, place) = (self.folder.join(format!("{name}.new")), self.folder.join(name));
        let kept = std::fs::write(&beside, text).and_then(|()| std::fs::rename(&beside, &place));
        if let Err(error) = kept {
            tracing::warn!(file = %place.display(), %error, "what the server showed of its ledger could not be kept");
        }
    }
}

const HEAD_FILE: &str = "ledger.head";
const KEY_FILE: &str = "ledger.vkey";

#[cfg(test)]
mod tests {
    use assay_identity::ledger::LedgerHead;
    use assay_identity::signed_note::NoteSigner;

    use super::*;

    fn shown(signer: &NoteSigner, leaves: u64, hash: u8) -> HeaderMap {
        let note = signer.sign(&LedgerHead { leaves, hash: [hash; 32] }.to_text()).unwrap();
        HeaderMap::from_iter([
            (HEAD_HEADER.parse().unwrap(), BASE64.encode(note.as_bytes()).parse().unwrap()),
            (KEY_HEADER.parse().unwrap(), signer.verifier().to_string().parse().unwrap()),
        ])
    }

    #[test]
    fn year_4_a_gateway_remembers_what_it_was_shown_and_less_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let (signer, other) =
            (NoteSigner::generate("a/ledger").unwrap(), NoteSigner::generate("a/ledger").unwrap());
        let memory = LedgerMemory::load(folder.path());
        memory.take(&HeaderMap::new());
        memory.take(&shown(&signer, 3, 1));
        memory.take(&shown(&signer, 3, 1));
        memory.take(&shown(&signer, 5, 1));
        assert_eq!(memory.contradictions(), 0);
        // Over a restart as well.
        let memory = LedgerMemory::load(folder.path());
        for (times, headers) in (1..).zip([shown(&signer, 4, 1), shown(&signer, 5, 2), shown(&other, 6, 1)]) {
            memory.take(&headers);
            assert_eq!(memory.contradictions(), times, "{headers:?}");
        }
        // The newest that was shown stays the measure.
        memory.take(&shown(&signer, 5, 1));
        memory.take(&shown(&signer, 6, 1));
        assert_eq!(memory.contradictions(), 3);
        // What is kept is what `assay ledger verify` reads.
        let head = std::fs::read_to_string(folder.path().join(HEAD_FILE)).unwrap();
        assert_eq!(signer.verifier().open(&head).unwrap(), LedgerHead { leaves: 6, hash: [1; 32] }.to_text());
        std::fs::write(folder.path().join(HEAD_FILE), "no note").unwrap();
        LedgerMemory::load(folder.path()).take(&shown(&signer, 1, 1));
    }
}
