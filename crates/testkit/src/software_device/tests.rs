//! The device against an independent credential maker is for the system tests; here: it is what it says.

use std::process::Command;

use super::*;
use crate::edge::protocol::PcrSelection;
use crate::tamper;

fn challenge(first: u64) -> Challenge {
    Challenge {
        nonce: vec![7; 32],
        expires_in_seconds: 10,
        selection: vec![PcrSelection { bank: "sha256".into(), pcrs: (0..=10).collect() }],
        boot_log_wanted: true,
        ima_from_entry: first,
        stream: Vec::new(),
        banks_wanted: true,
        watched: Vec::new(),
        time_seconds: 0,
    }
}

#[test]
fn every_lie_differs_from_the_truth() {
    let maker = EkMaker::new().unwrap();
    let mut device = SoftwareDevice::new("liar", &maker).unwrap();
    for lie in lie::Lie::ALL {
        // Signatures are random, so only what they are over can be compared.
        let unsigned = |evidence: Evidence| {
            let quote = evidence.quote.unwrap_or_default();
            let [magic_to_nonce, clock_to_end] = [0..75, 83..quote.message.len()];
            let parts =
                [magic_to_nonce, clock_to_end].map(|part| quote.message.get(part).map(<[u8]>::to_vec));
            let stated = evidence.banks.map(|banks| {
                let stated = banks.message.get(..75).map(<[u8]>::to_vec);
                (banks.capability, stated, banks.message.get(83..).map(<[u8]>::to_vec))
            });
            (parts, quote.pcrs, evidence.boot_log, evidence.ima_log, stated)
        };
        let told = lie.tell(&mut device, &challenge(0)).unwrap();
        let honest = device.evidence(&challenge(0)).unwrap();
        if !matches!(lie, lie::Lie::SignatureAltered | lie::Lie::OtherKey | lie::Lie::BanksByOtherKey) {
            assert_ne!(unsigned(told), unsigned(honest), "{lie:?}");
        }
    }
}

#[test]
fn the_ima_list_is_told_from_the_entry_asked_for() {
    let maker = EkMaker::new().unwrap();
    let mut device = SoftwareDevice::new("device", &maker).unwrap();
    let all = device.evidence(&challenge(0)).unwrap();
    let rest = device.evidence(&challenge(5)).unwrap();
    let entries = tamper::ima_entries(&all.ima_log);
    assert_eq!(entries.len(), device.ima.entries().len());
    assert_eq!(rest.ima_log, all.ima_log.get(entries[5].start..).unwrap());
}

#[test]
fn a_credential_of_tpm2_tools_opens() {
    for kind in [EkKind::Rsa2048, EkKind::P256] {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let (ek, ak) =
            (EndorsementKey::generate(kind).unwrap(), TpmKey::generate(key::ATTESTATION_KEY).unwrap());
        std::fs::write(at("ek.pub"), ek.public_area()).unwrap();
        std::fs::write(at("secret"), b"thirty-two bytes of a secret now").unwrap();
        let output = Command::new("tpm2_makecredential")
            .args(["--tcti", "none", "--name", &data_encoding::HEXLOWER.encode(&ak.name())])
            .arg("--public")
            .arg(at("ek.pub"))
            .arg("--secret")
            .arg(at("secret"))
            .arg("--credential-blob")
            .arg(at("credential"))
            .output()
            .expect("apt-get install tpm2-tools");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

        // The tool's file: a magic, a version, the TPM2B_ID_OBJECT, the TPM2B_ENCRYPTED_SECRET.
        let file = std::fs::read(at("credential")).unwrap();
        let blob_size = 2 + usize::from(u16::from_be_bytes([file[8], file[9]]));
        let (blob, seed) = file[8..].split_at(blob_size);
        assert_eq!(ek.activate(&ak.name(), blob, seed).unwrap(), b"thirty-two bytes of a secret now");
        let other = TpmKey::generate(key::ATTESTATION_KEY).unwrap();
        ek.activate(&other.name(), blob, seed).unwrap_err();
    }
}

#[test]
fn openssl_accepts_the_ek_certificates() {
    let maker = EkMaker::new().unwrap();
    for kind in [EkKind::Rsa2048, EkKind::P256] {
        let ek = EndorsementKey::generate(kind).unwrap();
        let device = SoftwareDevice::with_ek("device", &maker, ek).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let pem = |der: &[u8]| {
            let body = data_encoding::BASE64.encode(der);
            format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
        };
        std::fs::write(at("root"), maker.root_ca_pem()).unwrap();
        std::fs::write(at("issuing"), pem(maker.issuing_ca())).unwrap();
        std::fs::write(at("ek"), pem(&device.ek_certificate)).unwrap();
        let output = Command::new("openssl")
            .args(["verify", "-ignore_critical", "-CAfile"])
            .args([at("root"), "-untrusted".into(), at("issuing"), at("ek")])
            .output()
            .expect("apt-get install openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
