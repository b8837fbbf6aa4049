//! By what the keys of a data folder are known, whoever made them.

use std::path::Path;

use assay_identity::TrustDomain;
use data_encoding::HEXLOWER;

use super::{KeysError, LedgerKey, VERIFIER_FILE, files};

/// The keys that nothing can stand in for; `None` of those that are not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyNames {
    /// SHA-256 of the root's certificate, hex.
    pub root_sha256: Option<String>,
    /// SHA-256 of the issuing CA's public key, hex.
    pub issuing_spki: Option<String>,
    /// What verifies heads of the ledger.
    pub ledger_key: Option<String>,
}

impl KeyNames {
    /// Looks at the key folder and makes nothing.
    pub(crate) fn of(folder: &Path, trust_domain: &TrustDomain) -> Result<KeyNames, KeysError> {
        let digest = |bytes: &[u8]| HEXLOWER.encode(&assay_telemetry::sha256(bytes));
        Ok(KeyNames {
            root_sha256: files::load(folder, "root")?.map(|(_, certificate)| digest(&certificate)),
            issuing_spki: files::load(folder, "issuing")?.map(|(key, _)| digest(&key.spki())),
            ledger_key: LedgerKey::load(folder, trust_domain)?.map(|key| key.verifier().to_string()),
        })
    }
}

/// The trust domain whose server had the data folder last, if one did.
pub(crate) fn trust_domain(data: &Path) -> Result<Option<TrustDomain>, KeysError> {
    let Some(verifier) = files::read(&data.join(VERIFIER_FILE))? else { return Ok(None) };
    let verifier = String::from_utf8_lossy(&verifier);
    let name = verifier.split('+').next().and_then(|name| name.strip_suffix("/ledger"));
    Ok(name.and_then(|name| TrustDomain::parse(name).ok()))
}

/// The issuing CA's certificate, DER.
pub(crate) fn issuing_certificate(folder: &Path) -> Result<Option<Vec<u8>>, KeysError> {
    Ok(files::load(folder, "issuing")?.map(|(_, certificate)| certificate))
}
