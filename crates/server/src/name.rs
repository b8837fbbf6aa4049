//! Names of devices: what people call them, and whatever takes an ID takes.
//!
//! A device proposes its name when it enrolls for the first time and keeps it from then on, whatever it calls itself later;
//! only an operator gives it another. No two devices have the same.

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use thiserror::Error;

use crate::actor::Actor;
use crate::device::Device;
use crate::fate::{FateError, enrolled};
use crate::outcome::{Kind, Outcome};
use crate::store::{RenameDevice, Store, StoreError};

/// Names are for people: shown in tables and on pages, so printable and short. They stand where an ID may, so none reads
/// like one.
pub(crate) fn check(name: &str) -> Result<(), NotAName> {
    let printable = name.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ' '));
    let framed = name.starts_with(char::is_alphanumeric) && !name.ends_with(' ');
    if name.len() > NAME_BYTES_MAX || !printable || !framed {
        return Err(NotAName::Form);
    }
    if name.len() == HASH_DIGITS && name.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(NotAName::Hash);
    }
    Ok(())
}

/// Calls a device something else, if nothing else is called that.
pub(crate) async fn rename(
    store: &Store,
    id: &SpiffeId,
    name: String,
    by: Actor,
    now: UnixTime,
) -> Result<Device, NotRenamed> {
    check(&name)?;
    for _ in 0..ATTEMPTS_MAX {
        let device = enrolled(store, id).await?;
        if device.record.name == name {
            return Ok(device);
        }
        let rename = RenameDevice {
            device_id: id.to_string(),
            from: device.record.name,
            to: name.clone(),
            at: now,
            by: by.name().to_owned(),
        };
        match store.commit_and_follow(rename).await {
            Ok(true) => {
                tracing::info!(device = %id, name, %by, "device renamed");
                return Ok(enrolled(store, id).await?);
            }
            Ok(false) => return Err(NotRenamed::Taken { name }),
            Err(StoreError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(StoreError::Conflict.into())
}

/// Why something is no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum NotAName {
    /// It cannot be shown.
    #[error(
        "a name begins with a letter or digit, does not end with a space, and has at most {NAME_BYTES_MAX} letters, digits, \
         spaces, dots, dashes and underscores"
    )]
    Form,
    /// It could be taken for a device's hash.
    #[error(
        "a name does not consist of {HASH_DIGITS} hexadecimal digits, which is what devices are known by without one"
    )]
    Hash,
}

/// Why a device keeps its name.
#[derive(Debug, Error)]
pub(crate) enum NotRenamed {
    /// No name.
    #[error("name: {0}")]
    Name(#[from] NotAName),
    /// Another's name.
    #[error("another device is called {name}: a name is one device's")]
    Taken {
        /// The name.
        name: String,
    },
    /// The device.
    #[error(transparent)]
    Device(#[from] FateError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Outcome for NotRenamed {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            NotRenamed::Name(_) => (Kind::Malformed, "name"),
            NotRenamed::Taken { .. } => (Kind::Duplicate, "name-taken"),
            NotRenamed::Device(error) => error.told(),
            NotRenamed::Store(error) => error.told(),
        }
    }
}

/// A DNS name's length.
const NAME_BYTES_MAX: usize = 253;
/// Of a SHA-256.
const HASH_DIGITS: usize = 64;
/// How often it is decided anew when another's name for it comes first.
const ATTEMPTS_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_9_a_name_reads_like_one_and_not_like_an_id() {
        for name in ["press-1", "Presse 1", "3", "ø.example", &"a".repeat(253), &"ab".repeat(31)] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        let long = "a".repeat(254);
        for name in ["", " a", "a ", "-a", ".a", "a/b", "a\nb", "spiffe://td/a", "a\u{202e}b", &long] {
            assert_eq!(check(name), Err(NotAName::Form), "{name:?}");
        }
        assert_eq!(check(&"aB".repeat(32)), Err(NotAName::Hash));
    }
}
