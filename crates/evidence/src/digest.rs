//! Digests with their algorithm, and PCR indexes: the small values everything else is made of.

use std::{fmt, io};

use aws_lc_rs::digest as lc;

/// A hash algorithm of the TPM's registry (TCG Algorithm Registry, TPM_ALG_ID).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HashAlgorithm {
    /// TPM_ALG_SHA1, 20 bytes. Read, never trusted alone.
    Sha1,
    /// TPM_ALG_SHA256, 32 bytes.
    Sha256,
    /// TPM_ALG_SHA384, 48 bytes.
    Sha384,
    /// TPM_ALG_SHA512, 64 bytes.
    Sha512,
}

impl HashAlgorithm {
    /// The algorithms this crate can compute.
    pub const ALL: [HashAlgorithm; 4] =
        [HashAlgorithm::Sha1, HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];

    /// The algorithm with this TPM_ALG_ID, if it is one we compute.
    pub fn from_tpm_id(id: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.tpm_id() == id)
    }

    /// The algorithm with this lowercase name (`sha256`).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == name)
    }

    /// The TPM_ALG_ID.
    pub fn tpm_id(self) -> u16 {
        match self {
            HashAlgorithm::Sha1 => 0x0004,
            HashAlgorithm::Sha256 => 0x000b,
            HashAlgorithm::Sha384 => 0x000c,
            HashAlgorithm::Sha512 => 0x000d,
        }
    }

    /// The lowercase name.
    pub fn name(self) -> &'static str {
        match self {
            HashAlgorithm::Sha1 => "sha1",
            HashAlgorithm::Sha256 => "sha256",
            HashAlgorithm::Sha384 => "sha384",
            HashAlgorithm::Sha512 => "sha512",
        }
    }

    /// Bytes in a digest.
    #[expect(clippy::len_without_is_empty, reason = "an algorithm's digests are never empty")]
    pub fn len(self) -> usize {
        match self {
            HashAlgorithm::Sha1 => 20,
            HashAlgorithm::Sha256 => 32,
            HashAlgorithm::Sha384 => 48,
            HashAlgorithm::Sha512 => 64,
        }
    }

    fn lc(self) -> &'static lc::Algorithm {
        match self {
            HashAlgorithm::Sha1 => &lc::SHA1_FOR_LEGACY_USE_ONLY,
            HashAlgorithm::Sha256 => &lc::SHA256,
            HashAlgorithm::Sha384 => &lc::SHA384,
            HashAlgorithm::Sha512 => &lc::SHA512,
        }
    }

    /// Hashes the concatenation of `parts`.
    pub fn hash(self, parts: &[&[u8]]) -> Digest {
        // One call into the library is half the cost of a context for the short inputs of logs.
        if let [whole] = parts {
            return Digest::from_prefix(self, lc::digest(self.lc(), whole).as_ref());
        }
        let mut context = lc::Context::new(self.lc());
        for part in parts {
            context.update(part);
        }
        Digest::from_prefix(self, context.finish().as_ref())
    }

    /// Hashes what is written, for what is too long to be held at once.
    pub fn hash_of(self, write: impl FnOnce(&mut dyn io::Write) -> io::Result<()>) -> io::Result<Digest> {
        let mut context = HashedWriter(lc::Context::new(self.lc()));
        write(&mut context)?;
        Ok(Digest::from_prefix(self, context.0.finish().as_ref()))
    }

    /// The all-zero digest: a PCR before its first extend.
    pub fn zero(self) -> Digest {
        Digest { algorithm: self, bytes: [0; DIGEST_BYTES_MAX] }
    }
}

struct HashedWriter(lc::Context);

impl io::Write for HashedWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for HashAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A digest that knows its algorithm; equal only to one of the same algorithm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest {
    algorithm: HashAlgorithm,
    bytes: [u8; DIGEST_BYTES_MAX],
}

impl Digest {
    /// A digest of exactly the algorithm's length, or `None`.
    pub fn new(algorithm: HashAlgorithm, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == algorithm.len()).then(|| Self::from_prefix(algorithm, bytes))
    }

    /// At most the algorithm's length is taken; the rest stays zero.
    fn from_prefix(algorithm: HashAlgorithm, bytes: &[u8]) -> Self {
        let mut digest = algorithm.zero();
        let count = bytes.len().min(algorithm.len());
        if let (Some(to), Some(from)) = (digest.bytes.get_mut(..count), bytes.get(..count)) {
            to.copy_from_slice(from);
        }
        digest
    }

    /// `bytes` (at most the algorithm's length) followed by zeros: IMA's padded SHA-1.
    pub fn zero_padded(algorithm: HashAlgorithm, bytes: &[u8]) -> Option<Self> {
        (bytes.len() <= algorithm.len()).then(|| Self::from_prefix(algorithm, bytes))
    }

    /// The digest of `length` repeated bytes, as locality-initialised PCRs and violations need.
    pub fn filled(algorithm: HashAlgorithm, byte: u8) -> Self {
        Self::from_prefix(algorithm, &[byte; DIGEST_BYTES_MAX])
    }

    /// Which algorithm it is of.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Its bytes, exactly the algorithm's length.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.len()).unwrap_or(&self.bytes)
    }

    /// Whether every byte is zero.
    pub fn is_zero(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }

    /// `H(self ‖ data)`: what extending a PCR with `data` makes of it.
    pub fn extend(&self, data: &[u8]) -> Digest {
        let mut both = [0; 2 * DIGEST_BYTES_MAX];
        let (mine, all) = (self.as_bytes(), self.as_bytes().len().saturating_add(data.len()));
        match both.get_mut(..all) {
            Some(both) => {
                let (head, tail) = both.split_at_mut(mine.len());
                head.copy_from_slice(mine);
                tail.copy_from_slice(data);
                self.algorithm.hash(&[both])
            }
            None => self.algorithm.hash(&[mine, data]),
        }
    }

    /// Lowercase hex without the algorithm.
    pub fn to_hex(&self) -> String {
        data_encoding::HEXLOWER.encode(self.as_bytes())
    }

    /// Reads `sha256:<hex>`.
    pub fn from_text(text: &str) -> Option<Self> {
        let (name, hex) = text.split_once(':')?;
        let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
        Digest::new(HashAlgorithm::from_name(name)?, &bytes)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm, self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::from_text(&text).ok_or_else(|| {
            serde::de::Error::custom(format_args!(
                "{text:?} is not a digest: write algorithm:hex, such as sha256:9f86…"
            ))
        })
    }
}

/// A PCR index, 0 to 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PcrIndex(u8);

impl PcrIndex {
    /// PCRs of a PC Client TPM.
    pub const COUNT: u8 = 24;
    /// The PCR that Linux measures files into where nobody told it another.
    pub const IMA: PcrIndex = PcrIndex(10);

    /// The index, if it is below [`PcrIndex::COUNT`].
    pub fn new(index: u32) -> Option<Self> {
        u8::try_from(index).ok().filter(|index| *index < Self::COUNT).map(PcrIndex)
    }

    /// Those that firmware extends, whatever it starts (TCG PC Client Platform Firmware Profile, 3.3): 0 to 7.
    pub fn of_firmware() -> impl Iterator<Item = PcrIndex> {
        (0..=FIRMWARE_LAST).map(PcrIndex)
    }

    /// Whether firmware extends it.
    pub const fn is_of_firmware(self) -> bool {
        self.0 <= FIRMWARE_LAST
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for PcrIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The last PCR of the firmware.
const FIRMWARE_LAST: u8 = 7;
/// Bytes of the longest digest we know, SHA-512.
const DIGEST_BYTES_MAX: usize = 64;
