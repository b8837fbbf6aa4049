//! What the device key signs: telemetry statements, and requests for workloads' SVIDs.

use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;
use rcgen::{CertificateParams, KeyPair};

use super::tpm_bytes::framed;
use super::{DeviceError, SoftwareDevice};
use crate::Bank;
use crate::edge::RequestPlace;
use crate::edge::protocol::{JwtSvidRequest, SubmitRequest, WorkloadSvidRequest};

/// A telemetry statement, as it is encoded and signed; every field may be altered first.
#[derive(Clone, PartialEq, Message)]
pub struct Statement {
    /// What these bytes are.
    #[prost(string, tag = "1")]
    pub context: String,
    /// Whose batch it is.
    #[prost(string, tag = "2")]
    pub device_id: String,
    /// SHA-256 of the device key's SubjectPublicKeyInfo.
    #[prost(bytes = "vec", tag = "3")]
    pub key_id: Vec<u8>,
    /// The boot it was made in.
    #[prost(uint32, tag = "4")]
    pub reset_count: u32,
    /// Resumes since.
    #[prost(uint32, tag = "5")]
    pub restart_count: u32,
    /// Its number, from 1.
    #[prost(uint64, tag = "6")]
    pub sequence: u64,
    /// SHA-256 of the statement before.
    #[prost(bytes = "vec", tag = "7")]
    pub previous: Vec<u8>,
    /// What the payload is.
    #[prost(string, tag = "8")]
    pub payload_type: String,
    /// SHA-256 of the payload.
    #[prost(bytes = "vec", tag = "9")]
    pub payload_sha256: Vec<u8>,
    /// Data points in the payload.
    #[prost(uint64, tag = "10")]
    pub items: u64,
    /// Time of the first data point.
    #[prost(fixed64, tag = "11")]
    pub first_time_unix_nano: u64,
    /// Time of the last data point.
    #[prost(fixed64, tag = "12")]
    pub last_time_unix_nano: u64,
    /// When it was signed.
    #[prost(fixed64, tag = "13")]
    pub wall_clock_unix_nano: u64,
    /// Why it is not an old one.
    #[prost(string, tag = "14")]
    pub freshness_mode: String,
    /// The nonce, if that is why.
    #[prost(bytes = "vec", tag = "15")]
    pub freshness_nonce: Vec<u8>,
    /// Where the device says it is.
    #[prost(message, optional, tag = "16")]
    pub location: Option<Place>,
    /// The policy it was last judged by.
    #[prost(string, tag = "17")]
    pub policy: String,
    /// What made the batch.
    #[prost(string, tag = "18")]
    pub agent_version: String,
}

/// Where a device says it is.
#[derive(Clone, PartialEq, Message)]
pub struct Place {
    /// How it knows.
    #[prost(string, tag = "1")]
    pub method: String,
    /// ISO 3166-1 country.
    #[prost(string, tag = "2")]
    pub country: String,
    /// ISO 3166-2 subdivision.
    #[prost(string, tag = "3")]
    pub subdivision: String,
    /// City.
    #[prost(string, tag = "4")]
    pub city: String,
    /// In coordinates.
    #[prost(message, optional, tag = "5")]
    pub position: Option<Coordinates>,
}

/// A point, and what is said about it.
#[derive(Clone, PartialEq, Message)]
pub struct Coordinates {
    /// Ten-millionths of a degree north.
    #[prost(sint32, tag = "1")]
    pub latitude_e7: i32,
    /// Ten-millionths of a degree east.
    #[prost(sint32, tag = "2")]
    pub longitude_e7: i32,
    /// How many centimetres it may be off.
    #[prost(uint32, tag = "3")]
    pub accuracy_cm: u32,
    /// When it was fixed, seconds since 1970.
    #[prost(uint64, optional, tag = "4")]
    pub fixed_at: Option<u64>,
    /// Who says so.
    #[prost(string, tag = "5")]
    pub source: String,
    /// What speaks against it.
    #[prost(string, repeated, tag = "6")]
    pub doubts: Vec<String>,
}

/// Where a device's chain of statements stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Statements signed so far.
    pub sequence: u64,
    /// SHA-256 of the last; empty before the first.
    pub last: Vec<u8>,
}

impl Place {
    /// A place somebody wrote into the configuration.
    pub fn configured(country: &str, subdivision: &str, city: &str) -> Place {
        Place {
            method: "configured".into(),
            country: country.into(),
            subdivision: subdivision.into(),
            city: city.into(),
            position: None,
        }
    }

    /// A place that a receiver said just now, in ten-millionths of a degree and with 5 m of error.
    pub fn received(latitude_e7: i32, longitude_e7: i32) -> Place {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let position = Coordinates {
            latitude_e7,
            longitude_e7,
            accuracy_cm: 500,
            fixed_at: Some(now),
            source: "receiver".into(),
            doubts: Vec::new(),
        };
        Place { position: Some(position), ..Place::configured("", "", "") }
    }
}

impl SoftwareDevice {
    /// An honest statement about `payload`, the next in the chain.
    pub fn statement(&self, payload: &[u8], place: Option<Place>) -> Statement {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        let previous = if self.chain.sequence == 0 { vec![0; 32] } else { self.chain.last.clone() };
        Statement {
            context: "assay-telemetry-v1".into(),
            device_id: self.device_id.clone().unwrap_or_default(),
            key_id: Bank::Sha256.hash(&self.device_key.spki()),
            reset_count: self.clock.reset_count,
            restart_count: self.clock.restart_count,
            sequence: self.chain.sequence + 1,
            previous,
            payload_type: OTLP_METRICS.into(),
            payload_sha256: Bank::Sha256.hash(payload),
            items: 1,
            first_time_unix_nano: now,
            last_time_unix_nano: now,
            wall_clock_unix_nano: now,
            freshness_mode: "chained".into(),
            freshness_nonce: Vec::new(),
            location: place,
            policy: String::new(),
            agent_version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Signs a statement and moves the chain on.
    pub fn submit(&mut self, statement: &Statement, payload: &[u8]) -> Result<SubmitRequest, DeviceError> {
        let statement_bytes = statement.encode_to_vec();
        self.chain = Chain { sequence: statement.sequence, last: Bank::Sha256.hash(&statement_bytes) };
        let signature = self.device_key.sign_der(&envelope(STATEMENT_TYPE, &statement_bytes))?;
        Ok(SubmitRequest { statement: statement_bytes, signature, payload: payload.to_vec() })
    }

    /// Asks for the SVID of a workload with a new key.
    pub fn workload_request(
        &self,
        place: RequestPlace,
        entry_id: &str,
    ) -> Result<WorkloadSvidRequest, DeviceError> {
        let key = KeyPair::generate()?;
        let csr = CertificateParams::default().serialize_request(&key)?.der().to_vec();
        self.workload_request_for(place, entry_id, csr)
    }

    /// Asks for the SVID of a workload that made this request (PKCS#10, DER).
    pub fn workload_request_for(
        &self,
        place: RequestPlace,
        entry_id: &str,
        csr: Vec<u8>,
    ) -> Result<WorkloadSvidRequest, DeviceError> {
        let RequestPlace { stream, number } = place;
        let body = framed(&[&stream, &number.to_be_bytes(), entry_id.as_bytes(), &csr]);
        let device_signature = self.device_key.sign_der(&envelope(WORKLOAD_SVID_TYPE, &body))?;
        let (request_id, entry_id) = ("1".into(), entry_id.into());
        Ok(WorkloadSvidRequest { request_id, entry_id, csr, device_signature, number })
    }

    /// Asks for the token of a workload.
    pub fn token_request(
        &self,
        place: RequestPlace,
        entry_id: &str,
        audience: &[&str],
    ) -> Result<JwtSvidRequest, DeviceError> {
        let RequestPlace { stream, number } = place;
        let count = number.to_be_bytes();
        let fixed = [stream.as_slice(), &count, entry_id.as_bytes()];
        let parts: Vec<&[u8]> = fixed.into_iter().chain(audience.iter().map(|one| one.as_bytes())).collect();
        let device_signature = self.device_key.sign_der(&envelope(JWT_SVID_TYPE, &framed(&parts)))?;
        let audience = audience.iter().map(|one| (*one).to_owned()).collect();
        let (request_id, entry_id) = ("1".into(), entry_id.into());
        Ok(JwtSvidRequest { request_id, entry_id, audience, device_signature, number })
    }
}

/// DSSE's pre-authentication encoding.
fn envelope(kind: &str, body: &[u8]) -> Vec<u8> {
    [format!("DSSEv1 {} {kind} {} ", kind.len(), body.len()).as_bytes(), body].concat()
}

const STATEMENT_TYPE: &str = "application/vnd.assay.telemetry-statement.v1";
const WORKLOAD_SVID_TYPE: &str = "application/vnd.assay.workload-svid.v2";
const JWT_SVID_TYPE: &str = "application/vnd.assay.jwt-svid.v1";
const OTLP_METRICS: &str =
    "application/x-protobuf; proto=opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest";
