//! `unix`: what the kernel knows of a process, as SPIRE spells it.

use std::fmt;

use super::Never;
use super::value::{self, Sha256};

/// The attestor's name.
pub const KIND: &str = "unix";

/// One thing that holds of a process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Unix {
    /// Its user, by number.
    Uid(u32),
    /// Its group, by number.
    Gid(u32),
    /// Its user, by the name in /etc/passwd.
    User(String),
    /// Its group, by the name in /etc/group.
    Group(String),
    /// One of its further groups, by number.
    SupplementaryGid(u32),
    /// One of its further groups, by name.
    SupplementaryGroup(String),
    /// Where the program lies that it runs.
    Path(String),
    /// The hash of that program.
    Sha256(Sha256),
}

pub(super) const NAMES: &[&str] =
    &["uid", "gid", "user", "group", "supplementary_gid", "supplementary_group", "path", "sha256"];

impl Unix {
    /// Reads one of [`NAMES`] with its value.
    pub(super) fn parse(name: &str, value: &str) -> Result<Unix, Never> {
        Ok(match name {
            "uid" => Unix::Uid(number(value, "user")?),
            "gid" => Unix::Gid(number(value, "group")?),
            "supplementary_gid" => Unix::SupplementaryGid(number(value, "supplementary_group")?),
            "user" => Unix::User(account(value)?),
            "group" => Unix::Group(account(value)?),
            "supplementary_group" => Unix::SupplementaryGroup(account(value)?),
            "path" => Unix::Path(path(value)?),
            "sha256" => Unix::Sha256(Sha256::parse(value).map_err(|never| never.named("sha256"))?),
            _ => return Err(Never::new("there is no selector of that name")),
        })
    }
}

impl fmt::Display for Unix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unix::Uid(id) => write!(f, "uid:{id}"),
            Unix::Gid(id) => write!(f, "gid:{id}"),
            Unix::User(name) => write!(f, "user:{name}"),
            Unix::Group(name) => write!(f, "group:{name}"),
            Unix::SupplementaryGid(id) => write!(f, "supplementary_gid:{id}"),
            Unix::SupplementaryGroup(name) => write!(f, "supplementary_group:{name}"),
            Unix::Path(path) => write!(f, "path:{path}"),
            Unix::Sha256(hash) => write!(f, "sha256:{hash}"),
        }
    }
}

/// A number of a user or group. A name in its place is the commonest slip of all.
fn number(text: &str, by_name: &str) -> Result<u32, Never> {
    // credentials(7): the highest one says "no change" in system calls, and is nobody's.
    if let Some(number) = text.parse().ok().filter(|number| *number != u32::MAX) {
        return Ok(number);
    }
    let is_meant_as_name = text.starts_with(|c: char| !c.is_ascii_digit() && c != '-' && c != '+');
    let near = account(text).ok().filter(|_| is_meant_as_name).map(|name| format!("{by_name}:{name}"));
    Err(Never::near("its value is no number of a user or group", near))
}

/// A field of /etc/passwd ends at a colon.
fn account(text: &str) -> Result<String, Never> {
    match !text.is_empty() && !text.contains([':', '/']) && text.trim() == text {
        true => Ok(text.to_owned()),
        false => Err(Never::new("its value is no name of a user or group")),
    }
}

fn path(text: &str) -> Result<String, Never> {
    value::path(text).map_err(|never| {
        let is_bare = !text.is_empty() && !text.contains('/');
        Never { nearest: is_bare.then(|| format!("path:/usr/bin/{text}")), ..never }
    })
}
