//! `docker`: the container that a process is in, as its engine (Docker, or Podman's service for it) describes it.
//!
//! Labels, environment and names of images are what whoever started the container said. The digest of the image's
//! configuration is what it runs.

use std::fmt;

use super::Never;
use super::value::Sha256;

/// The attestor's name.
pub const KIND: &str = "docker";

/// One thing that holds of a container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Docker {
    /// A label.
    Label {
        /// Its key.
        key: String,
        /// Its value; may be empty.
        value: String,
    },
    /// A variable of its environment, as it was started.
    Env {
        /// Its name.
        name: String,
        /// Its value; may be empty.
        value: String,
    },
    /// The image, by the name that it was started by.
    ImageId(String),
    /// The digest of the image's configuration.
    ImageConfigDigest(Sha256),
}

pub(super) const NAMES: &[&str] = &["label", "env", "image_id", "image_config_digest"];

impl Docker {
    /// Reads one of [`NAMES`] with its value.
    pub(super) fn parse(name: &str, value: &str) -> Result<Docker, Never> {
        match name {
            "label" => {
                let near = || value.split_once('=').map(|(key, value)| format!("label:{key}:{value}"));
                let (key, value) = split(value, ':')
                    .ok_or_else(|| Never::near("a label is written label:KEY:VALUE", near()))?;
                Ok(Docker::Label { key, value })
            }
            "env" => {
                let near = || value.split_once(':').map(|(name, value)| format!("env:{name}={value}"));
                let (name, value) = split(value, '=')
                    .ok_or_else(|| Never::near("a variable is written env:NAME=VALUE", near()))?;
                Ok(Docker::Env { name, value })
            }
            "image_id" if value.is_empty() || value.contains(char::is_whitespace) => {
                Err(Never::new("its value is no name of an image"))
            }
            "image_id" => Ok(Docker::ImageId(value.to_owned())),
            "image_config_digest" => image_config_digest(value),
            _ => Err(Never::new("there is no selector of that name")),
        }
    }
}

impl fmt::Display for Docker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Docker::Label { key, value } => write!(f, "label:{key}:{value}"),
            Docker::Env { name, value } => write!(f, "env:{name}={value}"),
            Docker::ImageId(name) => write!(f, "image_id:{name}"),
            Docker::ImageConfigDigest(hash) => write!(f, "image_config_digest:sha256:{hash}"),
        }
    }
}

fn split(text: &str, at: char) -> Option<(String, String)> {
    let (key, value) = text.split_once(at).filter(|(key, _)| !key.is_empty())?;
    Some((key.to_owned(), value.to_owned()))
}

/// As the engine writes it, with the algorithm before the digits.
fn image_config_digest(text: &str) -> Result<Docker, Never> {
    let hash = text.strip_prefix("sha256:").map(Sha256::parse);
    match hash {
        Some(Ok(hash)) => Ok(Docker::ImageConfigDigest(hash)),
        Some(Err(_)) | None => {
            let bare = Sha256::parse(text).ok();
            let near = bare.map(|hash| format!("image_config_digest:sha256:{hash}"));
            Err(Never::near("its value is no digest, sha256: and 64 hex digits", near))
        }
    }
}
