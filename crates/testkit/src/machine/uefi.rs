//! Bytes as UEFI lays them out: GUIDs, variables, signature lists, device paths.

use std::sync::LazyLock;

use aws_lc_rs::signature::Ed25519KeyPair;
use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};
use rustls::pki_types::PrivatePkcs8KeyDer;

/// A GUID in the byte order UEFI stores it in.
#[derive(Clone, Copy)]
pub(crate) struct Guid([u8; 16]);

pub(crate) const GLOBAL_VARIABLE: Guid = guid(0x8be4df61, 0x93ca, 0x11d2, 0xaa0d_00e0_9803_2b8c);
pub(crate) const IMAGE_SECURITY: Guid = guid(0xd719b2cb, 0x3d3a, 0x4596, 0xa3bc_dad0_0e67_656f);
pub(crate) const SHIM: Guid = guid(0x605dab50, 0xe046, 0x4300, 0xabb6_3dd8_10dd_8b23);
const CERT_X509: Guid = guid(0xa5c059a1, 0x94e4, 0x4aa7, 0x87b5_ab15_5c2b_f072);
const CERT_SHA256: Guid = guid(0xc1c41626, 0x504c, 0x4092, 0xaca9_41f9_3693_4328);
/// The owner of all keys of the demo platform.
const OWNER: Guid = guid(0x5ba7f2c4, 0x1f0e, 0x4c33, 0x9d52_a55a_7e57_0001);

const fn guid(one: u32, two: u16, three: u16, rest: u64) -> Guid {
    let (one, two, three, rest) =
        (one.to_le_bytes(), two.to_le_bytes(), three.to_le_bytes(), rest.to_be_bytes());
    Guid([
        one[0], one[1], one[2], one[3], two[0], two[1], three[0], three[1], rest[0], rest[1], rest[2],
        rest[3], rest[4], rest[5], rest[6], rest[7],
    ])
}

/// UEFI_VARIABLE_DATA: how a variable stands in an event.
pub(crate) fn variable(vendor: Guid, name: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = vendor.0.to_vec();
    bytes.extend_from_slice(&(name.encode_utf16().count() as u64).to_le_bytes());
    bytes.extend_from_slice(&(data.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&utf16(name));
    bytes.extend_from_slice(data);
    bytes
}

/// EFI_SIGNATURE_LIST with one X.509 certificate.
pub(crate) fn certificate_list(certificate: &[u8]) -> Vec<u8> {
    signature_list(CERT_X509, &[signature_data(certificate)])
}

/// EFI_SIGNATURE_LIST of SHA-256 digests.
pub(crate) fn digest_list(digests: &[Vec<u8>]) -> Vec<u8> {
    let entries: Vec<_> = digests.iter().map(|digest| signature_data(digest)).collect();
    signature_list(CERT_SHA256, &entries)
}

/// EFI_SIGNATURE_DATA: one entry of a signature list, with its owner.
pub(crate) fn signature_data(signature: &[u8]) -> Vec<u8> {
    [OWNER.0.as_slice(), signature].concat()
}

fn signature_list(kind: Guid, entries: &[Vec<u8>]) -> Vec<u8> {
    let entry_size = entries.first().map_or(0, Vec::len);
    let size = SIGNATURE_LIST_HEADER + entries.len() * entry_size;
    let mut list = kind.0.to_vec();
    for word in [size, 0, entry_size] {
        list.extend_from_slice(&(word as u32).to_le_bytes());
    }
    list.extend(entries.iter().flatten());
    list
}

/// UEFI_IMAGE_LOAD_EVENT for a file of the boot partition.
pub(crate) fn image_load(path: &str, length: usize) -> Vec<u8> {
    let device_path = file_path(path);
    let mut event = Vec::new();
    for word in [IMAGE_ADDRESS, length as u64, 0, device_path.len() as u64] {
        event.extend_from_slice(&word.to_le_bytes());
    }
    event.extend_from_slice(&device_path);
    event
}

/// EFI_LOAD_OPTION: a boot option's text and what it starts.
pub(crate) fn load_option(description: &str, path: &str) -> Vec<u8> {
    let device_path = file_path(path);
    let mut option = LOAD_OPTION_ACTIVE.to_le_bytes().to_vec();
    option.extend_from_slice(&(device_path.len() as u16).to_le_bytes());
    option.extend_from_slice(&utf16(description));
    option.extend_from_slice(&[0, 0]);
    option.extend_from_slice(&device_path);
    option
}

/// A device path of one file node and the end.
fn file_path(path: &str) -> Vec<u8> {
    let mut name = utf16(path);
    name.extend_from_slice(&[0, 0]);
    let mut node = vec![0x04, 0x04];
    node.extend_from_slice(&(name.len() as u16 + 4).to_le_bytes());
    node.extend_from_slice(&name);
    node.extend_from_slice(&[0x7f, 0xff, 0x04, 0x00]);
    node
}

pub(crate) fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The CA that signs the platform's boot loaders: the same bytes on every machine, as in a fleet.
pub(crate) static PLATFORM_CA: LazyLock<Vec<u8>> = LazyLock::new(|| certificate("Example UEFI CA", 1));
/// The CA that signs the distribution's kernels.
pub(crate) static DISTRIBUTION_CA: LazyLock<Vec<u8>> =
    LazyLock::new(|| certificate("Example Distribution Secure Boot CA", 2));

/// Another vendor's CA, which firmware trusts as well: it signs what is not the distribution's.
pub(crate) static OTHER_CA: LazyLock<Vec<u8>> = LazyLock::new(|| certificate("Example Other UEFI CA", 3));
/// A certificate that the firmware no longer trusts.
pub(crate) static REVOKED_CA: LazyLock<Vec<u8>> = LazyLock::new(|| certificate("Example Revoked CA", 4));
/// A CA of whoever took the machine over.
pub(crate) static INTRUDER_CA: LazyLock<Vec<u8>> = LazyLock::new(|| certificate("Example Intruder CA", 4));

/// A self-signed certificate that depends on nothing but its arguments; Ed25519 signs without randomness.
fn certificate(name: &str, number: u8) -> Vec<u8> {
    let build = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[number; 32])?;
        let pkcs8 = PrivatePkcs8KeyDer::from(pair.to_pkcs8()?.as_ref().to_vec());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519)?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        // As long as real ones are: lengths of more than a byte are written otherwise.
        params.distinguished_name.push(DnType::OrganizationName, "Example Organisation for Machines");
        params.distinguished_name.push(DnType::OrganizationalUnitName, "Secure Boot");
        params.serial_number = Some(SerialNumber::from(vec![number]));
        Ok(params.self_signed(&key)?.der().to_vec())
    };
    build().expect("a fixed key and name make a certificate")
}

const SIGNATURE_LIST_HEADER: usize = 16 + 4 + 4 + 4;
const IMAGE_ADDRESS: u64 = 0x2ce0_0018;
const LOAD_OPTION_ACTIVE: u32 = 1;
