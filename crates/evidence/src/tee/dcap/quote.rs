//! DCAP quotes: what Intel's quoting enclave signs of an SGX enclave or a TDX guest.
//!
//! Intel SGX ECDSA QuoteLibReference, A.4 (version 3), and Intel TDX DCAP QuotingLibrary, A.3 and A.4 (versions 4 and 5). Little
//! endian. Reading says nothing about who wrote the bytes.

use thiserror::Error;

use crate::read::{Reader, Truncated};

/// A quote, taken apart; nothing of it is verified.
#[derive(Clone, Debug)]
pub(super) struct Quote<'a> {
    pub(super) version: u16,
    pub(super) body: Body<'a>,
    /// Header and body, as received: what the attestation key signs.
    pub(super) signed: &'a [u8],
    /// ECDSA over P-256: r, then s.
    pub(super) signature: [u8; 64],
    /// The attestation key: x, then y.
    pub(super) attestation_key: [u8; 64],
    /// The quoting enclave's own report, as received.
    pub(super) qe_report_bytes: &'a [u8],
    pub(super) qe_report: EnclaveReport<'a>,
    /// By the key that the PCK certificate certifies.
    pub(super) qe_report_signature: [u8; 64],
    pub(super) qe_authentication_data: &'a [u8],
    /// PEM: the PCK certificate and those above it.
    pub(super) pck_chain: &'a [u8],
}

/// What the quote is about.
#[derive(Clone, Debug)]
pub(super) enum Body<'a> {
    Sgx(EnclaveReport<'a>),
    Tdx(Box<TdReport<'a>>),
}

/// REPORT of an enclave.
#[derive(Clone, Debug)]
pub(super) struct EnclaveReport<'a> {
    pub(super) misc_select: [u8; 4],
    pub(super) attributes: [u8; 16],
    pub(super) mr_enclave: [u8; 32],
    pub(super) mr_signer: [u8; 32],
    pub(super) config_id: &'a [u8],
    pub(super) product_id: u16,
    pub(super) svn: u16,
    pub(super) config_svn: u16,
    pub(super) report_data: [u8; 64],
}

/// What the TDX module says of a guest.
#[derive(Clone, Debug)]
pub(super) struct TdReport<'a> {
    pub(super) tee_tcb_svn: [u8; 16],
    pub(super) mr_seam: [u8; 48],
    pub(super) mr_signer_seam: [u8; 48],
    pub(super) seam_attributes: [u8; 8],
    pub(super) attributes: [u8; 8],
    pub(super) xfam: [u8; 8],
    pub(super) mr_td: [u8; 48],
    pub(super) mr_config_id: [u8; 48],
    pub(super) mr_owner: [u8; 48],
    pub(super) mr_owner_config: [u8; 48],
    pub(super) rtmr: [[u8; 48]; 4],
    pub(super) report_data: [u8; 64],
    /// From TD 1.5 on: the module's current versions, and the measurement of a service TD bound to the guest.
    pub(super) later: Option<([u8; 16], [u8; 48])>,
    /// Signed, and of a form that we do not read: what TD 1.5ex adds.
    pub(super) unread: &'a [u8],
}

impl<'a> Quote<'a> {
    /// Reads a quote. Zeros may follow it: many clouds pad quotes to 8,000 bytes.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        if bytes.len() > QUOTE_BYTES_MAX {
            return Err(QuoteError::TooLong(bytes.len()));
        }
        let mut reader = Reader::new(bytes);
        let version = reader.u16_le()?;
        let key_type = reader.u16_le()?;
        let tee = reader.u32_le()?;
        // Versions of the quoting enclave and of the provisioning enclave: zero from version 4 on.
        reader.bytes(4)?;
        let vendor: [u8; 16] = reader.array()?;
        if key_type != ECDSA_P256 {
            return Err(QuoteError::KeyType(key_type));
        }
        if vendor != INTEL {
            return Err(QuoteError::Vendor);
        }
        reader.bytes(20)?;
        let body = body(&mut reader, version, tee)?;
        let signed = Reader::new(bytes).bytes(reader.offset())?;
        let length = reader.u32_le()?;
        let mut data = Reader::new(reader.bytes(usize::try_from(length).unwrap_or(usize::MAX))?);
        if reader.rest().iter().any(|byte| *byte != 0) {
            return Err(QuoteError::Surplus(reader.rest().len()));
        }
        let (signature, attestation_key) = (data.array()?, data.array()?);
        let mut certification = match version {
            3 => data,
            _ => certification_data(&mut data, QE_REPORT_CERTIFICATION)?,
        };
        let qe_report_bytes = certification.bytes(ENCLAVE_REPORT_BYTES)?;
        let qe_report_signature = certification.array()?;
        let length = usize::from(certification.u16_le()?);
        let qe_authentication_data = certification.bytes(length)?;
        let mut chain = certification_data(&mut certification, PCK_CHAIN)?;
        Ok(Quote {
            version,
            body,
            signed,
            signature,
            attestation_key,
            qe_report_bytes,
            qe_report: EnclaveReport::parse(&mut Reader::new(qe_report_bytes))?,
            qe_report_signature,
            qe_authentication_data,
            pck_chain: chain.bytes(chain.rest().len())?,
        })
    }

    /// What was put in by whoever asked for the quote.
    pub(super) fn report_data(&self) -> &[u8; 64] {
        match &self.body {
            Body::Sgx(report) => &report.report_data,
            Body::Tdx(report) => &report.report_data,
        }
    }
}

fn body<'a>(reader: &mut Reader<'a>, version: u16, tee: u32) -> Result<Body<'a>, QuoteError> {
    match (version, tee) {
        (3 | 4, TEE_SGX) => Ok(Body::Sgx(EnclaveReport::parse(reader)?)),
        (4, TEE_TDX) => Ok(Body::Tdx(Box::new(TdReport::parse(reader.bytes(TD10_BYTES)?)?))),
        (5, TEE_SGX | TEE_TDX) => {
            let (kind, length) = (reader.u16_le()?, reader.u32_le()?);
            let bytes = reader.bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
            match (tee, kind, bytes.len()) {
                (TEE_SGX, 1, ENCLAVE_REPORT_BYTES) => {
                    Ok(Body::Sgx(EnclaveReport::parse(&mut Reader::new(bytes))?))
                }
                (TEE_TDX, 2, TD10_BYTES) | (TEE_TDX, 3, TD15_BYTES) | (TEE_TDX, 4, TD15_BYTES..) => {
                    Ok(Body::Tdx(Box::new(TdReport::parse(bytes)?)))
                }
                _ => Err(QuoteError::Body { tee, kind, length: bytes.len() }),
            }
        }
        (3..=5, _) => Err(QuoteError::Tee { version, tee }),
        _ => Err(QuoteError::Version(version)),
    }
}

/// A type, a length, and that many bytes, which have to be all that is left.
fn certification_data<'a>(data: &mut Reader<'a>, wanted: u16) -> Result<Reader<'a>, QuoteError> {
    let kind = data.u16_le()?;
    if kind != wanted {
        return Err(match kind {
            ENCRYPTED_PPID => QuoteError::EncryptedPpid,
            _ => QuoteError::Certification(kind),
        });
    }
    let length = data.u32_le()?;
    let content = data.bytes(usize::try_from(length).unwrap_or(usize::MAX))?;
    match data.rest().len() {
        0 => Ok(Reader::new(content)),
        surplus => Err(QuoteError::Surplus(surplus)),
    }
}

impl<'a> EnclaveReport<'a> {
    fn parse(reader: &mut Reader<'a>) -> Result<Self, QuoteError> {
        let _cpu_svn = reader.bytes(16)?;
        let misc_select = reader.array()?;
        reader.bytes(28)?;
        let (attributes, mr_enclave) = (reader.array()?, reader.array()?);
        reader.bytes(32)?;
        let mr_signer = reader.array()?;
        reader.bytes(32)?;
        let config_id = reader.bytes(64)?;
        let (product_id, svn, config_svn) = (reader.u16_le()?, reader.u16_le()?, reader.u16_le()?);
        reader.bytes(58)?;
        let report_data = reader.array()?;
        Ok(EnclaveReport {
            misc_select,
            attributes,
            mr_enclave,
            mr_signer,
            config_id,
            product_id,
            svn,
            config_svn,
            report_data,
        })
    }
}

impl<'a> TdReport<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, QuoteError> {
        let mut reader = Reader::new(bytes);
        let mut report = TdReport {
            tee_tcb_svn: reader.array()?,
            mr_seam: reader.array()?,
            mr_signer_seam: reader.array()?,
            seam_attributes: reader.array()?,
            attributes: reader.array()?,
            xfam: reader.array()?,
            mr_td: reader.array()?,
            mr_config_id: reader.array()?,
            mr_owner: reader.array()?,
            mr_owner_config: reader.array()?,
            rtmr: [reader.array()?, reader.array()?, reader.array()?, reader.array()?],
            report_data: reader.array()?,
            later: None,
            unread: &[],
        };
        if !reader.is_empty() {
            report.later = Some((reader.array()?, reader.array()?));
            report.unread = reader.rest();
        }
        Ok(report)
    }
}

/// Bytes that are not a quote we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QuoteError {
    /// Longer than any quote.
    #[error("{0} bytes, at most {QUOTE_BYTES_MAX} make sense")]
    TooLong(usize),
    /// The bytes end too early.
    #[error(transparent)]
    Truncated(#[from] Truncated),
    /// A version whose layout is not known.
    #[error("version {0}; 3 to 5 are known")]
    Version(u16),
    /// Neither SGX nor TDX, or not in this version.
    #[error("TEE type {tee:#x} in a quote of version {version}")]
    Tee {
        /// The quote's.
        version: u16,
        /// 0 is SGX, 0x81 TDX.
        tee: u32,
    },
    /// A body of version 5 whose type, length and TEE do not go together.
    #[error("a body of type {kind} with {length} bytes for TEE type {tee:#x}")]
    Body {
        /// 0 is SGX, 0x81 TDX.
        tee: u32,
        /// 1 is an enclave's report, 2 to 4 are TD 1.0, 1.5 and 1.5ex.
        kind: u16,
        /// As it stands there.
        length: usize,
    },
    /// Not ECDSA over P-256.
    #[error("attestation key type {0}; only 2, ECDSA over P-256, is known")]
    KeyType(u16),
    /// Another maker's quoting enclave.
    #[error("a quoting enclave that is not Intel's")]
    Vendor,
    /// The platform's identity is encrypted for Intel: only a caching service can turn it into a certificate.
    #[error(
        "certification data of type 3 (encrypted PPID): have the platform's PCCS put its PCK certificates into quotes (type 5)"
    )]
    EncryptedPpid,
    /// Certification data that is not what belongs there.
    #[error("certification data of type {0}; a PCK certificate chain (5), in a QE report (6), is known")]
    Certification(u16),
    /// Something other than zeros follows, or more than was announced.
    #[error("{0} bytes after the quote's end")]
    Surplus(usize),
}

/// Whether the bytes start as a quote does.
pub(super) fn is_quote(bytes: &[u8]) -> bool {
    matches!(bytes, [3..=5, 0, 2, 0, 0 | 0x81, 0, 0, 0, ..]) && bytes.get(12..28) == Some(&INTEL)
}

const TEE_SGX: u32 = 0;
const TEE_TDX: u32 = 0x81;
const ECDSA_P256: u16 = 2;
/// The identifier of Intel as the vendor of quoting enclaves.
const INTEL: [u8; 16] = *b"\x93\x9a\x72\x33\xf7\x9c\x4c\xa9\x94\x0a\x0d\xb3\x95\x7f\x06\x07";
const ENCLAVE_REPORT_BYTES: usize = 384;
const TD10_BYTES: usize = 584;
const TD15_BYTES: usize = 648;
const ENCRYPTED_PPID: u16 = 3;
const PCK_CHAIN: u16 = 5;
const QE_REPORT_CERTIFICATION: u16 = 6;
/// Twice what clouds pad quotes to.
const QUOTE_BYTES_MAX: usize = 16 << 10;
