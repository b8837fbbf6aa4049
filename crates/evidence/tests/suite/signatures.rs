//! File signatures of every version and kind of key, made here by the standard's rules.

use assay_evidence::ima::{
    FileSignature, List, SignatureFault, SignatureForm, SigningKey, SigningKeys, Template, learned_keys,
    parse_ascii, parse_binary,
};
use assay_evidence::{Digest, HashAlgorithm};
use proptest::prelude::*;
use rcgen::{KeyPair, PublicKeyData, SigningKey as _};

use crate::files::vector;

/// One entry with a typed digest, a path and a signature attribute.
fn list(digest: &[u8], attribute: &[u8]) -> List {
    parse_binary(&entry("ima-sigv2", &[digest, b"/opt/tool\0", attribute])).unwrap()
}

/// An entry in the kernel's binary form.
pub fn entry(template: &str, fields: &[&[u8]]) -> Vec<u8> {
    let mut data = Vec::new();
    fields.iter().for_each(|field| with_length(&mut data, field));
    let mut entry = 10u32.to_le_bytes().to_vec();
    entry.extend(HashAlgorithm::Sha1.hash(&[&data]).as_bytes());
    with_length(&mut entry, template.as_bytes());
    with_length(&mut entry, &data);
    entry
}

fn with_length(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
    out.extend(bytes);
}

/// What `d-ngv2` holds.
fn typed(kind: &str, digest: &Digest) -> Vec<u8> {
    [format!("{kind}:{}:\0", digest.algorithm()).as_bytes(), digest.as_bytes()].concat()
}

/// `struct signature_v2_hdr` and the signature.
pub fn attribute(kind: u8, version: u8, key: &KeyPair, signature: &[u8]) -> Vec<u8> {
    let id = HashAlgorithm::Sha1.hash(&[key.der_bytes()]);
    let length = u16::try_from(signature.len()).unwrap().to_be_bytes();
    [&[kind, version, 4], id.as_bytes().last_chunk::<4>().unwrap().as_slice(), &length, signature].concat()
}

pub fn trusted(keys: &[&KeyPair]) -> SigningKeys {
    keys.iter()
        .map(|key| SigningKey::from_certificate_or_spki(&key.subject_public_key_info()).unwrap())
        .collect()
}

fn signer(keys: &SigningKeys, list: &List) -> Result<Digest, SignatureFault> {
    keys.signer(&list.entry(0).unwrap()).map(SigningKey::spki_sha256)
}

fn ecdsa() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

/// The kernel's `struct ima_file_id`, whose SHA-256 version 3 signs.
fn file_id(kind: u8, digest: &Digest) -> Vec<u8> {
    [&[kind, 4], digest.as_bytes()].concat()
}

const CONTENT: &[u8] = b"#!/bin/sh\n";

#[test]
fn version_3_signs_the_file_id() {
    let (key, digest) = (ecdsa(), HashAlgorithm::Sha256.hash(&[CONTENT]));
    let keys = trusted(&[&ecdsa(), &key]);
    let expected = HashAlgorithm::Sha256.hash(&[&key.subject_public_key_info()]);
    for (kind, measured) in [(3, "ima"), (6, "verity")] {
        let made = attribute(kind, 3, &key, &key.sign(&file_id(kind, &digest)).unwrap());
        assert_eq!(signer(&keys, &list(&typed(measured, &digest), &made)), Ok(expected));
        // The other kind of digest is not what was signed, were it the same bytes.
        let other = if kind == 3 { "verity" } else { "ima" };
        let fault = signer(&keys, &list(&typed(other, &digest), &made)).unwrap_err();
        assert!(matches!(fault, SignatureFault::OtherDigest { hash: HashAlgorithm::Sha256, .. }), "{fault}");
        // Nor does a header of the other kind make it one.
        let relabelled = attribute(9 - kind, 3, &key, &key.sign(&file_id(kind, &digest)).unwrap());
        let fault = signer(&keys, &list(&typed(other, &digest), &relabelled)).unwrap_err();
        assert!(matches!(fault, SignatureFault::Wrong(_)), "{fault}");
    }
}

#[test]
fn version_2_signs_the_content_alone() {
    let (key, digest) = (ecdsa(), HashAlgorithm::Sha256.hash(&[CONTENT]));
    let (keys, made) = (trusted(&[&key]), attribute(3, 2, &key, &key.sign(CONTENT).unwrap()));
    assert!(signer(&keys, &list(&typed("ima", &digest), &made)).is_ok());
    let fault = signer(&keys, &list(&typed("verity", &digest), &made)).unwrap_err();
    assert!(matches!(fault, SignatureFault::OtherDigest { form: SignatureForm::FileDigest, .. }));
}

#[test]
fn ed25519_signs_the_digest_as_its_message() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let (keys, digest) = (trusted(&[&key]), HashAlgorithm::Sha256.hash(&[CONTENT]));
    let made = attribute(3, 2, &key, &key.sign(digest.as_bytes()).unwrap());
    assert!(signer(&keys, &list(&typed("ima", &digest), &made)).is_ok());
    let id = HashAlgorithm::Sha256.hash(&[&file_id(6, &digest)]);
    let made = attribute(6, 3, &key, &key.sign(id.as_bytes()).unwrap());
    assert!(signer(&keys, &list(&typed("verity", &digest), &made)).is_ok());
    // A signature of the content itself is another message.
    let made = attribute(3, 2, &key, &key.sign(CONTENT).unwrap());
    assert!(matches!(signer(&keys, &list(&typed("ima", &digest), &made)), Err(SignatureFault::Wrong(_))));
}

#[test]
fn each_reason_is_told() {
    let (key, digest) = (ecdsa(), HashAlgorithm::Sha256.hash(&[CONTENT]));
    let keys = trusted(&[&key]);
    let good = attribute(3, 2, &key, &key.sign(CONTENT).unwrap());
    let check = |attribute: &[u8], expected: &str| {
        let fault = signer(&keys, &list(&typed("ima", &digest), attribute)).unwrap_err();
        assert!(fault.to_string().contains(expected), "{fault}");
    };
    let changed = |position: usize, value: u8| {
        let mut bytes = good.clone();
        *bytes.get_mut(position).unwrap() = value;
        bytes
    };
    check(&[], "no signature");
    check(&good[..9], "malformed");
    check(&[good.as_slice(), &[0]].concat(), "malformed");
    check(&changed(0, 4), "kind 4");
    check(&changed(0, 6), "version 2");
    check(&changed(1, 1), "version 1");
    check(&changed(2, 2), "algorithm 2");
    check(&changed(2, 6), "by sha512");
    check(&changed(3, good[3] ^ 1), "not among");
    check(&changed(good.len() - 1, good[good.len() - 1] ^ 1), "does not verify");
    let theirs = ecdsa();
    check(&attribute(3, 2, &key, &theirs.sign(CONTENT).unwrap()), "does not verify");
    check(&attribute(3, 2, &theirs, &theirs.sign(CONTENT).unwrap()), "not among");
}

#[test]
fn several_keys_are_told_apart() {
    let recorded = parse_binary(&vector("ima/ima-sig/binary_runtime_measurements")).unwrap();
    let certificate = SigningKey::from_certificate_or_spki(&vector("ima/ima-sig/signing-cert.pem")).unwrap();
    let mut keys = trusted(&[&ecdsa(), &ecdsa()]);
    assert!(recorded.iter().all(|entry| keys.signer(&entry).is_err()));
    keys.add(certificate);
    assert_eq!(recorded.iter().filter(|entry| keys.signer(entry).is_ok()).count(), 3);
}

#[test]
fn a_measured_key_is_learned_and_signs() {
    let list = parse_binary(&vector("ima/ima-sigv2/binary_runtime_measurements")).unwrap();
    assert_eq!(parse_ascii(&vector("ima/ima-sigv2/ascii_runtime_measurements")).unwrap(), list);
    let keys = learned_keys(&list);
    let [(2, key)] = keys.as_slice() else { panic!("{keys:?}") };
    assert_eq!(key.keyring(), b".ima");
    assert_eq!(Some(key.digest(HashAlgorithm::Sha256)), list.entry(2).unwrap().file_digest());
    let keys: SigningKeys = [key.signing_key().unwrap()].into_iter().collect();
    let signed: Vec<bool> = list.iter().map(|entry| keys.signer(&entry).is_ok()).collect();
    assert_eq!(signed, [false, true, false, true, true, true, false]);
}

#[test]
fn only_certificates_that_the_kernel_measured_are_keys() {
    let list = parse_binary(&vector("ima/ima-sigv2/binary_runtime_measurements")).unwrap();
    let certificate = list.entry(2).unwrap().buffer();
    let digest = HashAlgorithm::Sha256.hash(&[certificate]);
    let check = |digest: &Digest, buffer: &[u8], expected: usize| {
        let fields: [&[u8]; 3] = [&[b"sha256:\0", digest.as_bytes()].concat(), b".ima\0", buffer];
        let mut bytes = entry("ima-buf", &fields);
        assert_eq!(learned_keys(&parse_binary(&bytes).unwrap()).len(), expected);
        // The kernel vouches for nothing in a violation.
        bytes.get_mut(4..24).unwrap().fill(0);
        assert_eq!(learned_keys(&parse_binary(&bytes).unwrap()), []);
    };
    check(&digest, certificate, 1);
    check(&HashAlgorithm::Sha256.hash(&[b"another"]), certificate, 0);
    check(&HashAlgorithm::Sha256.hash(&[b"6.1.0"]), b"6.1.0", 0);
    let cut = &certificate[..certificate.len() - 1];
    check(&HashAlgorithm::Sha256.hash(&[cut]), cut, 0);
    // Critical data is measured in the same template and is no key: a recorded kernel's has its version alone.
    let recorded = parse_binary(&vector("ima/ima-buf/binary_runtime_measurements")).unwrap();
    let buffers: Vec<_> = recorded.iter().filter(|entry| entry.template() == Template::ImaBuf).collect();
    assert_eq!(buffers.iter().map(|entry| entry.path()).collect::<Vec<_>>(), [b"kernel_version"]);
    assert_eq!(learned_keys(&recorded), []);
}

proptest! {
    #[test]
    fn no_buffer_makes_a_panic(mut buffer in proptest::collection::vec(any::<u8>(), 2..300), at in 0usize..401, to: u8) {
        buffer.splice(..2, [0x30, 0x82]);
        let recorded = parse_binary(&vector("ima/ima-sigv2/binary_runtime_measurements")).unwrap();
        let mut certificate = recorded.entry(2).unwrap().buffer().to_vec();
        certificate[at] = to;
        for bytes in [buffer, certificate] {
            let digest = HashAlgorithm::Sha256.hash(&[&bytes]);
            let fields: [&[u8]; 3] = [&[b"sha256:\0", digest.as_bytes()].concat(), b".ima\0", &bytes];
            let _ = learned_keys(&parse_binary(&entry("ima-buf", &fields)).unwrap());
        }
    }


    #[test]
    fn no_attribute_makes_a_panic(
        header in proptest::collection::vec(0u8..7, 0..4),
        rest in proptest::collection::vec(any::<u8>(), 0..100),
    ) {
        let attribute = [header, rest].concat();
        let _ = FileSignature::read(&attribute);
        let digest = HashAlgorithm::Sha256.hash(&[CONTENT]);
        prop_assert!(SigningKeys::default().signer(&list(&typed("ima", &digest), &attribute).entry(0).unwrap()).is_err());
    }
}
