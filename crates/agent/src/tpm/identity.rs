//! IDevID and IAK: the keys by which the device's maker made it known, and their certificates.
//!
//! They lie in the TPM at persistent handles, and are used without a password (TCG, TPM 2.0 Keys for Device Identity and
//! Attestation). Which handles those are, the operator says: makers differ.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use thiserror::Error;

use super::keys::{Key, certify};
use super::{Tpm, TpmError, UnreadIndex};

/// Where the identity is.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    /// Persistent handle of the IAK, such as `0x81010020`.
    pub iak: u32,
    /// The IAK's certificate.
    pub iak_certificate: CertificateSource,
    /// Persistent handle of the IDevID.
    pub idevid: u32,
    /// The IDevID's certificate.
    pub idevid_certificate: CertificateSource,
    /// Certificates between those and their root.
    #[serde(default)]
    pub intermediates: Vec<CertificateSource>,
}

/// Where a certificate is.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum CertificateSource {
    /// In the TPM, at this NV index, such as `0x01c90003`.
    NvIndex(u32),
    /// In a file, PEM or DER.
    File(PathBuf),
}

/// The identity, as it is shown.
#[derive(Debug)]
pub struct Identity {
    iak: u32,
    /// TPM2B_PUBLIC of the IAK.
    pub iak_public: Vec<u8>,
    /// DER.
    pub iak_certificate: Vec<u8>,
    /// TPM2B_PUBLIC of the IDevID.
    pub idevid_public: Vec<u8>,
    /// DER.
    pub idevid_certificate: Vec<u8>,
    /// DER.
    pub intermediates: Vec<Vec<u8>>,
}

impl Identity {
    /// Finds keys and certificates.
    pub fn load(tpm: &Tpm, config: &IdentityConfig) -> Result<Self, IdentityError> {
        let public = |name, handle| tpm.read_public(handle)?.ok_or(IdentityError::NoKey { name, handle });
        let read = |source: &CertificateSource| source.read(tpm);
        Ok(Identity {
            iak: config.iak,
            iak_public: public("iak", config.iak)?,
            iak_certificate: read(&config.iak_certificate)?,
            idevid_public: public("idevid", config.idevid)?,
            idevid_certificate: read(&config.idevid_certificate)?,
            intermediates: config.intermediates.iter().map(read).collect::<Result<_, _>>()?,
        })
    }

    /// TPM2_Certify: the IAK says that `ak` lives in the same TPM. Gives TPMS_ATTEST and TPMT_SIGNATURE.
    pub fn certify(&self, ak: &Key, nonce: &[u8]) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        certify(self.iak, ak, nonce)
    }
}

impl CertificateSource {
    fn read(&self, tpm: &Tpm) -> Result<Vec<u8>, IdentityError> {
        match self {
            CertificateSource::NvIndex(index) => {
                let certificate = tpm.nv_certificate(*index)?;
                Ok(certificate.ok_or(IdentityError::NoCertificateInTpm { index: *index })??)
            }
            CertificateSource::File(path) => read_file(path),
        }
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, IdentityError> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(CERTIFICATE_BYTES_MAX).read_to_end(&mut bytes))
        .map_err(|source| IdentityError::File { path: path.to_owned(), source })?;
    // DER starts with the tag of a SEQUENCE; PEM is text.
    if bytes.first() == Some(&0x30) {
        return Ok(bytes);
    }
    let certificate = CertificateDer::from_pem_slice(&bytes);
    certificate.map(|der| der.to_vec()).map_err(|_| IdentityError::NoCertificate { path: path.to_owned() })
}

/// The identity that the configuration names is not there.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// The TPM did not do its part.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// No key at the handle.
    #[error(
        "identity.{name}: the TPM has no key at {handle:#010x}; tpm2_getcap handles-persistent lists them"
    )]
    NoKey {
        /// Which key.
        name: &'static str,
        /// Where it should be.
        handle: u32,
    },
    /// No certificate at the NV index.
    #[error("identity: the TPM has no certificate at NV index {index:#010x}")]
    NoCertificateInTpm {
        /// Where it should be.
        index: u32,
    },
    /// Not all of a certificate at the NV index, or something else.
    #[error("identity: {0}")]
    Unread(#[from] UnreadIndex),
    /// A file that cannot be read.
    #[error("{}: cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file without a certificate.
    #[error("{}: no certificate in PEM or DER", path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
}

/// Four times the largest seen, as PEM.
const CERTIFICATE_BYTES_MAX: u64 = 32 << 10;
