//! SPIFFE IDs and trust domains, parsed once and normalised; the names Assay's own parts carry.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The name of a trust domain, lowercase.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrustDomain(String);

/// A SPIFFE ID: `spiffe://<trust domain><path>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    uri: String,
}

/// Why a text is not a SPIFFE ID or trust domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SpiffeIdError {
    /// Longer than an implementation has to support.
    #[error("a SPIFFE ID has at most {SPIFFE_ID_BYTES_MAX} bytes, this has {length}")]
    TooLong {
        /// Bytes of the text.
        length: usize,
    },
    /// The scheme is not `spiffe`.
    #[error("a SPIFFE ID starts with spiffe://")]
    Scheme,
    /// No trust domain.
    #[error("the trust domain is empty")]
    EmptyTrustDomain,
    /// The trust domain is too long.
    #[error("a trust domain has at most {TRUST_DOMAIN_BYTES_MAX} bytes, this has {length}")]
    TrustDomainTooLong {
        /// Bytes of the trust domain.
        length: usize,
    },
    /// A character that no trust domain has; also how a port or user shows up.
    #[error("a trust domain consists of a-z, 0-9, '.', '-' and '_', not {found:?}")]
    TrustDomainCharacter {
        /// The character.
        found: char,
    },
    /// `//` in the path.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` or `..` in the path.
    #[error("the path has a relative segment")]
    RelativeSegment,
    /// The path ends in `/`.
    #[error("the path ends with a slash")]
    TrailingSlash,
    /// A path that does not start with `/`.
    #[error("the path does not start with a slash")]
    NoLeadingSlash,
    /// A character that no path has; also how a query, fragment or percent-encoding shows up.
    #[error("a path segment consists of a-z, A-Z, 0-9, '.', '-' and '_', not {found:?}")]
    PathCharacter {
        /// The character.
        found: char,
    },
}

impl TrustDomain {
    /// Parses a bare name (`example.org`); uppercase letters are lowered.
    pub fn parse(name: &str) -> Result<Self, SpiffeIdError> {
        if name.is_empty() {
            return Err(SpiffeIdError::EmptyTrustDomain);
        }
        if name.len() > TRUST_DOMAIN_BYTES_MAX {
            return Err(SpiffeIdError::TrustDomainTooLong { length: name.len() });
        }
        let name = name.to_ascii_lowercase();
        match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '-' | '_')) {
            Some(found) => Err(SpiffeIdError::TrustDomainCharacter { found }),
            None => Ok(TrustDomain(name)),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain's own ID, which has no path.
    pub fn id(&self) -> SpiffeId {
        self.with_known_path("")
    }

    /// The ID with this path (`/assay/server`) in the trust domain.
    pub fn with_path(&self, path: &str) -> Result<SpiffeId, SpiffeIdError> {
        check_path(path)?;
        let id = self.with_known_path(path);
        check_length(&id.uri)?;
        Ok(id)
    }

    fn with_known_path(&self, path: &str) -> SpiffeId {
        SpiffeId { trust_domain: self.clone(), uri: format!("{SCHEME}{}{path}", self.0) }
    }
}

impl SpiffeId {
    /// Parses and normalises.
    pub fn parse(text: &str) -> Result<Self, SpiffeIdError> {
        check_length(text)?;
        let rest = match text.split_at_checked(SCHEME.len()) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) => rest,
            _ => return Err(SpiffeIdError::Scheme),
        };
        let (name, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        TrustDomain::parse(name)?.with_path(path)
    }

    /// The ID of the device whose EK SubjectPublicKeyInfo has this SHA-256.
    pub fn device(trust_domain: &TrustDomain, ek_spki_sha256: &[u8; 32]) -> Self {
        let hex = data_encoding::HEXLOWER.encode(ek_spki_sha256);
        trust_domain.with_known_path(&format!("{DEVICE_PATH}{hex}"))
    }

    /// The ID of the trust domain's servers.
    pub fn server(trust_domain: &TrustDomain) -> Self {
        trust_domain.with_known_path(SERVER_PATH)
    }

    /// What SPIRE's agents know the trust domain's servers by.
    pub fn spire_server(trust_domain: &TrustDomain) -> Self {
        trust_domain.with_known_path(SPIRE_SERVER_PATH)
    }

    /// The ID of the key that signs what the trust domain says to its devices.
    pub fn statements(trust_domain: &TrustDomain) -> Self {
        trust_domain.with_known_path(STATEMENTS_PATH)
    }

    /// The ID of the gateway with this name, one path segment.
    pub fn gateway(trust_domain: &TrustDomain, name: &str) -> Result<Self, SpiffeIdError> {
        if name.contains('/') {
            return Err(SpiffeIdError::PathCharacter { found: '/' });
        }
        trust_domain.with_path(&format!("{GATEWAY_PATH}{name}"))
    }

    /// The ID of the operator with this name, one path segment.
    pub fn operator(trust_domain: &TrustDomain, name: &str) -> Result<Self, SpiffeIdError> {
        if name.contains('/') {
            return Err(SpiffeIdError::PathCharacter { found: '/' });
        }
        trust_domain.with_path(&format!("{OPERATOR_PATH}{name}"))
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path with its leading slash; empty for a trust domain's own ID.
    pub fn path(&self) -> &str {
        self.uri.get(SCHEME.len() + self.trust_domain.0.len()..).unwrap_or_default()
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The hex SHA-256 of the EK key, if this is a device's ID.
    pub fn device_hex(&self) -> Option<&str> {
        let hex = self.path().strip_prefix(DEVICE_PATH)?;
        (hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))).then_some(hex)
    }

    /// Whether this is the ID of an agent of SPIRE's, or of a device, which has the same form.
    pub fn is_spire_agent(&self) -> bool {
        self.path().starts_with(SPIRE_AGENT_PATH)
    }

    /// Whether this is a server's ID.
    pub fn is_server(&self) -> bool {
        self.path() == SERVER_PATH
    }

    /// What the operator is called whose ID this is.
    pub fn operator_name(&self) -> Option<&str> {
        self.path().strip_prefix(OPERATOR_PATH).filter(|name| !name.contains('/'))
    }

    /// Whether this is a gateway's ID.
    pub fn is_gateway(&self) -> bool {
        self.path().strip_prefix(GATEWAY_PATH).is_some_and(|name| !name.contains('/'))
    }
}

fn check_length(text: &str) -> Result<(), SpiffeIdError> {
    match text.len() {
        0..=SPIFFE_ID_BYTES_MAX => Ok(()),
        length => Err(SpiffeIdError::TooLong { length }),
    }
}

// SPIFFE-ID §2.2: no empty, relative or percent-encoded segments, no trailing slash.
fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    if path.is_empty() {
        return Ok(());
    }
    let segments = path.strip_prefix('/').ok_or(SpiffeIdError::NoLeadingSlash)?;
    if segments.is_empty() || segments.ends_with('/') {
        return Err(SpiffeIdError::TrailingSlash);
    }
    for segment in segments.split('/') {
        match segment {
            "" => return Err(SpiffeIdError::EmptySegment),
            "." | ".." => return Err(SpiffeIdError::RelativeSegment),
            _ => {}
        }
        let stranger = |c: &char| !matches!(c, 'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' | '_');
        if let Some(found) = segment.chars().find(stranger) {
            return Err(SpiffeIdError::PathCharacter { found });
        }
    }
    Ok(())
}

macro_rules! text_form {
    ($name:ident) => {
        impl FromStr for $name {
            type Err = SpiffeIdError;
            fn from_str(text: &str) -> Result<Self, SpiffeIdError> {
                Self::parse(text)
            }
        }
        impl TryFrom<String> for $name {
            type Error = SpiffeIdError;
            fn try_from(text: String) -> Result<Self, SpiffeIdError> {
                Self::parse(&text)
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.as_str().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

text_form!(TrustDomain);
text_form!(SpiffeId);

const SCHEME: &str = "spiffe://";
const SPIRE_SERVER_PATH: &str = "/spire/server";
const SPIRE_AGENT_PATH: &str = "/spire/agent/";
const SERVER_PATH: &str = "/assay/server";
// Not a server's: what ends TLS somewhere must not be able to speak for the authority.
const STATEMENTS_PATH: &str = "/assay/statements";
const GATEWAY_PATH: &str = "/assay/gateway/";
const OPERATOR_PATH: &str = "/assay/operator/";
// The path spire-tpm-plugin gives TPM devices, so that entries written for it keep their meaning.
const DEVICE_PATH: &str = "/spire/agent/tpm/";
// SPIFFE-ID §2.3: the longest ID everyone has to support, and the longest trust domain.
const SPIFFE_ID_BYTES_MAX: usize = 2048;
const TRUST_DOMAIN_BYTES_MAX: usize = 255;

#[cfg(test)]
mod tests {
    use super::*;
    use SpiffeIdError::*;

    fn check(text: &str, expected: Result<&str, SpiffeIdError>) {
        assert_eq!(
            SpiffeId::parse(text).as_ref().map(SpiffeId::as_str),
            expected.as_ref().copied(),
            "{text}"
        );
    }

    #[test]
    fn parses_and_normalises() {
        check("spiffe://td", Ok("spiffe://td"));
        check("spiffe://td/a/B.c-d_e/9", Ok("spiffe://td/a/B.c-d_e/9"));
        check("SPIFFE://Example.ORG/Path", Ok("spiffe://example.org/Path"));
        check("spiffe://10.0.0.1/a", Ok("spiffe://10.0.0.1/a"));
        check("spiffe://td/...", Ok("spiffe://td/..."));
    }

    #[test]
    fn refuses_what_the_standard_refuses() {
        check("", Err(Scheme));
        check("spiffe:/td", Err(Scheme));
        check("http://td/a", Err(Scheme));
        check("spiffé://td", Err(Scheme));
        check("spiffe://", Err(EmptyTrustDomain));
        check("spiffe:///a", Err(EmptyTrustDomain));
        check("spiffe://td:80/a", Err(TrustDomainCharacter { found: ':' }));
        check("spiffe://user@td/a", Err(TrustDomainCharacter { found: '@' }));
        check("spiffe://td?q", Err(TrustDomainCharacter { found: '?' }));
        check("spiffe://tđ/a", Err(TrustDomainCharacter { found: 'đ' }));
        check("spiffe://td/", Err(TrailingSlash));
        check("spiffe://td/a/", Err(TrailingSlash));
        check("spiffe://td//a", Err(EmptySegment));
        check("spiffe://td/a//b", Err(EmptySegment));
        check("spiffe://td/./a", Err(RelativeSegment));
        check("spiffe://td/a/..", Err(RelativeSegment));
        check("spiffe://td/%41", Err(PathCharacter { found: '%' }));
        check("spiffe://td/a?q", Err(PathCharacter { found: '?' }));
        check("spiffe://td/a#f", Err(PathCharacter { found: '#' }));
        check("spiffe://td/ä", Err(PathCharacter { found: 'ä' }));
    }

    #[test]
    fn lengths_end_where_the_standard_says() {
        let name = "a".repeat(TRUST_DOMAIN_BYTES_MAX);
        assert!(TrustDomain::parse(&name).is_ok());
        assert_eq!(TrustDomain::parse(&format!("{name}a")), Err(TrustDomainTooLong { length: 256 }));

        let longest = format!("spiffe://td/{}", "a".repeat(SPIFFE_ID_BYTES_MAX - 12));
        assert!(SpiffeId::parse(&longest).is_ok());
        check(&format!("{longest}a"), Err(TooLong { length: 2049 }));
    }

    #[test]
    fn own_names_read_back() {
        let domain = TrustDomain::parse("example.org").unwrap();
        let device = SpiffeId::device(&domain, &[0xab; 32]);
        assert_eq!(device.device_hex(), Some("ab".repeat(32).as_str()));
        assert_eq!(SpiffeId::parse(device.as_str()), Ok(device.clone()));
        assert!(!device.is_gateway() && !device.is_server());
        assert!(SpiffeId::server(&domain).is_server());
        assert!(SpiffeId::gateway(&domain, "edge-1").unwrap().is_gateway());
        assert!(SpiffeId::gateway(&domain, "a/b").is_err());
        assert!(SpiffeId::gateway(&domain, "").is_err());
        assert_eq!(domain.id().path(), "");
    }
}
