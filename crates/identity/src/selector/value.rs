//! Values that selectors of several attestors have.

use std::fmt;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};

use super::Never;

/// A SHA-256, written in lowercase hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256([u8; 32]);

impl Sha256 {
    /// Reads 64 hex digits. With an algorithm before them, the digits alone are what may be meant.
    pub(super) fn parse(text: &str) -> Result<Sha256, Never> {
        let read = |text: &str| HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok()?.try_into().ok().map(Sha256);
        read(text).ok_or_else(|| {
            let near = text.rsplit(':').next().and_then(read).map(|hash| hash.to_string());
            Never::near("its value is no SHA-256 of 64 hex digits", near)
        })
    }

    /// The hash.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Sha256 {
    fn from(hash: [u8; 32]) -> Sha256 {
        Sha256(hash)
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sha256({self})")
    }
}

impl Never {
    /// With the name before what is near, which was found without it.
    pub(super) fn named(self, name: &str) -> Never {
        Never { nearest: self.nearest.map(|near| format!("{name}:{near}")), ..self }
    }
}

/// A path of a file, from the root.
pub(super) fn path(text: &str) -> Result<String, Never> {
    if !text.starts_with('/') {
        return Err(Never::new("its value is no path from the root"));
    }
    if text.ends_with('/') {
        return Err(Never::new("its value is the path of a folder"));
    }
    Ok(text.to_owned())
}
