//! What the device knows of its server over restarts, in a file of the state folder.

use std::time::{Duration, Instant};

use assay_identity::Crl;
use assay_identity::crl::CRL_BYTES_MAX;
use assay_telemetry::sha256;
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};

use super::clock::ServerClock;
use super::ledger::LedgerMemory;
use crate::holding::Remembered;
use crate::state_dir::{StateDir, StateError};

/// The file, and what is in it.
#[derive(Debug)]
pub struct Memory {
    state: StateDir,
    /// Of the bundle that the device was installed with: another one is another beginning.
    installed: String,
    kept: Remembered,
    kept_at: Option<Instant>,
    /// What the server showed of its ledger.
    pub(super) ledger: LedgerMemory,
    /// And of its clock; known for as long as the agent runs.
    pub(super) clock: ServerClock,
    /// The revocation list, DER; empty: there was none yet.
    list: Vec<u8>,
    list_at: Option<Instant>,
}

#[derive(Serialize, Deserialize)]
struct File {
    installed_sha256: String,
    number: u64,
    state_version: u64,
    bundle: String,
}

impl Memory {
    /// Reads it, for a device that was installed with this bundle.
    pub fn load(state: &StateDir, installed: &[u8]) -> Result<Memory, StateError> {
        let installed = HEXLOWER.encode(&sha256(installed));
        let damaged = || StateError::Damaged { path: state.path(FILE) };
        let kept = match state.read(FILE)? {
            None => Remembered::default(),
            Some(bytes) => {
                let file: File = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
                let bundle = BASE64.decode(file.bundle.as_bytes()).map_err(|_| damaged())?;
                let File { installed_sha256, number, state_version, .. } = file;
                match installed_sha256 == installed {
                    true => Remembered { number, state_version, bundle },
                    false => Remembered::default(),
                }
            }
        };
        // Installed anew, the device begins anew with another server's ledger as well.
        let ledger = match kept == Remembered::default() {
            true => LedgerMemory::new(state),
            false => LedgerMemory::load(state)?,
        };
        let list = kept_list(state)?;
        Ok(Memory {
            state: state.clone(),
            installed,
            kept,
            kept_at: None,
            ledger,
            clock: ServerClock::default(),
            list,
            list_at: None,
        })
    }

    /// What is in it.
    pub fn remembered(&self) -> &Remembered {
        &self.kept
    }

    /// Keeps what changed: other authorities at once, numbers now and then, since each costs a write to the disk.
    pub fn keep(&mut self, now: &Remembered) -> Result<(), StateError> {
        let recently = self.kept_at.is_some_and(|at| at.elapsed() < KEEP_EVERY);
        if *now == self.kept || (now.bundle == self.kept.bundle && recently) {
            return Ok(());
        }
        let file = File {
            installed_sha256: self.installed.clone(),
            number: now.number,
            state_version: now.state_version,
            bundle: BASE64.encode(&now.bundle),
        };
        let text =
            serde_json::to_vec(&file).map_err(|_| StateError::Damaged { path: self.state.path(FILE) })?;
        self.state.write(FILE, &text)?;
        (self.kept, self.kept_at) = (now.clone(), Some(Instant::now()));
        Ok(())
    }
}

impl Memory {
    /// The revocation list that was heard last, DER; empty: there was none yet.
    pub fn list(&self) -> &[u8] {
        &self.list
    }

    /// Keeps the list for the next start, now and then.
    pub fn keep_list(&mut self, list: &[u8]) -> Result<(), StateError> {
        match self.list_at.is_some_and(|at| at.elapsed() < KEEP_EVERY) {
            true => Ok(()),
            false => self.keep_last_list(list),
        }
    }

    /// The same at once, at the end of a stream: whoever was revoked may be why it ended.
    pub fn keep_last_list(&mut self, list: &[u8]) -> Result<(), StateError> {
        if list.is_empty() || list == self.list {
            return Ok(());
        }
        self.state.write(LIST, list)?;
        (self.list, self.list_at) = (list.to_vec(), Some(Instant::now()));
        Ok(())
    }
}

/// The list of the run before. One that does not read is no reason to stay away, as the device would then do for ever: it
/// is as if there had been none. A gateway that it named may then carry what is signed until the first announcement, which
/// brings the list anew, and nothing older than what was heard before.
fn kept_list(state: &StateDir) -> Result<Vec<u8>, StateError> {
    let read = match state.read_up_to(LIST, CRL_BYTES_MAX) {
        Err(StateError::Damaged { .. }) => Err("it is longer than any list".to_owned()),
        list => {
            let list = list?.unwrap_or_default();
            let parsed = if list.is_empty() { Ok(()) } else { Crl::parse(&list).map(drop) };
            parsed.map(|()| list).map_err(|error| error.to_string())
        }
    };
    match read {
        Ok(list) => Ok(list),
        Err(error) => {
            let kept = state.set_aside(LIST)?;
            tracing::error!(
                kept = %kept.display(), error,
                "the revocation list that was kept does not read: it was set aside, and is asked for again"
            );
            Ok(Vec::new())
        }
    }
}

const FILE: &str = "trust.json";
const LIST: &str = "crl.der";
const KEEP_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use assay_identity::authority::{AuthorityTemplate, sign_root};
    use assay_identity::crl::{RevocationReason, RevokedSerial, sign};
    use assay_identity::{Issuer, PrivateKey, Serial, TrustDomain, UnixTime};

    use super::*;

    /// A list with so many certificates on it.
    fn signed_list(revoked: usize, number: u64) -> Vec<u8> {
        let now = UnixTime::now();
        let later = UnixTime::since_unix_epoch(Duration::from_secs(now.as_secs() + 3600));
        let template = AuthorityTemplate {
            trust_domain: TrustDomain::parse("example.org").unwrap(),
            name: "Root".to_owned(),
            serial: Serial::from_random([1; 16]),
            not_before: now,
            not_after: later,
        };
        let key = PrivateKey::generate().unwrap();
        let issuer = Issuer::new(sign_root(&template, &key).unwrap(), key).unwrap();
        let revoked = (0..revoked).map(|count| RevokedSerial {
            serial: Serial::from_random(u128::try_from(count).unwrap().to_be_bytes()),
            at: now,
            reason: RevocationReason::Superseded,
        });
        sign(&revoked.collect::<Vec<_>>(), number, now, later, &issuer).unwrap()
    }

    fn list(number: u64) -> Vec<u8> {
        signed_list(0, number)
    }

    #[test]
    fn what_was_heard_is_known_again_unless_the_device_was_installed_anew() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let mut memory = Memory::load(&state, b"installed").unwrap();
        assert_eq!(*memory.remembered(), Remembered::default());
        let heard = Remembered { number: 7, state_version: 3, bundle: vec![1, 2] };
        memory.keep(&heard).unwrap();
        assert_eq!(*Memory::load(&state, b"installed").unwrap().remembered(), heard);
        let [first, newer] = [1, 2].map(list);
        memory.keep_list(&first).unwrap();
        memory.keep_list(&newer).unwrap();
        assert_eq!(Memory::load(&state, b"installed").unwrap().list(), first);
        memory.keep_last_list(&newer).unwrap();
        assert_eq!(Memory::load(&state, b"installed").unwrap().list(), newer);
        // Numbers wait for their turn, authorities do not.
        memory.keep(&Remembered { number: 8, ..heard.clone() }).unwrap();
        assert_eq!(Memory::load(&state, b"installed").unwrap().remembered().number, 7);
        memory.keep(&Remembered { number: 9, bundle: vec![3], ..heard }).unwrap();
        assert_eq!(Memory::load(&state, b"installed").unwrap().remembered().number, 9);
        assert_eq!(*Memory::load(&state, b"another").unwrap().remembered(), Remembered::default());
        state.write(FILE, b"{").unwrap();
        assert!(matches!(Memory::load(&state, b"installed"), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn a_list_that_does_not_read_is_set_aside_and_asked_for_again() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateDir::open(folder.path()).unwrap();
        let whole = list(1);
        for damaged in [&whole[..whole.len() - 1], b"no list", &vec![0x30; CRL_BYTES_MAX + 1]] {
            state.write(LIST, damaged).unwrap();
            assert_eq!(Memory::load(&state, b"installed").unwrap().list(), b"");
            assert!(!state.path(LIST).exists());
            assert_eq!(std::fs::read(state.path("crl.der.damaged")).unwrap(), damaged);
        }
        // One that is longer than the other files are reads.
        let long = signed_list(60_000, 1);
        assert!(long.len() > 1 << 20);
        state.write(LIST, &long).unwrap();
        assert_eq!(Memory::load(&state, b"installed").unwrap().list(), long);
    }
}
