//! Secrets by their names: which there are for a caller, and what is in them.

use assay_identity::bundle::{pem, pem_certificates};
use assay_identity::{Bundle, TrustDomain};
use assay_wire::envoy::{
    CertificateValidationContext, DataSource, Secret, TlsCertificate, data_source::Specifier, secret::Type,
};
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use prost::Message;
use prost_types::Any;

use crate::holding::{Foreign, Holding, Workload};

/// What there is for one caller now.
pub(super) struct Secrets<'a> {
    pub(super) holding: &'a Holding,
    /// The workloads that are the caller's.
    pub(super) mine: &'a [usize],
    pub(super) trust_domain: &'a TrustDomain,
}

/// What comes of a name.
pub(super) enum Named {
    /// It.
    Is(Secret),
    /// There will be something in a moment.
    NotYet,
    /// The caller has nothing of that name.
    Nothing,
}

impl Secrets<'_> {
    /// The secret of a name.
    pub(super) fn named(&self, name: &str) -> Named {
        let own = self.trust_domain.id();
        if ALL_ROOTS.contains(&name) || name == own.as_str() {
            return self.validation_context(name);
        }
        let mut others = self.holding.foreign_of(self.mine);
        if let Some(other) = others.find(|foreign| foreign.trust_domain.id().as_str() == name) {
            return foreign_context(name, other);
        }
        let mut mine = self.workloads();
        let workload = match name {
            DEFAULT => mine.next(),
            id => mine.find(|workload| workload.entry.spiffe_id == id),
        };
        workload.map_or(Named::Nothing, |workload| certificate(name, workload))
    }

    /// The names of everything there is: an empty request asks for it.
    pub(super) fn names(&self) -> Vec<String> {
        let identities = self.workloads().map(|workload| workload.entry.spiffe_id.clone());
        let mut names: Vec<String> = identities.collect();
        names.push(self.trust_domain.id().to_string());
        let others = self.holding.foreign_of(self.mine);
        names.extend(others.map(|foreign| foreign.trust_domain.id().to_string()));
        names.sort();
        names.dedup();
        names
    }

    fn workloads(&self) -> impl Iterator<Item = &Workload> {
        self.mine.iter().filter_map(|index| self.holding.workloads.get(*index))
    }

    fn validation_context(&self, name: &str) -> Named {
        let Holding { bundle, crl, .. } = self.holding;
        // Without a list everybody who was ever revoked would be believed.
        let bundle = Bundle::from_der(self.trust_domain.clone(), bundle).ok();
        let Some(bundle) = bundle.filter(|bundle| !crl.is_empty() && bundle.authorities().next().is_some())
        else {
            return Named::NotYet;
        };
        let context = CertificateValidationContext {
            trusted_ca: Some(inline(bundle.to_pem())),
            crl: Some(inline(pem("X509 CRL", crl))),
            // The list is the issuing authority's, of leaves; for each authority above there would have to be another.
            only_verify_leaf_cert_crl: true,
        };
        Named::Is(Secret { name: name.to_owned(), r#type: Some(Type::ValidationContext(context)) })
    }
}

/// Of another trust domain there is no revocation list: no standard says where one is. Whoever is believed so is believed until
/// their certificate ends.
fn foreign_context(name: &str, foreign: &Foreign) -> Named {
    let bundle = Bundle::from_der(foreign.trust_domain.clone(), &foreign.bundle).ok();
    let Some(bundle) = bundle.filter(|bundle| bundle.authorities().next().is_some()) else {
        // A context without authorities would have a proxy believe anybody.
        return Named::NotYet;
    };
    let trusted_ca = Some(inline(bundle.to_pem()));
    let context = CertificateValidationContext { trusted_ca, crl: None, only_verify_leaf_cert_crl: false };
    Named::Is(Secret { name: name.to_owned(), r#type: Some(Type::ValidationContext(context)) })
}

fn certificate(name: &str, workload: &Workload) -> Named {
    let Some(svid) = &workload.svid else { return Named::NotYet };
    let certificate = TlsCertificate {
        certificate_chain: Some(inline(pem_certificates(&svid.chain))),
        private_key: Some(inline(pem("PRIVATE KEY", &svid.key))),
    };
    Named::Is(Secret { name: name.to_owned(), r#type: Some(Type::TlsCertificate(certificate)) })
}

/// A secret as a resource.
pub(super) fn resource(secret: &Secret) -> Any {
    Any { type_url: TYPE_URL.to_owned(), value: secret.encode_to_vec() }
}

/// Tells one state of a secret from another, by what everybody may know of it.
pub(super) fn version(secret: &Secret) -> String {
    let public = match &secret.r#type {
        Some(Type::TlsCertificate(certificate)) => {
            TlsCertificate { private_key: None, ..certificate.clone() }.encode_to_vec()
        }
        Some(Type::ValidationContext(context)) => context.encode_to_vec(),
        None => Vec::new(),
    };
    let hash = digest(&SHA256, &public);
    HEXLOWER.encode(hash.as_ref().get(..VERSION_BYTES).unwrap_or_default())
}

fn inline(text: String) -> DataSource {
    DataSource { specifier: Some(Specifier::InlineBytes(text.into_bytes())) }
}

/// What everything is that this service serves.
pub(super) const TYPE_URL: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
/// The caller's first identity.
const DEFAULT: &str = "default";
/// SPIRE's names of the own authorities, and of all. Those of others are by their names alone: put together, each could name
/// the other's workloads.
const ALL_ROOTS: [&str; 2] = ["ROOTCA", "ALL"];
const VERSION_BYTES: usize = 8;
