//! Certificate serial numbers, compared as numbers whatever their encoding.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A non-negative serial number: big endian, without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Serial(Vec<u8>);

impl Serial {
    /// The serial of a certificate to be issued, from 16 random bytes.
    ///
    /// The top bits are set to `01`, so that every serial has the same length and no sign byte.
    pub fn from_random(mut bytes: [u8; 16]) -> Self {
        if let Some(first) = bytes.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        Serial(bytes.to_vec())
    }

    /// The serial of a certificate of the classic root, from 20 random bytes: by its length it is told from all others.
    pub fn classic(mut bytes: [u8; SERIAL_BYTES_MAX]) -> Self {
        if let Some(first) = bytes.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        Serial(bytes.to_vec())
    }

    /// Whether it is one of the classic root's.
    pub fn is_classic(&self) -> bool {
        self.0.len() == SERIAL_BYTES_MAX
    }

    /// The serial of an AK's certificate, from 18 random bytes, likewise.
    pub fn of_ak(mut bytes: [u8; AK_SERIAL_BYTES]) -> Self {
        if let Some(first) = bytes.first_mut() {
            *first = (*first & 0x7f) | 0x40;
        }
        Serial(bytes.to_vec())
    }

    /// Whether it is one of an AK's certificate.
    pub fn is_of_ak(&self) -> bool {
        self.0.len() == AK_SERIAL_BYTES
    }

    /// The number in the content bytes of a DER INTEGER, if it is within RFC 5280's 20 bytes.
    pub fn from_integer(bytes: &[u8]) -> Option<Self> {
        let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
        let number = bytes.get(start..)?;
        (number.len() <= SERIAL_BYTES_MAX).then(|| Serial(number.to_vec()))
    }

    /// Reads lowercase or uppercase hex.
    pub fn from_hex(hex: &str) -> Option<Self> {
        Serial::from_integer(&data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?)
    }

    /// The number, big endian, without leading zeros.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl From<Serial> for String {
    fn from(serial: Serial) -> String {
        serial.to_string()
    }
}

impl TryFrom<String> for Serial {
    type Error = &'static str;

    fn try_from(hex: String) -> Result<Self, Self::Error> {
        Serial::from_hex(&hex).ok_or("a serial number is at most 20 bytes of hex")
    }
}

// RFC 5280 §4.1.2.2.
const SERIAL_BYTES_MAX: usize = 20;
const AK_SERIAL_BYTES: usize = 18;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serials_compare_as_numbers() {
        assert_eq!(Serial::from_integer(&[0, 0, 0x81]), Serial::from_hex("81"));
        assert_eq!(Serial::from_integer(&[0x81; 21]), None);
        assert_eq!(Serial::from_hex("8"), None);
    }

    #[test]
    fn random_serials_are_positive_and_full_length() {
        for fill in [0x00, 0xff] {
            let serial = Serial::from_random([fill; 16]);
            assert_eq!(serial.as_bytes().len(), 16);
            assert!(serial.as_bytes()[0] & 0x80 == 0);
            assert_eq!(Serial::from_hex(&serial.to_string()), Some(serial));
        }
    }
}
