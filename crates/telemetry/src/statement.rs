//! What a device says about a batch, and its encoding.

use assay_identity::SpiffeId;
use aws_lc_rs::digest;
use prost::Message as _;
use thiserror::Error;

use crate::dsse::pae;
use crate::position::{Accuracy, Doubt, Point, Position, Source};

/// A SHA-256 digest.
pub type Sha256 = [u8; 32];

/// What a device states about one batch. Everything a verifier goes by is in here, and so is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// Whose batch it is.
    pub device_id: SpiffeId,
    /// SHA-256 of the device key's SubjectPublicKeyInfo.
    pub key_id: Sha256,
    /// The boot it was made in.
    pub boot_epoch: BootEpoch,
    /// 1 for the device's first batch, then one more each.
    pub sequence: u64,
    /// SHA-256 of the statement before; zero for the first.
    pub previous: Sha256,
    /// What the payload is; see [`OTLP_METRICS`].
    pub payload_type: String,
    /// SHA-256 of the exact payload bytes.
    pub payload_sha256: Sha256,
    /// Data points in the payload.
    pub items: u64,
    /// Time of the earliest data point, nanoseconds since 1970.
    pub first_time_unix_nano: u64,
    /// Time of the latest data point, nanoseconds since 1970.
    pub last_time_unix_nano: u64,
    /// The device's wall clock at signing, nanoseconds since 1970.
    pub wall_clock_unix_nano: u64,
    /// Why the batch is not an old one.
    pub freshness: Freshness,
    /// Where the device says it is.
    pub location: Option<Location>,
    /// The policy the device was last judged by, as the server named it.
    pub policy: String,
    /// The agent that made the batch.
    pub agent_version: String,
}

/// A boot of the device, by its TPM's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootEpoch {
    /// TPM resets: boots.
    pub reset_count: u32,
    /// TPM restarts and resumes since the reset.
    pub restart_count: u32,
}

/// What shows that a batch was made recently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It answers this nonce of the server's.
    Nonce(Vec<u8>),
    /// Only its place in the chain of statements.
    Chained,
}

/// Where a device is, and how it knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// How the device knows.
    pub method: LocationMethod,
    /// ISO 3166-1 alpha-2 country.
    pub country: String,
    /// ISO 3166-2 subdivision; may be empty.
    pub subdivision: String,
    /// City; may be empty.
    pub city: String,
    /// In coordinates, where the device says them.
    pub position: Option<Position>,
}

/// How a device knows where it is; each is worth what it is worth, none proves a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocationMethod {
    /// Somebody wrote it into the agent's configuration.
    Configured,
}

impl LocationMethod {
    /// The name in statements and findings.
    pub fn name(self) -> &'static str {
        match self {
            LocationMethod::Configured => "configured",
        }
    }
}

/// Why bytes are not a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StatementError {
    /// Longer than any statement.
    #[error("a statement has at most {STATEMENT_BYTES_MAX} bytes, this has {length}")]
    TooLong {
        /// Bytes of the statement.
        length: usize,
    },
    /// Not the encoding.
    #[error("not a protobuf statement")]
    Encoding,
    /// Another kind of statement, or another version.
    #[error("not a statement of type {CONTEXT}")]
    Context,
    /// A field that is missing, too long or has no such value.
    #[error("{field} is missing or not acceptable")]
    Field {
        /// Which field.
        field: &'static str,
    },
}

/// Encodes a statement: the bytes to send, and to sign by way of [`to_be_signed`].
pub fn seal(statement: &Statement) -> Vec<u8> {
    let location = statement.location.as_ref().map(wire_location);
    let (freshness_mode, freshness_nonce) = match &statement.freshness {
        Freshness::Nonce(nonce) => (FRESHNESS_NONCE, nonce.clone()),
        Freshness::Chained => (FRESHNESS_CHAINED, Vec::new()),
    };
    let wire = WireStatement {
        context: CONTEXT.to_owned(),
        device_id: statement.device_id.to_string(),
        key_id: statement.key_id.to_vec(),
        reset_count: statement.boot_epoch.reset_count,
        restart_count: statement.boot_epoch.restart_count,
        sequence: statement.sequence,
        previous: statement.previous.to_vec(),
        payload_type: statement.payload_type.clone(),
        payload_sha256: statement.payload_sha256.to_vec(),
        items: statement.items,
        first_time_unix_nano: statement.first_time_unix_nano,
        last_time_unix_nano: statement.last_time_unix_nano,
        wall_clock_unix_nano: statement.wall_clock_unix_nano,
        freshness_mode: freshness_mode.to_owned(),
        freshness_nonce,
        location,
        policy: statement.policy.clone(),
        agent_version: statement.agent_version.clone(),
    };
    wire.encode_to_vec()
}

fn wire_location(location: &Location) -> WireLocation {
    let position = location.position.as_ref().map(|position| WirePosition {
        latitude_e7: position.point.latitude_e7(),
        longitude_e7: position.point.longitude_e7(),
        accuracy_cm: position.accuracy.centimetres(),
        fixed_at: position.fixed_at,
        source: position.source.name().to_owned(),
        doubts: position.doubts.iter().map(|doubt| doubt.name().to_owned()).collect(),
    });
    WireLocation {
        method: location.method.name().to_owned(),
        country: location.country.clone(),
        subdivision: location.subdivision.clone(),
        city: location.city.clone(),
        position,
    }
}

/// What the device key signs for these statement bytes; a TPM is given its SHA-256.
pub fn to_be_signed(statement: &[u8]) -> Vec<u8> {
    pae(STATEMENT_TYPE, statement)
}

/// SHA-256, as statements use it for payloads, keys and each other.
pub fn sha256(bytes: &[u8]) -> Sha256 {
    let mut sha256 = Sha256::default();
    sha256.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    sha256
}

/// The device that a statement says it is of: whose key to look up, and nothing to go by before `open` holds.
pub fn stated_device(bytes: &[u8]) -> Result<SpiffeId, StatementError> {
    if bytes.len() > STATEMENT_BYTES_MAX {
        return Err(StatementError::TooLong { length: bytes.len() });
    }
    parse(bytes).map(|statement| statement.device_id)
}

/// What a statement says that its payload is; nothing of it is verified here.
pub fn stated_payload_type(bytes: &[u8]) -> Result<String, StatementError> {
    parse(bytes).map(|statement| statement.payload_type)
}

/// Decodes statement bytes; nothing of the result is verified.
pub(crate) fn parse(bytes: &[u8]) -> Result<Statement, StatementError> {
    let wire = WireStatement::decode(bytes).map_err(|_| StatementError::Encoding)?;
    if wire.context != CONTEXT {
        return Err(StatementError::Context);
    }
    if wire.sequence == 0 {
        return Err(StatementError::Field { field: "sequence" });
    }
    let freshness = match (wire.freshness_mode.as_str(), wire.freshness_nonce.len()) {
        (FRESHNESS_NONCE, 1..=NONCE_BYTES_MAX) => Freshness::Nonce(wire.freshness_nonce),
        (FRESHNESS_CHAINED, 0) => Freshness::Chained,
        _ => return Err(StatementError::Field { field: "freshness" }),
    };
    Ok(Statement {
        device_id: SpiffeId::parse(&wire.device_id)
            .map_err(|_| StatementError::Field { field: "device_id" })?,
        key_id: digest_field("key_id", &wire.key_id)?,
        boot_epoch: BootEpoch { reset_count: wire.reset_count, restart_count: wire.restart_count },
        sequence: wire.sequence,
        previous: digest_field("previous", &wire.previous)?,
        payload_type: text_field("payload_type", wire.payload_type)?,
        payload_sha256: digest_field("payload_sha256", &wire.payload_sha256)?,
        items: wire.items,
        first_time_unix_nano: wire.first_time_unix_nano,
        last_time_unix_nano: wire.last_time_unix_nano,
        wall_clock_unix_nano: wire.wall_clock_unix_nano,
        freshness,
        location: wire.location.map(parse_location).transpose()?,
        policy: text_field("policy", wire.policy)?,
        agent_version: text_field("agent_version", wire.agent_version)?,
    })
}

fn parse_location(wire: WireLocation) -> Result<Location, StatementError> {
    if wire.method != LocationMethod::Configured.name() {
        return Err(StatementError::Field { field: "location.method" });
    }
    Ok(Location {
        method: LocationMethod::Configured,
        country: text_field("location.country", wire.country)?,
        subdivision: text_field("location.subdivision", wire.subdivision)?,
        city: text_field("location.city", wire.city)?,
        position: wire.position.map(parse_position).transpose()?,
    })
}

fn parse_position(wire: WirePosition) -> Result<Position, StatementError> {
    let refused = |field| StatementError::Field { field };
    if wire.doubts.len() > DOUBTS_MAX {
        return Err(refused("location.position.doubts"));
    }
    Ok(Position {
        point: Point::from_e7(wire.latitude_e7, wire.longitude_e7)
            .map_err(|_| refused("location.position"))?,
        accuracy: Accuracy::from_centimetres(wire.accuracy_cm)
            .map_err(|_| refused("location.position.accuracy_cm"))?,
        fixed_at: wire.fixed_at,
        source: Source::from_name(&wire.source).ok_or(refused("location.position.source"))?,
        doubts: wire.doubts.iter().map(|name| Doubt::from_name(name)).collect(),
    })
}

fn digest_field(field: &'static str, bytes: &[u8]) -> Result<Sha256, StatementError> {
    bytes.try_into().map_err(|_| StatementError::Field { field })
}

fn text_field(field: &'static str, text: String) -> Result<String, StatementError> {
    if text.len() > TEXT_BYTES_MAX { Err(StatementError::Field { field }) } else { Ok(text) }
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireStatement {
    #[prost(string, tag = "1")]
    context: String,
    #[prost(string, tag = "2")]
    device_id: String,
    #[prost(bytes = "vec", tag = "3")]
    key_id: Vec<u8>,
    #[prost(uint32, tag = "4")]
    reset_count: u32,
    #[prost(uint32, tag = "5")]
    restart_count: u32,
    #[prost(uint64, tag = "6")]
    sequence: u64,
    #[prost(bytes = "vec", tag = "7")]
    previous: Vec<u8>,
    #[prost(string, tag = "8")]
    payload_type: String,
    #[prost(bytes = "vec", tag = "9")]
    payload_sha256: Vec<u8>,
    #[prost(uint64, tag = "10")]
    items: u64,
    #[prost(fixed64, tag = "11")]
    first_time_unix_nano: u64,
    #[prost(fixed64, tag = "12")]
    last_time_unix_nano: u64,
    #[prost(fixed64, tag = "13")]
    wall_clock_unix_nano: u64,
    #[prost(string, tag = "14")]
    freshness_mode: String,
    #[prost(bytes = "vec", tag = "15")]
    freshness_nonce: Vec<u8>,
    #[prost(message, optional, tag = "16")]
    location: Option<WireLocation>,
    #[prost(string, tag = "17")]
    policy: String,
    #[prost(string, tag = "18")]
    agent_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WireLocation {
    #[prost(string, tag = "1")]
    method: String,
    #[prost(string, tag = "2")]
    country: String,
    #[prost(string, tag = "3")]
    subdivision: String,
    #[prost(string, tag = "4")]
    city: String,
    #[prost(message, optional, tag = "5")]
    position: Option<WirePosition>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WirePosition {
    #[prost(sint32, tag = "1")]
    latitude_e7: i32,
    #[prost(sint32, tag = "2")]
    longitude_e7: i32,
    #[prost(uint32, tag = "3")]
    accuracy_cm: u32,
    /// Seconds since 1970.
    #[prost(uint64, optional, tag = "4")]
    fixed_at: Option<u64>,
    #[prost(string, tag = "5")]
    source: String,
    #[prost(string, repeated, tag = "6")]
    doubts: Vec<String>,
}

/// The DSSE type statements are signed as.
pub const STATEMENT_TYPE: &str = "application/vnd.assay.telemetry-statement.v1";
/// The payload type of an OTLP `ExportMetricsServiceRequest`.
pub const OTLP_METRICS: &str =
    "application/x-protobuf; proto=opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest";
const CONTEXT: &str = "assay-telemetry-v1";
const FRESHNESS_NONCE: &str = "nonce";
const FRESHNESS_CHAINED: &str = "chained";
// The longest is the SPIFFE ID with its 2048 bytes; the rest is digests and short texts.
pub(crate) const STATEMENT_BYTES_MAX: usize = 8 * 1024;
const NONCE_BYTES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 256;
/// Twice what there are today.
const DOUBTS_MAX: usize = 16;
