//! What secrets are called: a name is a file's on the device, and part of what a secret is sealed for.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A secret's name: 1 to 64 lower-case letters, digits, dots, dashes and underscores, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(String);

/// A text that names no secret.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} cannot be a secret's name: it has 1 to {NAME_BYTES_MAX} lower-case letters, digits, dots, dashes and underscores, \
     and begins with a letter or digit"
)]
pub struct NotAName(String);

impl SecretName {
    /// As a text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SecretName {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let begins = text.bytes().next().is_some_and(is_word);
        let rest = text.bytes().all(|byte| is_word(byte) || matches!(byte, b'.' | b'-' | b'_'));
        match begins && rest && text.len() <= NAME_BYTES_MAX {
            true => Ok(SecretName(text.to_owned())),
            false => Err(NotAName(text.chars().take(NAME_BYTES_MAX).collect())),
        }
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

const NAME_BYTES_MAX: usize = 64;

/// Bytes of one secret: as much as goes into one message with room to spare.
pub const SECRET_BYTES_MAX: usize = 1024 * 1024;

/// Secrets of one device.
pub const SECRETS_PER_DEVICE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_plain_file_name_and_nothing_else() {
        for good in ["db", "0", "db-password.v2_x", &"a".repeat(64)] {
            assert_eq!(good.parse::<SecretName>().unwrap().as_str(), good);
        }
        let long = "a".repeat(65);
        for bad in ["", ".", "..", ".hidden", "-rf", "a/b", "A", "a b", "ä", "a\0", "a\n", long.as_str()] {
            assert!(bad.parse::<SecretName>().is_err(), "{bad:?}");
        }
    }
}
