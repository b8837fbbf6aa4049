//! Device mapper: what the kernel measured of block devices it put together (`measure func=CRITICAL_DATA
//! label=device-mapper`), as facts.
//!
//! The event's data is text: records that end with `;`, of pairs `key=value` with `,` between them. In names and UUIDs,
//! which users choose, the kernel sets a backslash before these characters, so that nobody can write a pair of his own
//! into a name. A table's hash in later events is the SHA-256 of the data of all `dm_table_load` events of that table.

use std::str::FromStr;

use thiserror::Error;

use super::Entry;
use crate::{Digest, HashAlgorithm};

/// A change of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmEvent {
    /// The version of device mapper, where the kernel says it.
    pub version: Option<String>,
    /// What happened.
    pub change: DmChange,
}

/// What happened to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DmChange {
    /// A table was loaded, to become active with the next resume. A long one is told in several events.
    TableLoad {
        /// The device.
        device: DmDevice,
        /// The targets, in order.
        targets: Vec<DmTarget>,
    },
    /// The loaded table became active.
    DeviceResume {
        /// The device.
        device: DmDevice,
        /// The hash of its table; `None` where the kernel measured none.
        active_table: Option<Digest>,
        /// Sectors.
        capacity: u64,
    },
    /// A device was removed.
    DeviceRemove {
        /// As its active table had it, or just its names.
        device: Option<DmDevice>,
        /// As a loaded table had it that had not become active.
        inactive: Option<DmDevice>,
        /// The hash of the active table.
        active_table: Option<Digest>,
        /// The hash of the other.
        inactive_table: Option<Digest>,
        /// Whether all devices were removed at once.
        remove_all: bool,
        /// Sectors.
        capacity: u64,
    },
    /// A loaded table was dropped before it became active.
    TableClear {
        /// The device.
        device: DmDevice,
        /// The hash of the table.
        inactive_table: Option<Digest>,
        /// Sectors.
        capacity: u64,
    },
    /// A device got another name or UUID.
    DeviceRename {
        /// The device before; `None` where no table of it was measured.
        device: Option<DmDevice>,
        /// Its name from now on.
        new_name: String,
        /// Its UUID from now on.
        new_uuid: String,
        /// Sectors.
        capacity: u64,
    },
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmDevice {
    /// Its name. A user's words: escape them before showing them.
    pub name: String,
    /// Its UUID, often empty or not a UUID at all.
    pub uuid: String,
    /// Its numbers, where a table of it was measured.
    pub numbers: Option<DmNumbers>,
}

/// Numbers of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmNumbers {
    /// Major device number.
    pub major: u32,
    /// Minor device number.
    pub minor: u32,
    /// Minor numbers it has.
    pub minor_count: u32,
    /// Targets of its table.
    pub targets: u32,
}

/// A stretch of a device, and what is behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DmTarget {
    /// Its place in the table.
    pub index: u32,
    /// Its first sector.
    pub begin: u64,
    /// Its sectors.
    pub length: u64,
    /// Its kind, such as `verity`; empty where the target's driver tells nothing of itself.
    pub kind: String,
    /// The version of its driver.
    pub version: String,
    /// What else the driver tells, such as `root_digest`, in its order. No key is there twice.
    pub attributes: Vec<(String, String)>,
}

impl DmTarget {
    /// The value of an attribute.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }
}

/// Why the data of a device mapper event was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DmError {
    /// It is not text.
    #[error("it is not UTF-8 text")]
    NotText,
    /// The buffer does not have the digest that the entry states.
    #[error("its digest is not that of its data")]
    Digest,
    /// It does not end where a record ends.
    #[error("its last record has no end")]
    Unended,
    /// A record has no known form.
    #[error("its record {0} is malformed")]
    Record(usize),
    /// It is longer than any kernel writes.
    #[error("it has more than {DATA_BYTES_MAX} bytes, {RECORDS_MAX} records or {PAIRS_MAX} pairs in one")]
    TooLong,
    /// Something that such an event has is not there, or is no value of its kind.
    #[error("its {0} is missing or malformed")]
    Field(&'static str),
    /// Something is there twice, or does not belong to such an event.
    #[error("it has a pair that does not belong there, or one twice")]
    Excess,
}

impl Entry<'_> {
    /// What this entry says of a device; `None` where it is no device mapper event.
    pub fn device_mapper(&self) -> Option<Result<DmEvent, DmError>> {
        let read = EVENTS.iter().find(|(name, _)| *name == self.path()).map(|(_, read)| read)?;
        if self.is_violation() || self.buffer().is_empty() {
            return None;
        }
        let stated = self.file_digest();
        if stated.is_some_and(|stated| stated.algorithm().hash(&[self.buffer()]) != stated) {
            return Some(Err(DmError::Digest));
        }
        Some(Records::read(self.buffer()).and_then(|mut records| {
            let version = records.version.take();
            let change = read(&mut records)?;
            records.finish()?;
            Ok(DmEvent { version, change })
        }))
    }
}

type ReadChange = fn(&mut Records) -> Result<DmChange, DmError>;

/// The events by their names.
const EVENTS: [(&[u8], ReadChange); 5] = [
    (b"dm_table_load", |records| {
        let device = records.measured_device()?;
        Ok(DmChange::TableLoad { device, targets: std::mem::take(&mut records.targets) })
    }),
    (b"dm_device_resume", |records| {
        records.no_data("device_resume");
        let device = records.device.take().ok_or(DmError::Field("device"))?;
        let active_table = records.hash("active_table_hash")?;
        Ok(DmChange::DeviceResume { device, active_table, capacity: records.capacity()? })
    }),
    (b"dm_device_remove", |records| {
        records.no_data("device_remove");
        let remove_all = match records.field("remove_all").as_deref() {
            Some("y") => true,
            Some("n") => false,
            _ => return Err(DmError::Field("remove_all")),
        };
        let device = records.active.take().or_else(|| records.device.take());
        let inactive = records.inactive.take();
        if device.is_none() && inactive.is_none() {
            return Err(DmError::Field("device"));
        }
        Ok(DmChange::DeviceRemove {
            device,
            inactive,
            active_table: records.hash("active_table_hash")?,
            inactive_table: records.hash("inactive_table_hash")?,
            remove_all,
            capacity: records.capacity()?,
        })
    }),
    (b"dm_table_clear", |records| {
        records.no_data("table_clear");
        let device = records.device.take().ok_or(DmError::Field("device"))?;
        let inactive_table = records.hash("inactive_table_hash")?;
        Ok(DmChange::TableClear { device, inactive_table, capacity: records.capacity()? })
    }),
    (b"dm_device_rename", |records| {
        records.no_data("device_rename");
        Ok(DmChange::DeviceRename {
            device: records.device.take(),
            new_name: records.field("new_name").ok_or(DmError::Field("new_name"))?,
            new_uuid: records.field("new_uuid").ok_or(DmError::Field("new_uuid"))?,
            capacity: records.capacity()?,
        })
    }),
];

/// The records of an event, sorted by their form. What an event has is taken out; nothing may be left.
#[derive(Default)]
struct Records {
    version: Option<String>,
    device: Option<DmDevice>,
    active: Option<DmDevice>,
    inactive: Option<DmDevice>,
    targets: Vec<DmTarget>,
    fields: Pairs,
}

type Pairs = Vec<(String, String)>;

impl Records {
    fn read(data: &[u8]) -> Result<Self, DmError> {
        if data.len() > DATA_BYTES_MAX {
            return Err(DmError::TooLong);
        }
        let text = std::str::from_utf8(data).map_err(|_| DmError::NotText)?;
        let mut parts = split(text, ';');
        // After the last record's end there is nothing.
        if parts.pop() != Some("") {
            return Err(DmError::Unended);
        }
        if parts.len() > RECORDS_MAX {
            return Err(DmError::TooLong);
        }
        let mut records = Records::default();
        for (number, text) in parts.into_iter().enumerate() {
            records.add(number, text)?;
        }
        Ok(records)
    }

    fn add(&mut self, number: usize, text: &str) -> Result<(), DmError> {
        let device = |text: &str| DmDevice::read(pairs(text, number)?).ok_or(DmError::Record(number));
        let is_new = if let Some(version) = text.strip_prefix("dm_version=") {
            number == 0 && self.version.replace(version.to_owned()).is_none()
        } else if let Some(text) = text.strip_prefix("device_active_metadata=") {
            self.active.replace(device(text)?).is_none()
        } else if let Some(text) = text.strip_prefix("device_inactive_metadata=") {
            self.inactive.replace(device(text)?).is_none()
        } else if text.starts_with("name=") {
            self.device.replace(device(text)?).is_none()
        } else if text.starts_with("target_index=") {
            let target = DmTarget::read(pairs(text, number)?);
            self.targets.push(target.ok_or(DmError::Record(number))?);
            true
        } else {
            // The hashes of a removed device are followed by a comma in any case.
            self.fields.extend(pairs(text, number)?);
            true
        };
        is_new.then_some(()).ok_or(DmError::Excess)
    }

    fn measured_device(&mut self) -> Result<DmDevice, DmError> {
        self.device.take().filter(|device| device.numbers.is_some()).ok_or(DmError::Field("device"))
    }

    fn field(&mut self, key: &str) -> Option<String> {
        let at = self.fields.iter().position(|(found, _)| found == key)?;
        Some(self.fields.remove(at).1)
    }

    /// What the kernel writes where it has measured no table.
    fn no_data(&mut self, key: &str) {
        self.fields.retain(|(found, value)| found != key || value != "no_data");
    }

    fn capacity(&mut self) -> Result<u64, DmError> {
        let capacity = self.field("current_device_capacity");
        capacity.and_then(|text| decimal(&text)).ok_or(DmError::Field("current_device_capacity"))
    }

    /// A table's hash, with its algorithm or, as kernels first wrote it, without.
    fn hash(&mut self, key: &'static str) -> Result<Option<Digest>, DmError> {
        let Some(text) = self.field(key) else { return Ok(None) };
        let bare = || Digest::from_text(&format!("{}:{text}", HashAlgorithm::Sha256));
        Digest::from_text(&text).or_else(bare).map(Some).ok_or(DmError::Field(key))
    }

    fn finish(self) -> Result<(), DmError> {
        let Records { version: _, device, active, inactive, targets, fields } = self;
        let is_empty = targets.is_empty() && fields.is_empty();
        let is_used = device.is_none() && active.is_none() && inactive.is_none();
        (is_empty && is_used).then_some(()).ok_or(DmError::Excess)
    }
}

impl DmDevice {
    fn read(pairs: Pairs) -> Option<Self> {
        let mut pairs = pairs.into_iter();
        let (name, uuid) = (value(&mut pairs, "name")?, value(&mut pairs, "uuid")?);
        if pairs.len() == 0 {
            return Some(DmDevice { name, uuid, numbers: None });
        }
        let mut number = |key| value(&mut pairs, key).and_then(|text| decimal(&text));
        let numbers = DmNumbers {
            major: number("major")?,
            minor: number("minor")?,
            minor_count: number("minor_count")?,
            targets: number("num_targets")?,
        };
        (pairs.len() == 0).then_some(DmDevice { name, uuid, numbers: Some(numbers) })
    }
}

impl DmTarget {
    fn read(pairs: Pairs) -> Option<Self> {
        let mut pairs = pairs.into_iter();
        let index = decimal(&value(&mut pairs, "target_index")?)?;
        let begin = decimal(&value(&mut pairs, "target_begin")?)?;
        let length = decimal(&value(&mut pairs, "target_len")?)?;
        let (mut kind, mut version) = (String::new(), String::new());
        if pairs.len() > 0 {
            kind = value(&mut pairs, "target_name")?;
            version = value(&mut pairs, "target_version")?;
        }
        let attributes: Pairs = pairs.collect();
        let is_twice = |(at, (key, _)): (usize, &(String, String))| {
            attributes.iter().take(at).any(|(other, _)| other == key)
        };
        let has_twice = attributes.iter().enumerate().any(is_twice);
        (!has_twice).then_some(DmTarget { index, begin, length, kind, version, attributes })
    }
}

/// The pairs of a record. A part without `=` belongs to the value before it: drivers do not escape theirs, and names
/// of ciphers may have commas.
fn pairs(text: &str, number: usize) -> Result<Pairs, DmError> {
    let mut pairs = Pairs::new();
    for part in split(text, ',') {
        match (split_pair(part), pairs.last_mut()) {
            (Some((key, value)), _) => pairs.push((key.to_owned(), plain(value))),
            // A comma at the end separates nothing.
            (None, Some(_)) if part.is_empty() => {}
            (None, Some((_, value))) => {
                value.push(',');
                value.push_str(&plain(part));
            }
            (None, None) => return Err(DmError::Record(number)),
        }
        if pairs.len() > PAIRS_MAX {
            return Err(DmError::TooLong);
        }
    }
    Ok(pairs)
}

fn split_pair(part: &str) -> Option<(&str, &str)> {
    // A key has no backslash, so that the first `=` ends it; of an escaped one a continued value may consist.
    let (key, value) = part.split_once('=')?;
    let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_key.then_some((key, value))
}

/// The parts between separators that have no backslash before them.
fn split(text: &str, separator: char) -> Vec<&str> {
    let mut is_escaped = false;
    let is_end = |character: char| {
        let was_escaped = is_escaped;
        is_escaped = character == '\\' && !was_escaped;
        character == separator && !was_escaped
    };
    text.split(is_end).collect()
}

/// The text without the backslashes that the kernel set.
fn plain(text: &str) -> String {
    let mut characters = text.chars();
    let mut plain = String::with_capacity(text.len());
    while let Some(character) = characters.next() {
        plain.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    plain
}

/// The value of the next pair, which must have this key.
fn value(pairs: &mut impl Iterator<Item = (String, String)>, key: &str) -> Option<String> {
    pairs.next().filter(|(found, _)| found == key).map(|(_, value)| value)
}

/// A number as the kernel prints it.
fn decimal<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Bytes of an event's data: four times the kernel's buffer.
const DATA_BYTES_MAX: usize = 16 << 10;
/// Records of one event: a table of 64 stretches fills the kernel's buffer.
const RECORDS_MAX: usize = 256;
/// Pairs of one record: the kernel gives a target 2 KiB.
const PAIRS_MAX: usize = 256;
