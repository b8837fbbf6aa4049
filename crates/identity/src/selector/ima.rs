//! `ima`: the caller's program as the device's verified IMA list has it.
//!
//! Two ends decide it together: the agent, that the caller runs a file of this hash; and the server, that the kernel
//! measured one in this boot, by a list that replays to the last verified quote.

use std::fmt;

use super::Never;
use super::value::Sha256;

/// The attestor's name.
pub const KIND: &str = "ima";

/// One thing that holds of a process by the kernel's measurements.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ima {
    /// The hash of the program that it runs, as measured.
    Sha256(Sha256),
}

pub(super) const NAMES: &[&str] = &["sha256"];

impl Ima {
    /// Reads one of [`NAMES`] with its value.
    pub(super) fn parse(name: &str, value: &str) -> Result<Ima, Never> {
        match name {
            "sha256" => Ok(Ima::Sha256(Sha256::parse(value).map_err(|never| never.named("sha256"))?)),
            _ => Err(Never::new("there is no selector of that name")),
        }
    }
}

impl fmt::Display for Ima {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ima::Sha256(hash) = self;
        write!(f, "sha256:{hash}")
    }
}
