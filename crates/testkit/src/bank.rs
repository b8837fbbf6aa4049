//! The hash algorithms a PCR bank can have, with their TCG numbers and names.

use aws_lc_rs::digest;

/// A PCR bank, named by its hash algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bank {
    /// SHA-1, 20 bytes.
    Sha1,
    /// SHA-256, 32 bytes.
    Sha256,
    /// SHA-384, 48 bytes.
    Sha384,
    /// SHA-512, 64 bytes.
    Sha512,
}

impl Bank {
    /// Every bank a software TPM can have.
    pub const ALL: [Bank; 4] = [Bank::Sha1, Bank::Sha256, Bank::Sha384, Bank::Sha512];

    /// The TPM_ALG_ID.
    pub fn id(self) -> u16 {
        match self {
            Bank::Sha1 => 0x0004,
            Bank::Sha256 => 0x000b,
            Bank::Sha384 => 0x000c,
            Bank::Sha512 => 0x000d,
        }
    }

    /// The bank with this TPM_ALG_ID.
    pub fn from_id(id: u16) -> Option<Bank> {
        Bank::ALL.into_iter().find(|bank| bank.id() == id)
    }

    /// The name as configuration, messages and the kernel write it.
    pub fn name(self) -> &'static str {
        match self {
            Bank::Sha1 => "sha1",
            Bank::Sha256 => "sha256",
            Bank::Sha384 => "sha384",
            Bank::Sha512 => "sha512",
        }
    }

    /// The bank with this name.
    pub fn from_name(name: &str) -> Option<Bank> {
        Bank::ALL.into_iter().find(|bank| bank.name() == name)
    }

    /// Bytes of one digest.
    pub fn size(self) -> usize {
        self.algorithm().output_len()
    }

    /// Hashes `data`.
    pub fn hash(self, data: &[u8]) -> Vec<u8> {
        digest::digest(self.algorithm(), data).as_ref().to_vec()
    }

    /// The PCR value that follows `value` when `digest` is extended.
    pub fn extend(self, value: &[u8], digest: &[u8]) -> Vec<u8> {
        self.hash(&[value, digest].concat())
    }

    fn algorithm(self) -> &'static digest::Algorithm {
        match self {
            Bank::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Bank::Sha256 => &digest::SHA256,
            Bank::Sha384 => &digest::SHA384,
            Bank::Sha512 => &digest::SHA512,
        }
    }
}
