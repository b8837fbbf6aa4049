//! Keys that the kernel measured when they were put on a keyring (`measure func=KEY_CHECK`).
//!
//! Such an `ima-buf` entry is named after the keyring and holds the certificate. That it was measured says that
//! the key was there from then on, not that it is a good one: whose keys count, a policy says by their digest.

use super::{Entry, List, SigningKey};
use crate::{Digest, HashAlgorithm};

/// A certificate that was put on a keyring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasuredKey {
    keyring: Box<[u8]>,
    certificate: Box<[u8]>,
}

impl MeasuredKey {
    /// The keyring's name, such as `.ima`.
    pub fn keyring(&self) -> &[u8] {
        &self.keyring
    }

    /// The digest of the certificate.
    pub fn digest(&self, algorithm: HashAlgorithm) -> Digest {
        algorithm.hash(&[&self.certificate])
    }

    /// The key in it, ready to verify with.
    pub fn signing_key(&self) -> Option<SigningKey> {
        SigningKey::from_certificate(&self.certificate).ok()
    }
}

impl Entry<'_> {
    /// The key that this entry says was put on a keyring. `None` for every other entry, for keys that could not
    /// sign files, and where the entry's digest is not the buffer's, which no kernel writes.
    pub fn measured_key(&self) -> Option<MeasuredKey> {
        let buffer = self.buffer();
        // Nothing in a violation is vouched for, and every DER certificate starts like this.
        if self.is_violation() || !buffer.starts_with(DER_CERTIFICATE) || buffer.len() > KEY_BYTES_MAX {
            return None;
        }
        let stated = self.file_digest()?;
        let key = MeasuredKey { keyring: self.path().into(), certificate: buffer.into() };
        (key.digest(stated.algorithm()) == stated && key.signing_key().is_some()).then_some(key)
    }
}

/// The keys measured in `list`, each with the index of its entry. A key counts for entries after its own alone:
/// before it, the kernel did not have it.
///
/// Keys past [`MEASURED_KEYS_MAX`] are left out, so that no signature counts for them.
pub fn learned_keys(list: &List) -> Vec<(usize, MeasuredKey)> {
    let keys = list.iter().enumerate().filter_map(|(index, entry)| Some((index, entry.measured_key()?)));
    keys.take(MEASURED_KEYS_MAX).collect()
}

/// Keys of one boot that are remembered; distributions build some ten into their kernels.
pub const MEASURED_KEYS_MAX: usize = 64;
/// Bytes of a certificate; common ones have one or two thousand.
const KEY_BYTES_MAX: usize = 8 << 10;
/// A SEQUENCE of more than 255 bytes.
const DER_CERTIFICATE: &[u8] = &[0x30, 0x82];
