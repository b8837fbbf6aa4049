//! The folder's keys and certificates, held against each other.

use assay_evidence::tpm::ek_certificate::{EkCertificate, TrustAnchor, verify_ek_certificate};
use assay_evidence::tpm::endorsement::Endorsement;
use assay_evidence::tpm::name::Name;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::{Check, Failure, HashAlgorithm};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, SubjectPublicKeyInfoDer};

use super::{Case, EK_CERTIFICATE, Expected, Key, from_hex};

impl Case {
    /// Checks the AKs' other files, the EK and the EK certificates; answers who vouches for the EK.
    pub(super) fn verify_keys(
        &self,
        expected: &Expected,
        failures: &mut Vec<Failure>,
    ) -> Option<Endorsement> {
        for key in std::iter::once(&self.ak).chain(&self.ak_ecc) {
            check_key_files(key, failures);
        }
        let ek = self.endorsement_key(failures);
        let mut vouching = None;
        for (file, certificate) in &self.ek_certificates {
            match self.verify_certificate(certificate, expected) {
                Ok(verified) if *file == EK_CERTIFICATE => vouching = Some(verified),
                Ok(_) => {}
                Err(found) => failures.extend(found.into_iter().map(|failure| named(failure, file))),
            }
        }
        if let Some(certificate) = &vouching {
            failures.extend(ek.as_ref().and_then(|ek| certificate.matches(ek)));
            let pem = self.ek_pem.as_deref();
            failures.extend(
                pem.and_then(|pem| pem_mismatch(Check::EkCertificateKey, "ek.pem", pem, certificate.spki())),
            );
        }
        let uncertified = || ek.map(|ek| Endorsement::without_certificate(&ek, Vec::new()));
        vouching.map(Endorsement::from).or_else(uncertified)
    }

    fn endorsement_key(&self, failures: &mut Vec<Failure>) -> Option<PublicArea> {
        match PublicArea::parse_tpm2b(self.ek_public.as_deref()?) {
            Ok(ek) => {
                failures.extend(ek.check_ek());
                Some(ek)
            }
            Err(error) => {
                failures.push(Failure::new(
                    Check::EkPublic,
                    "ek.tpm2b_public",
                    "a TPM2B_PUBLIC",
                    error.to_string(),
                ));
                None
            }
        }
    }

    /// The folder's authorities are anchors unless others are given; then they are intermediates at most.
    fn verify_certificate(
        &self,
        certificate: &[u8],
        expected: &Expected,
    ) -> Result<EkCertificate, Vec<Failure>> {
        let intermediates: Vec<CertificateDer<'_>> = self
            .authorities
            .iter()
            .flat_map(|(_, pem)| {
                CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_PER_FILE_MAX).filter_map(Result::ok)
            })
            .collect();
        let intermediates: Vec<&[u8]> = intermediates.iter().map(AsRef::as_ref).collect();
        let folders = || {
            self.authorities
                .iter()
                .filter_map(|(_, pem)| TrustAnchor::from_pem_or_der(pem).ok())
                .flatten()
                .collect()
        };
        let endorsers = match expected.endorsers.is_empty() {
            true => expected.endorsers.with_anchors(folders()),
            false => expected.endorsers.clone(),
        };
        verify_ek_certificate(certificate, &intermediates, &endorsers, expected.at)
    }
}

/// The PEM and the Name are other accounts of the public area.
fn check_key_files(key: &Key, failures: &mut Vec<Failure>) {
    // That it does not parse is reported by verification.
    let Ok(public_area) = PublicArea::parse_tpm2b(&key.public) else { return };
    let file = |extension| format!("{}.{extension}", key.label);
    if let Some(pem) = &key.pem {
        failures.extend(pem_mismatch(Check::AkPublic, &file("pem"), pem, &public_area.spki_der()));
    }
    if let Some(bytes) = &key.name {
        let name = public_area.name();
        // tpm2-tools write it as bytes, people as hex.
        if Name::from_bytes(bytes).as_ref() != Some(&name)
            && from_hex(bytes).as_deref() != Some(name.as_bytes())
        {
            let found =
                Name::from_bytes(bytes).map_or_else(|| "no TPM name".to_owned(), |name| name.to_hex());
            failures.push(Failure::new(Check::AkName, file("name"), name.to_hex(), found));
        }
    }
}

fn pem_mismatch(check: Check, file: &str, pem: &[u8], spki: &[u8]) -> Option<Failure> {
    let fingerprint = |spki: &[u8]| format!("the key {}", HashAlgorithm::Sha256.hash(&[spki]));
    let found = match SubjectPublicKeyInfoDer::from_pem_slice(pem) {
        Ok(found) if found.as_ref() == spki => return None,
        Ok(found) => fingerprint(found.as_ref()),
        Err(_) => "no public key in PEM".to_owned(),
    };
    Some(Failure::new(check, file, fingerprint(spki), found))
}

/// Says which of the certificates a failure is about.
fn named(failure: Failure, file: &str) -> Failure {
    Failure { claim: format!("{file}: {}", failure.claim), ..failure }
}

/// An authority's file holds one certificate, seldom a chain.
const CERTIFICATES_PER_FILE_MAX: usize = 16;
