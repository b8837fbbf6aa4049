//! What a task asks of its device and of its attempts, as it is stored beside the definition.

use assay_evidence::task::{Definition, SHA384_BYTES, Sha384};
use assay_trust::grant::task::{Level, MeasurementPolicy, TaskRequest};
use assay_trust::placement::Room;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::store::StoreError;

/// It.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Demands {
    /// What it demands of trust.
    pub level: Level,
    /// Whether its device has to have quoted, whatever the level.
    pub require_attestation: bool,
    /// How old its device's evidence may be; 0: as old as the policy lets it be.
    pub evidence_seconds_max: u64,
    /// Whether it may be debugged.
    pub allow_debug: bool,
    /// How its measurement is judged.
    pub measurement_policy: MeasurementPolicy,
    /// Measurements that are expected.
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub expected: Vec<Sha384>,
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Labels that its device must have.
    pub selector: String,
    /// The label over whose values tasks are spread.
    pub spread: String,
    /// How often it is tried again once it ran and failed.
    pub retries: u32,
    /// SHA-384 of its input.
    #[serde(serialize_with = "one_to_hex", deserialize_with = "one_from_hex")]
    pub input: Sha384,
    /// Bytes of its image.
    pub image_bytes: u64,
    /// Bytes of its input.
    pub input_bytes: u64,
}

impl Demands {
    pub(crate) fn read(text: &str) -> Result<Demands, StoreError> {
        serde_json::from_str(text).map_err(|_| StoreError::Corrupt { column: "tasks.demands" })
    }

    /// Whether a result has to come with the register's word.
    pub(crate) fn is_attested(&self) -> bool {
        self.require_attestation || self.level >= Level::Confidential
    }

    /// What is decided about. Nothing tells the server of a device's TEE yet, so that none is known.
    pub(crate) fn request<'a>(&'a self, definition: &'a Definition) -> TaskRequest<'a> {
        TaskRequest {
            definition,
            level: self.level,
            require_attestation: self.require_attestation,
            evidence_seconds_max: self.evidence_seconds_max,
            allow_debug: self.allow_debug,
            measurement_policy: self.measurement_policy,
            expected: &self.expected,
            tee: None,
        }
    }

    /// What it takes of a device.
    pub(crate) fn room(&self, definition: &Definition) -> Room {
        Room { memory_bytes: definition.limits.memory_bytes, cpu_millis: self.cpu_millis, tasks: 1 }
    }
}

fn to_hex<S: Serializer>(digests: &[Sha384], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(digests.iter().map(|digest| HEXLOWER.encode(digest)))
}

fn from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Sha384>, D::Error> {
    Vec::<String>::deserialize(deserializer)?.iter().map(|text| digest(text)).collect()
}

fn one_to_hex<S: Serializer>(digest: &Sha384, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&HEXLOWER.encode(digest))
}

fn one_from_hex<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sha384, D::Error> {
    digest(&String::deserialize(deserializer)?)
}

fn digest<E: serde::de::Error>(text: &str) -> Result<Sha384, E> {
    let bytes = HEXLOWER.decode(text.as_bytes()).map_err(E::custom)?;
    <[u8; SHA384_BYTES]>::try_from(bytes.as_slice()).map_err(E::custom)
}
