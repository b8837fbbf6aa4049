//! `assay telemetry verify`: a batch in a folder holds, or it does not.

use std::path::Path;

use assay_testkit::{EkMaker, SoftwareDevice};
use data_encoding::BASE64;

use crate::verbs::{assay, text};

fn pem(spki: &[u8]) -> String {
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", BASE64.encode(spki))
}

/// A batch of a device, as `export` writes it.
fn batch(folder: &Path) -> SoftwareDevice {
    let mut device = SoftwareDevice::new("press-1", &EkMaker::new().unwrap()).unwrap();
    device.device_id = Some(format!("spiffe://example.org/spire/agent/tpm/{}", "a".repeat(64)));
    let statement = device.statement(b"payload", None);
    let request = device.submit(&statement, b"payload").unwrap();
    std::fs::write(folder.join("statement.pb"), request.statement).unwrap();
    std::fs::write(folder.join("signature.der"), request.signature).unwrap();
    std::fs::write(folder.join("payload"), request.payload).unwrap();
    std::fs::write(folder.join("device-key.pem"), pem(&device.device_key.spki())).unwrap();
    device
}

#[test]
fn a_batch_in_a_folder_holds_until_a_byte_of_it_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let device = batch(folder.path());
    let verify = |more: &[&str], exit: i32| {
        let output = assay(&[&["telemetry", "verify", "."], more].concat(), folder.path());
        let said = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(exit), "{said}");
        said
    };
    let said = verify(&[], 0);
    assert!(said.contains(device.device_id.as_deref().unwrap()), "{said}");
    assert!(verify(&["--json"], 0).contains("\"sequence\": 1"));
    std::fs::write(folder.path().join("payload"), "Payload").unwrap();
    assert!(verify(&[], 1).contains("payload is not the one"));
    std::fs::write(folder.path().join("payload"), "payload").unwrap();
    let other = SoftwareDevice::new("press-2", &EkMaker::new().unwrap()).unwrap();
    std::fs::write(folder.path().join("other.pem"), pem(&other.device_key.spki())).unwrap();
    assert!(verify(&["--key", "other.pem"], 1).contains("not the device key's"));
    std::fs::write(folder.path().join("other.pem"), "no key").unwrap();
    assert!(verify(&["--key", "other.pem"], 2).contains("no public key in PEM"));
    std::fs::remove_file(folder.path().join("signature.der")).unwrap();
    assert!(verify(&[], 2).contains("signature.der"));
}
