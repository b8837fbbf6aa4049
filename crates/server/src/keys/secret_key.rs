//! The key that secrets are sealed under at rest: 32 random bytes in a file of the key folder. Without it the database gives
//! none of them back.

use std::path::Path;

use assay_identity::hpke::Plain;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use super::{KeysError, files, random};

/// Seals and opens secrets at rest.
#[derive(Debug)]
pub(crate) struct SecretKey(LessSafeKey);

impl SecretKey {
    /// Loads the key from `folder`, or makes it. One that is not there where there are secrets already is not made anew.
    pub(crate) fn open(folder: &Path, is_needed: bool) -> Result<SecretKey, KeysError> {
        files::private_folder(folder)?;
        let path = folder.join(FILE);
        let key = match files::read_private(&path)? {
            Some(key) => key,
            None if is_needed => return Err(KeysError::NoSecretKey),
            None => {
                let key = random::<KEY_BYTES>()?.to_vec();
                files::write_private(&path, &key)?;
                key
            }
        };
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| KeysError::NoSecretKey)?;
        Ok(SecretKey(LessSafeKey::new(key)))
    }

    /// Seals one version of a secret: a nonce, the ciphertext and its tag.
    pub(crate) fn seal(&self, name: &str, version: u64, plain: &Plain) -> Result<Vec<u8>, KeysError> {
        let nonce = random::<NONCE_LEN>()?;
        let mut bytes = plain.bytes().to_vec();
        let sealed = self.0.seal_in_place_append_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(bound(name, version)),
            &mut bytes,
        );
        sealed.map_err(|_| KeysError::Secret)?;
        Ok([nonce.as_slice(), &bytes].concat())
    }

    /// Opens what was sealed as this version of this secret.
    pub(crate) fn unseal(&self, name: &str, version: u64, sealed: &[u8]) -> Result<Plain, KeysError> {
        let (nonce, ciphertext) = sealed.split_at_checked(NONCE_LEN).ok_or(KeysError::Secret)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| KeysError::Secret)?;
        let mut bytes = ciphertext.to_vec();
        let opened = self.0.open_in_place(nonce, Aad::from(bound(name, version)), &mut bytes);
        let length = opened.map_err(|_| KeysError::Secret)?.len();
        bytes.truncate(length);
        Ok(Plain::new(bytes))
    }
}

/// What a ciphertext cannot be moved away from: nobody who writes the database has one secret released for another.
fn bound(name: &str, version: u64) -> Vec<u8> {
    [name.as_bytes(), &[0], &version.to_be_bytes()].concat()
}

const FILE: &str = "secrets.key";
const KEY_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_is_its_name_and_versions_alone() {
        let folder = tempfile::tempdir().unwrap();
        let key = SecretKey::open(folder.path(), false).unwrap();
        let plain = Plain::new(b"hunter2".to_vec());
        let sealed = key.seal("db", 1, &plain).unwrap();
        assert_ne!(sealed, key.seal("db", 1, &plain).unwrap(), "nonces are fresh");
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        let again = SecretKey::open(folder.path(), true).unwrap();
        assert_eq!(again.unseal("db", 1, &sealed).unwrap().bytes(), b"hunter2");
        for (name, version) in [("db", 2), ("other", 1)] {
            assert!(again.unseal(name, version, &sealed).is_err());
        }
        for length in 0..sealed.len() {
            assert!(again.unseal("db", 1, sealed.get(..length).unwrap()).is_err(), "{length}");
        }
    }

    #[test]
    fn a_key_that_is_gone_is_not_made_anew_where_it_is_needed() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(SecretKey::open(folder.path(), true), Err(KeysError::NoSecretKey)));
        let path = folder.path().join(FILE);
        files::write_private(&path, b"short").unwrap();
        assert!(matches!(SecretKey::open(folder.path(), true), Err(KeysError::NoSecretKey)));
        files::write_public(&path, &[7; 32]).unwrap();
        assert!(
            matches!(SecretKey::open(folder.path(), true), Err(KeysError::File(_))),
            "others may have read it"
        );
    }
}
