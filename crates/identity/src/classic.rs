//! Certificates as programs of old know them: an RSA root of ten years, and below it a node's for a year, named by its number.
//!
//! The root is none of the trust domain's authorities: nothing of it verifies as an X.509-SVID, and it may sign no other CA. Serial
//! numbers have 20 bytes, those of SVIDs 16, so that a number says whose list it belongs on.

use rcgen::{
    BasicConstraints, CertificateParams, CrlDistributionPoint, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType,
};
use rustls_pki_types::UnixTime;
use thiserror::Error;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::authority::{IssueError, Issuer, dates, parse_authority};
use crate::key::PrivateKey;
use crate::serial::Serial;
use crate::signature;
use crate::signed_message::NodeId;
use crate::spiffe_id::SpiffeId;
use crate::x509_svid::unix_time;

/// What a node's certificate is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTemplate {
    /// Its number, by which it is named.
    pub node: NodeId,
    /// Whose it is.
    pub spiffe_id: SpiffeId,
    /// The node's key, SubjectPublicKeyInfo DER.
    pub spki: Vec<u8>,
    /// The serial number; see [`Serial::classic`].
    pub serial: Serial,
    /// Start of its life.
    pub not_before: UnixTime,
    /// End of its life.
    pub not_after: UnixTime,
    /// Where the list is that may withdraw it.
    pub crl_url: Option<String>,
}

/// A node's certificate that was signed and found to say what its template says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedNode(Vec<u8>);

impl IssuedNode {
    /// The certificate, DER.
    pub fn der(&self) -> &[u8] {
        &self.0
    }
}

/// How a signed certificate differs from its template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NodeError {
    /// It could not be signed.
    #[error("the certificate could not be signed")]
    Signing,
    /// It does not parse, or its issuer's does not.
    #[error("not an X.509 v3 certificate below a signing certificate")]
    Malformed,
    /// Its signature is not the root's.
    #[error("the signature is not the root's")]
    Signature,
    /// Another key, serial number, date or name.
    #[error("the {0} differs")]
    Differs(&'static str),
}

/// Signs a root with its own key.
pub fn sign_root(
    serial: &Serial,
    not_before: UnixTime,
    not_after: UnixTime,
    key: &PrivateKey,
) -> Result<Vec<u8>, IssueError> {
    let mut parameters = parameters(serial, not_before, not_after)?;
    parameters.distinguished_name = subject(&[
        (DnType::CountryName, "US"),
        (DnType::StateOrProvinceName, "CA"),
        (DnType::LocalityName, "San Francisco"),
        (DnType::OrganizationName, "Sovereign Map"),
        (DnType::CommonName, "Sovereign Map Root CA"),
    ]);
    // It signs nodes, and no CA.
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let certificate = parameters.self_signed(&key.0).map_err(IssueError::Signing)?;
    Ok(certificate.der().to_vec())
}

/// Signs a node's certificate, then looks at what was signed.
pub fn issue(template: &NodeTemplate, root: &Issuer) -> Result<IssuedNode, NodeError> {
    let signed = sign(template, root).map_err(|_| NodeError::Signing)?;
    inspect(&signed, template, root.certificate())?;
    Ok(IssuedNode(signed))
}

fn sign(template: &NodeTemplate, root: &Issuer) -> Result<Vec<u8>, IssueError> {
    let public = rcgen::SubjectPublicKeyInfo::from_der(&template.spki).map_err(|_| IssueError::PublicKey)?;
    let mut parameters = parameters(&template.serial, template.not_before, template.not_after)?;
    parameters.distinguished_name = subject(&[
        (DnType::CountryName, "US"),
        (DnType::StateOrProvinceName, "CA"),
        (DnType::OrganizationName, "Sovereign Map"),
        (DnType::OrganizationalUnitName, "Node"),
        (DnType::CommonName, &name(template.node)),
    ]);
    let uri = template.spiffe_id.as_str().try_into().map_err(IssueError::Signing)?;
    parameters.subject_alt_names = vec![SanType::URI(uri)];
    for dns in dns_names(template.node) {
        let dns = dns.as_str().try_into().map_err(IssueError::Signing)?;
        parameters.subject_alt_names.push(SanType::DnsName(dns));
    }
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::ContentCommitment,
        KeyUsagePurpose::KeyEncipherment,
    ];
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    parameters.crl_distribution_points =
        template.crl_url.iter().map(|url| CrlDistributionPoint { uris: vec![url.clone()] }).collect();
    let signed = parameters.signed_by(&public, &root.signer).map_err(IssueError::Signing)?;
    Ok(signed.der().to_vec())
}

fn parameters(
    serial: &Serial,
    not_before: UnixTime,
    not_after: UnixTime,
) -> Result<CertificateParams, IssueError> {
    let mut parameters = CertificateParams::default();
    (parameters.not_before, parameters.not_after) = dates(not_before, not_after)?;
    parameters.serial_number = Some(serial.as_bytes().to_vec().into());
    Ok(parameters)
}

fn subject(parts: &[(DnType, &str)]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for (kind, value) in parts {
        name.push(kind.clone(), *value);
    }
    name
}

fn name(node: NodeId) -> String {
    format!("node-{node}")
}

fn dns_names(node: NodeId) -> [String; 2] {
    [name(node), format!("{}.sovereign-network", name(node))]
}

/// With code that shares nothing with the code that signed it.
fn inspect(der: &[u8], template: &NodeTemplate, root: &[u8]) -> Result<(), NodeError> {
    let root = parse_authority(root).ok_or(NodeError::Malformed)?;
    let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| NodeError::Malformed)?;
    if !rest.is_empty() || certificate.issuer().as_raw() != root.subject().as_raw() {
        return Err(NodeError::Malformed);
    }
    if !signature::verifies(root.public_key().raw, der) {
        return Err(NodeError::Signature);
    }
    let validity = certificate.validity();
    let dates = unix_time(validity.not_before) == template.not_before
        && unix_time(validity.not_after) == template.not_after
        && validity.not_after <= root.validity().not_after;
    let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let is_leaf =
        certificate.basic_constraints().ok().flatten().is_none_or(|constraints| !constraints.value.ca);
    for (holds, what) in [
        (Serial::from_integer(certificate.raw_serial()).as_ref() == Some(&template.serial), "serial number"),
        (certificate.public_key().raw == template.spki, "key"),
        (dates, "life"),
        (common_name == Some(name(template.node).as_str()), "subject"),
        (names(&certificate) == expected_names(template), "name"),
        (is_leaf, "basic constraint"),
    ] {
        if !holds {
            return Err(NodeError::Differs(what));
        }
    }
    Ok(())
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let extension =
        certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(names),
            _ => None,
        });
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => format!("URI:{uri}"),
        GeneralName::DNSName(name) => format!("DNS:{name}"),
        other => format!("{other:?}"),
    };
    extension.into_iter().flat_map(|names| names.general_names.iter().map(name)).collect()
}

fn expected_names(template: &NodeTemplate) -> Vec<String> {
    let uri = format!("URI:{}", template.spiffe_id);
    std::iter::once(uri).chain(dns_names(template.node).map(|name| format!("DNS:{name}"))).collect()
}
