//! The key that signs the ledger's heads. It is not in the database, so that who can write there cannot make the trail
//! anew; what verifies it is in `ledger.vkey` of the data folder.

use std::path::Path;

use assay_identity::TrustDomain;
use assay_identity::signed_note::{NoteSigner, NoteVerifier};
use data_encoding::HEXLOWER;

use super::files::{self, FileError};
use super::{KeysError, private_folder};
use crate::audit::Head;

/// Signs heads of one trust domain's ledger.
#[derive(Debug)]
pub(crate) struct LedgerKey(NoteSigner);

impl LedgerKey {
    /// Loads the key from `keys`, or makes it, and writes what verifies it to `data`.
    pub(crate) fn open(data: &Path, keys: &Path, trust_domain: &TrustDomain) -> Result<LedgerKey, KeysError> {
        private_folder(keys)?;
        let key = match LedgerKey::load(keys, trust_domain)? {
            Some(key) => key,
            None => {
                let signer = NoteSigner::generate(&name(trust_domain))?;
                let seed = format!("{}\n", HEXLOWER.encode(signer.seed()));
                files::write_private(&keys.join(FILE), seed.as_bytes())?;
                LedgerKey(signer)
            }
        };
        files::write_public(&data.join(VERIFIER_FILE), format!("{}\n", key.verifier()).as_bytes())?;
        Ok(key)
    }

    /// Loads the key from `keys`; `None` if there is none.
    pub(crate) fn load(keys: &Path, trust_domain: &TrustDomain) -> Result<Option<LedgerKey>, KeysError> {
        let path = keys.join(FILE);
        let Some(hex) = files::read_private(&path)? else { return Ok(None) };
        let seed = HEXLOWER.decode(hex.trim_ascii()).ok().and_then(|seed| seed.try_into().ok());
        let unreadable = FileError::LedgerKey { path };
        Ok(Some(LedgerKey(NoteSigner::from_seed(&name(trust_domain), seed.ok_or(unreadable)?)?)))
    }

    /// What verifies its heads.
    pub(crate) fn verifier(&self) -> NoteVerifier {
        self.0.verifier()
    }

    /// The head as a signed note.
    pub(crate) fn sign(&self, head: &Head) -> Result<String, KeysError> {
        self.sign_text(&head.to_text())
    }

    /// A text as a signed note. The first line of each kind says which it is.
    pub(crate) fn sign_text(&self, text: &str) -> Result<String, KeysError> {
        Ok(self.0.sign(text)?)
    }
}

fn name(trust_domain: &TrustDomain) -> String {
    format!("{trust_domain}/ledger")
}

const FILE: &str = "ledger.key";
/// Where what verifies the heads is, in the data folder.
pub(crate) const VERIFIER_FILE: &str = "ledger.vkey";
