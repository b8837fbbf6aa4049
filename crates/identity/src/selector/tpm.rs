//! `tpm`: what the device's last verified quote says. The server decides it, who verified the quote.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use super::Never;
use super::value::Sha256;

/// The attestor's name.
pub const KIND: &str = "tpm";

/// One thing that holds of a device by its TPM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tpm {
    /// A PCR has this value.
    Pcr {
        /// Which, 0 to 23.
        index: u8,
        /// What it holds. Its length says of which bank.
        value: PcrValue,
    },
    /// The hash of its EK's SubjectPublicKeyInfo, which is in its SPIFFE ID.
    PubHash(Sha256),
}

/// The value of a PCR in a bank of SHA-256 or better.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PcrValue(Vec<u8>);

pub(super) const NAMES: &[&str] = &["pcr", "pub_hash"];

impl Tpm {
    /// Reads one of [`NAMES`] with its value.
    pub(super) fn parse(name: &str, value: &str) -> Result<Tpm, Never> {
        match name {
            "pcr" => pcr(value),
            "pub_hash" => Ok(Tpm::PubHash(Sha256::parse(value).map_err(|never| never.named("pub_hash"))?)),
            _ => Err(Never::new("there is no selector of that name")),
        }
    }
}

impl PcrValue {
    /// The value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn parse(text: &str) -> Result<PcrValue, Never> {
        let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).unwrap_or_default();
        match bytes.len() {
            32 | 48 | 64 => Ok(PcrValue(bytes)),
            20 => Err(Never::new("a SHA-1 bank is never trusted: give the value in the SHA-256 bank")),
            _ => Err(Never::new("its value is no PCR's: 64 hex digits in the SHA-256 bank")),
        }
    }
}

impl fmt::Display for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tpm::Pcr { index, value } => write!(f, "pcr:{index}:{value}"),
            Tpm::PubHash(hash) => write!(f, "pub_hash:{hash}"),
        }
    }
}

impl fmt::Display for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for PcrValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PcrValue({self})")
    }
}

fn pcr(text: &str) -> Result<Tpm, Never> {
    let Some((number, value)) = text.split_once(':') else {
        // What stands there may be the value, without its index.
        let nearest = index(text).map(|index| format!("pcr:{index}:…"));
        return Err(Never::near("it lacks its index or its value: write pcr:INDEX:VALUE", nearest));
    };
    let index = index(number).ok_or_else(|| Never::new("there are PCRs 0 to 23"))?;
    let value = PcrValue::parse(value).map_err(|never| {
        // As other tools write it: sha256:VALUE.
        let bare = value.rsplit(':').next().and_then(|value| PcrValue::parse(value).ok());
        Never { nearest: bare.map(|value| format!("pcr:{index}:{value}")), ..never }
    })?;
    Ok(Tpm::Pcr { index, value })
}

fn index(text: &str) -> Option<u8> {
    text.parse().ok().filter(|index| *index < PCRS)
}

/// TCG PC Client Platform TPM Profile: 24 PCRs.
const PCRS: u8 = 24;
