//! `assay-agent acme enroll`: a certificate of an authority that speaks ACME, for a new key in this device's TPM.
//!
//! RFC 8555 with the challenge `device-attest-01` (draft-ietf-acme-device-attest): the AK says that the key is in its TPM, and the
//! certificate that the server granted says whose AK that is. Key and certificate are files; the key is one that only this TPM can load.

mod client;
mod key_file;

use std::path::{Path, PathBuf};
use std::time::Duration;

use assay_clock::Clock;
use assay_evidence::attestation_object::{Algorithm, TpmStatement};
use assay_evidence::tpm::public_key::PublicKey;
use assay_identity::PrivateKey;
use assay_identity::acme::{certificate_request, external_binding, key_authorization};
use assay_identity::bundle::certifies;
use assay_identity::csr::CsrError;
use assay_identity::key::KeyError;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64URL_NOPAD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

pub use client::AskError;
use client::Client;

use crate::ak_certificate::{AkFile, AkFileError};
use crate::state_dir::{StateDir, StateError};
use crate::tpm::keys::{self, Key};
use crate::tpm::{Target, Tpm, TpmError};

/// What is wanted, of whom.
#[derive(Clone, Debug, clap::Args)]
pub struct Wanted {
    /// Where the authority's directory is, https://HOST/…/directory
    #[arg(long, value_name = "URL")]
    pub directory: String,
    /// Certificates by which the authority's server is recognised (PEM)
    #[arg(long, value_name = "FILE", default_value = "/etc/ssl/certs/ca-certificates.crt")]
    pub ca: PathBuf,
    /// Agree to what the authority demands of those who have an account
    #[arg(long)]
    pub agree: bool,
    /// What the authority calls the key that it gave out for accounts (external account binding)
    #[arg(long, value_name = "ID", requires = "eab_key_file")]
    pub eab_kid: Option<String>,
    /// File with that key, base64url
    #[arg(long, value_name = "FILE", requires = "eab_kid")]
    pub eab_key_file: Option<PathBuf>,
    /// Where the certificate goes, with those above it (PEM)
    #[arg(long, value_name = "FILE")]
    pub certificate: PathBuf,
    /// Where the key goes, which only this TPM can load (TSS2 PRIVATE KEY)
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
}

/// What came of it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Enrolled {
    /// What the certificate names.
    pub permanent_identifier: String,
    /// Hex.
    pub serial: String,
    /// Seconds since 1970.
    pub not_after: u64,
    /// Where the certificate is.
    pub certificate: PathBuf,
    /// Where the key is.
    pub key: PathBuf,
}

/// There is no certificate.
#[derive(Debug, Error)]
pub enum AcmeError {
    /// The AK has no certificate.
    #[error(transparent)]
    Ak(#[from] AkFileError),
    /// The certificate is of another AK.
    #[error(
        "the AK in the state folder is not the one that its certificate is for: the agent gets another once it is attached"
    )]
    OtherAk,
    /// The TPM.
    #[error(transparent)]
    Tpm(#[from] TpmError),
    /// The state folder.
    #[error(transparent)]
    State(#[from] StateError),
    /// A file.
    #[error("{path}: {action}")]
    File {
        /// Which.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The key for accounts does not read.
    #[error("{0}: not a key in base64url")]
    BindingKey(PathBuf),
    /// The account's key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate request.
    #[error(transparent)]
    Request(#[from] CsrError),
    /// The authority.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The authority wants what this client does not do.
    #[error(
        "the authority offers no challenge device-attest-01 for the TPM: it does not enrol by what TPMs say"
    )]
    NoChallenge,
    /// The authority said no.
    #[error("the authority refused {what}: {why}")]
    Refused {
        /// What of it.
        what: &'static str,
        /// In its words.
        why: String,
    },
    /// The authority does not come to an end.
    #[error("{0} is still not decided after {POLLS} looks: try again later")]
    Undecided(&'static str),
    /// The authority's certificate is of no use.
    #[error("the certificate that came is not for the key that was asked for")]
    OtherKey,
}

#[derive(Deserialize)]
struct Order {
    status: String,
    #[serde(default)]
    authorizations: Vec<String>,
    finalize: String,
    certificate: Option<String>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Authorization {
    status: String,
    #[serde(default)]
    challenges: Vec<Challenge>,
}

#[derive(Deserialize)]
struct Challenge {
    #[serde(rename = "type")]
    kind: String,
    url: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    token: String,
    error: Option<Value>,
}

impl Challenge {
    /// Some authorities leave the authorization of a challenge that failed as it was.
    fn must_stand(&self) -> Result<(), AcmeError> {
        match self.status.as_str() {
            "invalid" => {
                Err(AcmeError::Refused { what: "what the TPM says", why: told(self.error.as_ref()) })
            }
            _ => Ok(()),
        }
    }
}

/// Gets a certificate and writes it and its key.
pub async fn enroll(
    wanted: &Wanted,
    state: &StateDir,
    tpm: &Target,
    clock: &Clock,
) -> Result<Enrolled, AcmeError> {
    let certificate = AkFile::read(state, clock.now())?;
    let tpm = Tpm::open(tpm)?;
    let ak = keys::attestation_key(&tpm, state)?.ok_or(AcmeError::OtherAk)?;
    if !certificate.chain.first().is_some_and(|leaf| certifies(leaf, &ak.area().spki_der())) {
        return Err(AcmeError::OtherAk);
    }
    let mut client = Client::open(&wanted.directory, &wanted.ca, account_key(state)?, clock.clone()).await?;
    let binding = binding(wanted, &client)?;
    client.register(wanted.agree, binding).await?;
    let identifier = &certificate.permanent_identifier;
    let asked = json!({ "identifiers": [{ "type": "permanent-identifier", "value": identifier }] });
    let (order, at): (Order, _) = client.new_order(&asked).await?;
    let (key, blob) = keys::new_key(&tpm)?;
    for url in &order.authorizations {
        authorize(&mut client, url, (&ak, &certificate, &key)).await?;
    }
    let at = at.ok_or(AskError::Unreadable("an order without an address"))?;
    let order = settled(&mut client, &at, "pending").await?;
    let spki = key.area().spki_der();
    let request = certificate_request(&spki, identifier, |message| {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, message).as_ref());
        key.sign(&hash)
    })?;
    if order.status == "ready" {
        let request = json!({ "csr": BASE64URL_NOPAD.encode(&request) });
        let _: (Value, _) = client.post(&order.finalize, &request.to_string()).await?;
    }
    let order = settled(&mut client, &at, "processing").await?;
    let url = order.certificate.ok_or(AskError::Unreadable("an order without a certificate"))?;
    let pem = client.text(&url).await?;
    let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| AcmeError::OtherKey)?;
    if !certifies(&leaf, &spki) {
        return Err(AcmeError::OtherKey);
    }
    let (serial, (_, until)) = assay_identity::bundle::serial(&leaf)
        .zip(assay_identity::bundle::life(&leaf))
        .ok_or(AcmeError::OtherKey)?;
    write(&wanted.key, key_file::tss2(&blob).as_bytes(), 0o600)?;
    write(&wanted.certificate, pem.as_bytes(), 0o644)?;
    Ok(Enrolled {
        permanent_identifier: identifier.clone(),
        serial: serial.to_string(),
        not_after: until.as_secs(),
        certificate: wanted.certificate.clone(),
        key: wanted.key.clone(),
    })
}

/// Answers the challenge of an authorization, and waits for what comes of it.
async fn authorize(
    client: &mut Client,
    url: &str,
    (ak, certificate, key): (&Key, &AkFile, &Key),
) -> Result<(), AcmeError> {
    let (authorization, _): (Authorization, _) = client.post(url, "").await?;
    if authorization.status == "valid" {
        return Ok(());
    }
    let is_ours = |challenge: &&Challenge| challenge.kind == DEVICE_ATTEST;
    let challenge = authorization.challenges.iter().find(is_ours).ok_or(AcmeError::NoChallenge)?;
    let authorization = key_authorization(client.key(), &challenge.token);
    let (info, signature) = ak.certify(key, digest(&SHA256, authorization.as_bytes()).as_ref())?;
    let algorithm = match ak.area().key() {
        PublicKey::Rsa { .. } => Algorithm::Rs256,
        PublicKey::EcP256 { .. } | PublicKey::EcP384 { .. } => Algorithm::Es256,
    };
    let statement = TpmStatement {
        algorithm,
        x5c: &certificate.chain,
        signature: &signature,
        cert_info: &info,
        // TPMT_PUBLIC stands behind the two bytes of its length.
        pub_area: key.public().get(2..).unwrap_or_default(),
    };
    let answer = json!({ "attObj": BASE64URL_NOPAD.encode(&statement.encode()) });
    let (answered, _): (Challenge, _) = client.post(&challenge.url, &answer.to_string()).await?;
    answered.must_stand()?;
    for _ in 0..POLLS {
        let (authorization, _): (Authorization, _) = client.post(url, "").await?;
        match authorization.status.as_str() {
            "valid" => return Ok(()),
            "pending" | "processing" => {
                authorization.challenges.iter().try_for_each(Challenge::must_stand)?;
                client.pause(POLL_EVERY).await;
            }
            _ => {
                let error = authorization.challenges.iter().find_map(|challenge| challenge.error.as_ref());
                return Err(AcmeError::Refused { what: "what the TPM says", why: told(error) });
            }
        }
    }
    Err(AcmeError::Undecided("what the TPM says"))
}

/// The order once it is not this any more.
async fn settled(client: &mut Client, url: &str, waiting: &str) -> Result<Order, AcmeError> {
    for _ in 0..POLLS {
        let (order, _): (Order, _) = client.post(url, "").await?;
        match order.status.as_str() {
            "invalid" => {
                return Err(AcmeError::Refused { what: "the order", why: told(order.error.as_ref()) });
            }
            status if status == waiting => client.pause(POLL_EVERY).await,
            _ => return Ok(order),
        }
    }
    Err(AcmeError::Undecided("the order"))
}

/// A problem document (RFC 7807) as one line.
fn told(error: Option<&Value>) -> String {
    let part = |name: &str| {
        let text = error.and_then(|error| error.get(name)).and_then(Value::as_str).unwrap_or_default();
        text.escape_debug().to_string()
    };
    match (part("type"), part("detail")) {
        (kind, detail) if kind.is_empty() && detail.is_empty() => "it does not say why".to_owned(),
        (kind, detail) => format!("{detail} ({kind})"),
    }
}

fn binding(wanted: &Wanted, client: &Client) -> Result<Option<Value>, AcmeError> {
    let (Some(kid), Some(path)) = (&wanted.eab_kid, &wanted.eab_key_file) else { return Ok(None) };
    let text = std::fs::read_to_string(path).map_err(file(path, "cannot be read"))?;
    let secret = BASE64URL_NOPAD
        .decode(text.trim().trim_end_matches('=').as_bytes())
        .map_err(|_| AcmeError::BindingKey(path.clone()))?;
    Ok(Some(external_binding(client.key(), (kid, &secret), client.account_address())))
}

/// The key of the account, made once.
fn account_key(state: &StateDir) -> Result<PrivateKey, AcmeError> {
    if let Some(pem) = state.read(ACCOUNT_FILE)? {
        return Ok(PrivateKey::from_pem(&pem)?);
    }
    let key = PrivateKey::generate()?;
    state.write(ACCOUNT_FILE, key.to_pem().as_bytes())?;
    Ok(key)
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), AcmeError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let replace = || {
        let _ = std::fs::remove_file(&new);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, path)
    };
    replace().map_err(file(path, "cannot be written"))
}

fn file(path: &Path, action: &'static str) -> impl FnOnce(std::io::Error) -> AcmeError {
    move |source| AcmeError::File { path: path.to_owned(), action, source }
}

const DEVICE_ATTEST: &str = "device-attest-01";
/// In the state folder, PEM: it can ask for certificates and prove nothing of the TPM.
const ACCOUNT_FILE: &str = "acme-account.key";
const POLLS: u32 = 30;
const POLL_EVERY: Duration = Duration::from_secs(1);
