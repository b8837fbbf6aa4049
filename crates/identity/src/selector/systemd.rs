//! `systemd`: the unit of the system's manager that a process is of.

use std::fmt;

use super::Never;

/// The attestor's name.
pub const KIND: &str = "systemd";

/// One thing that holds of a process by its unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Systemd {
    /// The unit, such as `web.service`.
    Id(String),
}

pub(super) const NAMES: &[&str] = &["id"];

impl Systemd {
    /// Reads one of [`NAMES`] with its value.
    pub(super) fn parse(name: &str, value: &str) -> Result<Systemd, Never> {
        match name {
            "id" => unit(value).map(Systemd::Id),
            _ => Err(Never::new("there is no selector of that name")),
        }
    }
}

impl fmt::Display for Systemd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Systemd::Id(unit) = self;
        write!(f, "id:{unit}")
    }
}

/// systemd.unit(5): what the name of a unit consists of. Of its types these have processes.
fn unit(text: &str) -> Result<String, Never> {
    let is_legal = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if text.is_empty() || text.len() > UNIT_BYTES_MAX || !text.chars().all(is_legal) {
        return Err(Never::new("its value is no name of a unit"));
    }
    let Some((stem, suffix)) = text.rsplit_once('.').filter(|(_, suffix)| TYPES.contains(suffix)) else {
        let near = UNIT_TYPES_WITHOUT.iter().all(|suffix| !text.ends_with(suffix));
        let near = near.then(|| format!("id:{text}.service"));
        return Err(Never::near("no process is of a unit of that type", near));
    };
    if stem.is_empty() || stem.ends_with('@') {
        let near = (!stem.is_empty()).then(|| format!("id:{stem}INSTANCE.{suffix}"));
        return Err(Never::near("it is a template, of which only instances have processes", near));
    }
    Ok(text.to_owned())
}

const TYPES: [&str; 5] = ["service", "scope", "socket", "mount", "swap"];
const UNIT_TYPES_WITHOUT: [&str; 6] = [".slice", ".target", ".timer", ".path", ".device", ".automount"];
/// UNIT_NAME_MAX of systemd.
const UNIT_BYTES_MAX: usize = 255;
