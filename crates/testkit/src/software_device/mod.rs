//! A whole device in software: keys as a TPM makes them, logs as a machine leaves them, quotes over both.
//!
//! It is cheap enough to run by the thousand and as free to lie as any attacker: every part is public, a
//! [`Quoting`](quote::Quoting) may be altered before it is signed, and [`Lie`](lie::Lie) names the lies worth
//! telling. What it says to the server is in [`edge`](crate::edge).

mod activation;
mod endorsement;
pub mod key;
pub mod lie;
pub mod quote;
pub mod task;
pub mod telemetry;
mod tpm_bytes;

use aws_lc_rs::{digest, hmac};
use rcgen::CertificateParams;

pub use endorsement::{EkKind, EkMaker, EndorsementKey, MakersIdentity};
pub use key::TpmKey;
pub use quote::{Clock, Quoting, Stating};

use crate::edge::protocol::{Challenge, EnrollBegin, EnrollChallenge, EnrollProof, Evidence};
use crate::machine::{ImaEntry, ImaList, System, measure_record};
use crate::pcrs::{Measurement, Pcrs};
use crate::{Bank, Program};
use tpm_bytes::framed;

/// A device whose TPM, firmware and kernel are all software of ours.
#[derive(Debug)]
pub struct SoftwareDevice {
    /// What people call it.
    pub name: String,
    /// The endorsement key.
    pub ek: EndorsementKey,
    /// The certificate it shows for the endorsement key, DER.
    pub ek_certificate: Vec<u8>,
    /// The certificates between that and the root, DER.
    pub ek_intermediates: Vec<Vec<u8>>,
    /// What its maker gave it to be known by, if anything.
    pub identity: Option<MakersIdentity>,
    /// The attestation key.
    pub ak: TpmKey,
    /// The key of its TLS certificate and its telemetry.
    pub device_key: TpmKey,
    /// What its PCRs hold.
    pub pcrs: Pcrs,
    /// Its boot log.
    pub boot_log: Vec<u8>,
    /// What its user space wrote of its own measurements; empty: it has no such log.
    pub measure_log: Vec<u8>,
    /// Its IMA list.
    pub ima: ImaList,
    /// Whether its host offers the list in the ASCII form alone.
    pub ima_ascii: bool,
    /// Its TPM's clock and counters.
    pub clock: Clock,
    /// Where its chain of telemetry statements stands.
    pub chain: telemetry::Chain,
    /// The SPIFFE ID it got when it enrolled.
    pub device_id: Option<String>,
}

/// Why a software device could not be made or could not answer.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// A key could not be made or used.
    #[error("a key could not be made or used")]
    Key(#[from] aws_lc_rs::error::Unspecified),
    /// A key could not be read back.
    #[error("a key could not be read back")]
    KeyRejected(#[from] aws_lc_rs::error::KeyRejected),
    /// A certificate or request could not be made.
    #[error("a certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// The credential is not for this EK and AK, or is malformed.
    #[error("the credential does not open: {0}")]
    Activation(&'static str),
}

impl SoftwareDevice {
    /// A device with a P-256 EK of this maker, booted into the default system.
    pub fn new(name: &str, maker: &EkMaker) -> Result<SoftwareDevice, DeviceError> {
        SoftwareDevice::with_ek(name, maker, EndorsementKey::generate(EkKind::P256)?)
    }

    /// A device with this EK, booted into the default system.
    pub fn with_ek(name: &str, maker: &EkMaker, ek: EndorsementKey) -> Result<SoftwareDevice, DeviceError> {
        let mut device = SoftwareDevice {
            name: name.to_owned(),
            ek_certificate: maker.certify(&ek)?,
            ek_intermediates: vec![maker.issuing_ca().to_vec()],
            ek,
            identity: None,
            ak: TpmKey::generate(key::ATTESTATION_KEY)?,
            device_key: TpmKey::generate(key::DEVICE_KEY)?,
            pcrs: Pcrs::new(&[]),
            boot_log: Vec::new(),
            measure_log: Vec::new(),
            ima: ImaList::default(),
            ima_ascii: false,
            clock: Clock::default(),
            chain: telemetry::Chain::default(),
            device_id: None,
        };
        device.boot(&System::default());
        Ok(device)
    }

    /// Starts `system` anew: PCRs, logs and the boot counter begin a new epoch.
    pub fn boot(&mut self, system: &System) {
        let boot = system.boot_log(&BANKS);
        self.pcrs = Pcrs::new(&BANKS);
        boot.measurements().iter().for_each(|measurement| self.pcrs.extend(measurement));
        self.boot_log = boot.bytes().to_vec();
        self.clock.reset_count += 1;
        self.ima = ImaList::default();
        self.measure_log.clear();
        self.measure(ImaEntry::boot_aggregate(&self.pcrs));
        for Program { path, contents } in &system.programs {
            self.run_program(path, contents);
        }
    }

    /// TPM2_Clear, then a boot: the EK stays, the counters begin anew, and every other key is another.
    pub fn clear_tpm(&mut self) -> Result<(), DeviceError> {
        self.ak = TpmKey::generate(key::ATTESTATION_KEY)?;
        self.device_key = TpmKey::generate(key::DEVICE_KEY)?;
        self.clock = Clock::default();
        self.chain = telemetry::Chain::default();
        self.boot(&System::default());
        Ok(())
    }

    /// Runs a program, which IMA measures.
    pub fn run_program(&mut self, path: &str, contents: &[u8]) {
        self.measure(ImaEntry::file(path, contents));
    }

    /// Writes to a file while it is measured, which IMA records as a violation.
    pub fn violate(&mut self, path: &str) {
        self.measure(ImaEntry::violation(path));
    }

    /// The first message of an enrollment.
    pub fn enroll_begin(&self) -> EnrollBegin {
        let mut begin = EnrollBegin {
            ek_public: self.ek.public_area().to_vec(),
            ek_certificate: self.ek_certificate.clone(),
            ek_intermediates: self.ek_intermediates.clone(),
            ak_public: self.ak.public_area(),
            device_key_public: self.device_key.public_area(),
            name: self.name.clone(),
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            ..EnrollBegin::default()
        };
        if let Some(identity) = &self.identity {
            begin.iak_public = identity.iak.public_area();
            begin.iak_certificate = identity.iak_certificate.clone();
            begin.idevid_public = identity.idevid.public_area();
            begin.idevid_certificate = identity.idevid_certificate.clone();
            begin.idevid_intermediates = identity.intermediates.clone();
        }
        begin
    }

    /// The second message: the credential opened, the device key certified by the AK, and a request for it.
    pub fn enroll_proof(&self, challenge: &EnrollChallenge) -> Result<EnrollProof, DeviceError> {
        let certified = quote::Certifying::honest(self, &challenge.nonce).sign(&self.ak)?;
        self.enroll_proof_with(challenge, certified, self.csr()?)
    }

    /// The second message with any certification and any request.
    pub fn enroll_proof_with(
        &self,
        challenge: &EnrollChallenge,
        certified: quote::Signed,
        csr: Vec<u8>,
    ) -> Result<EnrollProof, DeviceError> {
        let secret =
            self.ek.activate(&self.ak.name(), &challenge.credential_blob, &challenge.encrypted_secret)?;
        let keys = [self.ak.public_area(), self.device_key.public_area()];
        let proof =
            enroll_proof(&secret, &[&challenge.nonce, &keys[0], &keys[1], &csr, self.name.as_bytes()]);
        let by_iak = match &self.identity {
            Some(identity) => quote::Certifying::of_ak(self, &challenge.nonce).sign(&identity.iak)?,
            None => quote::Signed::default(),
        };
        Ok(EnrollProof {
            iak_certify_info: by_iak.message,
            iak_certify_signature: by_iak.signature,
            proof,
            certify_info: certified.message,
            certify_signature: certified.signature,
            csr,
        })
    }

    /// A certificate request by the device key.
    pub fn csr(&self) -> Result<Vec<u8>, DeviceError> {
        let request = CertificateParams::default().serialize_request(self.device_key.pkcs10_key())?;
        Ok(request.der().to_vec())
    }

    /// What it honestly answers to a challenge.
    pub fn evidence(&mut self, challenge: &Challenge) -> Result<Evidence, DeviceError> {
        let quote = Quoting::honest(self, challenge).sign(&self.ak)?;
        let first = usize::try_from(challenge.ima_from_entry).unwrap_or(usize::MAX);
        Ok(Evidence {
            nonce: challenge.nonce.clone(),
            quote: Some(quote),
            boot_log: challenge.boot_log_wanted.then(|| self.boot_log.clone()),
            measure_log: Some(self.measure_log.clone()).filter(|log| !log.is_empty()),
            ima_log: match self.ima_ascii {
                true => self.ima.ascii_from(first).into_bytes(),
                false => self.ima.binary_from(first).to_vec(),
            },
            ima_from_entry: challenge.ima_from_entry,
            ima_ascii: self.ima_ascii,
            banks: match challenge.banks_wanted {
                true => Some(Stating::honest(&BANKS, &self.ak, self.clock, &challenge.nonce).sign(&self.ak)?),
                false => None,
            },
            time_seconds: challenge.time_seconds,
        })
    }

    /// Extends words of systemd's and writes them into its log.
    pub fn say(&mut self, pcr: u32, kind: &str, words: &str) {
        self.pcrs.extend(&Measurement::of(&BANKS, pcr, words.as_bytes()));
        self.measure_log.extend(measure_record(&BANKS, pcr, kind, words));
    }

    /// Adds an entry to the IMA list and extends what the kernel extends for it.
    pub fn measure(&mut self, entry: ImaEntry) {
        self.pcrs.extend(&entry.measurement(&BANKS));
        self.ima.push(entry);
    }
}

/// HMAC-SHA256 with the activated credential, over the hash of everything said in the exchange.
fn enroll_proof(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let context: &[u8] = b"assay-enroll-v2";
    let body = framed(&[&[context], parts].concat());
    let hash = digest::digest(&digest::SHA256, &body);
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), hash.as_ref()).as_ref().to_vec()
}

/// The banks of its TPM.
pub(crate) const BANKS: [Bank; 1] = [Bank::Sha256];

#[cfg(test)]
mod tests;
