//! The key that signs attestation results: no certificate, known by its thumbprint. Deleting its file makes another.

use std::path::Path;

use assay_identity::PrivateKey;
use assay_identity::jws::{self, JwkSet, Usage, VerifyingKey};
use assay_trust::ear::{Ear, TOKEN_TYPE};
use serde_json::Value;

use super::{KeysError, files};

/// Signs what is said about devices to whoever relies on them.
#[derive(Debug)]
pub(crate) struct ResultKey(PrivateKey);

impl ResultKey {
    /// Loads the key from `folder`, or makes it.
    pub(crate) fn open(folder: &Path) -> Result<ResultKey, KeysError> {
        Ok(ResultKey(files::signing_key(folder, "results.key")?))
    }

    /// The token.
    pub(crate) fn sign(&self, ear: &Ear) -> Result<String, KeysError> {
        let claims = serde_json::to_vec(ear.claims()).map_err(|_| KeysError::Claims)?;
        Ok(jws::sign(&self.0, TOKEN_TYPE, &claims)?)
    }

    /// What verifies its tokens, as a JWK set.
    pub(crate) fn jwks(&self) -> Value {
        JwkSet::new([VerifyingKey::of(&self.0)]).to_json(Usage::Signature)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::keys::FileError;

    #[test]
    fn the_key_is_made_once_and_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let jwks = ResultKey::open(folder.path()).unwrap().jwks();
        assert_eq!(ResultKey::open(folder.path()).unwrap().jwks(), jwks);
        let file = folder.path().join("results.key");
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&file, "no key").unwrap();
        assert!(matches!(ResultKey::open(folder.path()), Err(KeysError::File(FileError::Key { .. }))));
        std::fs::remove_file(&file).unwrap();
        assert_ne!(ResultKey::open(folder.path()).unwrap().jwks(), jwks);
    }
}
