//! `spiffe_id` and `x509pop`: what a node is that attested as SPIRE's agents do. No process has one of these; they choose the
//! nodes of an alias.

use std::fmt;

use super::Never;
use crate::spiffe_id::SpiffeId;

/// What names a node by its SPIFFE ID.
pub const SPIFFE_ID: &str = "spiffe_id";
/// The attestor of nodes that show a certificate which they hold the key of.
pub const X509POP: &str = "x509pop";

/// One thing that holds of a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Node {
    /// It is this one.
    SpiffeId(SpiffeId),
    /// The certificate that it showed.
    X509Pop(X509Pop),
}

/// What a certificate says, or who signed it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum X509Pop {
    /// Its common name.
    SubjectCommonName(String),
    /// SHA-1 of an authority above it, in hex, as SPIRE has it.
    CaFingerprint(String),
    /// Its serial number, in hex.
    SerialNumber(String),
    /// What a URI of it says: `x509pop://TRUST-DOMAIN/KEY/VALUE`.
    San {
        /// What it is about: no slash, no colon.
        key: String,
        /// All that follows.
        value: String,
    },
}

pub(super) const SPIFFE_ID_NAMES: &[&str] = &["spiffe"];
pub(super) const X509POP_NAMES: &[&str] = &["subject", "ca", "serialnumber", "san"];

impl Node {
    /// The attestor: what stands before the first colon.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Node::SpiffeId(_) => SPIFFE_ID,
            Node::X509Pop(_) => X509POP,
        }
    }

    /// What stands behind `spiffe_id:spiffe:`.
    pub(super) fn spiffe_id(rest: &str) -> Result<Node, Never> {
        let id = SpiffeId::parse(&format!("spiffe:{rest}"));
        id.map(Node::SpiffeId).map_err(|_| Never::new("it is not a SPIFFE ID"))
    }
}

impl X509Pop {
    /// Reads one of [`X509POP_NAMES`] with its value.
    pub(super) fn parse(name: &str, value: &str) -> Result<X509Pop, Never> {
        let is_hex = |text: &str| {
            !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        match (name, value.split_once(':')) {
            ("subject", Some(("cn", cn))) if !cn.is_empty() => Ok(X509Pop::SubjectCommonName(cn.to_owned())),
            ("ca", Some(("fingerprint", hex))) if hex.len() == SHA1_DIGITS && is_hex(hex) => {
                Ok(X509Pop::CaFingerprint(hex.to_owned()))
            }
            ("serialnumber", None) if is_hex(value) => Ok(X509Pop::SerialNumber(value.to_owned())),
            ("san", Some((key, value))) if !key.is_empty() && !value.is_empty() => {
                Ok(X509Pop::San { key: key.to_owned(), value: value.to_owned() })
            }
            ("san", _) => Err(Never::new("it is not san:KEY:VALUE")),
            ("subject", _) => Err(Never::new("only subject:cn:NAME says anything of a subject")),
            ("ca", _) => Err(Never::new("it is not ca:fingerprint: with 40 lower-case hex digits")),
            _ => Err(Never::new("its value is no serial number in lower-case hex")),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Node::SpiffeId(id) => write!(f, "{id}"),
            Node::X509Pop(X509Pop::SubjectCommonName(name)) => write!(f, "subject:cn:{name}"),
            Node::X509Pop(X509Pop::CaFingerprint(hex)) => write!(f, "ca:fingerprint:{hex}"),
            Node::X509Pop(X509Pop::SerialNumber(hex)) => write!(f, "serialnumber:{hex}"),
            Node::X509Pop(X509Pop::San { key, value }) => write!(f, "san:{key}:{value}"),
        }
    }
}

const SHA1_DIGITS: usize = 40;
