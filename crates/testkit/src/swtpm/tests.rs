//! What others rely on: certificates, PCRs, several connections, and reboots that count.

use std::time::{Duration, Instant};

use super::{SoftTpm, TpmMaker};
use crate::Bank;

#[test]
fn swtpm_extends_resets_and_serves_several_connections() {
    let folder = tempfile::tempdir().unwrap();
    let maker = TpmMaker::new(&folder.path().join("maker")).unwrap();
    let banks = [Bank::Sha1, Bank::Sha256];
    let mut tpm = SoftTpm::start_with_banks(&maker, &folder.path().join("tpm"), &banks).unwrap();
    assert!(maker.root_ca().exists() && maker.issuing_ca().exists());

    let (mut one, mut two) = (tpm.connect().unwrap(), tpm.connect().unwrap());
    assert_eq!(one.active_banks().unwrap(), banks);
    let digests = [(Bank::Sha1, vec![1; 20]), (Bank::Sha256, vec![2; 32])];
    one.pcr_extend(10, &digests).unwrap();
    let expected = Bank::Sha256.extend(&[0; 32], &[2; 32]);
    assert_eq!(two.pcr_read(Bank::Sha256, 10).unwrap(), expected);

    tpm.reboot().unwrap();
    assert_eq!(two.pcr_read(Bank::Sha256, 10).unwrap(), vec![0; 32]);
    two.pcr_extend(10, &digests).unwrap();
    tpm.reset().unwrap();
    assert_eq!(one.pcr_read(Bank::Sha256, 10).unwrap(), vec![0; 32]);
}

#[test]
fn swtpm_keeps_its_keys_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let maker = TpmMaker::new(&folder.path().join("maker")).unwrap();
    let state = folder.path().join("tpm");
    drop(SoftTpm::start(&maker, &state).unwrap());
    assert!(!state.join("tpm.sock").exists());
    let tpm = SoftTpm::start(&maker, &state).unwrap();
    assert_eq!(tpm.connect().unwrap().active_banks().unwrap(), [Bank::Sha256]);
}

#[test]
fn swtpm_forgets_what_a_dead_program_left_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let maker = TpmMaker::new(&folder.path().join("maker")).unwrap();
    let tpm = SoftTpm::start(&maker, &folder.path().join("tpm")).unwrap();
    let mut connection = tpm.connect().unwrap();
    let handle = connection.command(0x8002, 0x131, &CREATE_PRIMARY).unwrap().get(..4).unwrap().to_vec();
    connection.read_public(&handle).unwrap();
    drop(connection);

    let deadline = Instant::now() + Duration::from_secs(5);
    while tpm.connect().unwrap().read_public(&handle).is_ok() {
        assert!(Instant::now() < deadline, "the key is still loaded");
    }
}

impl crate::Tpm {
    fn read_public(&mut self, handle: &[u8]) -> Result<Vec<u8>, crate::TpmError> {
        self.command(0x8001, 0x173, handle)
    }
}

/// TPM2_CreatePrimary of a P-256 signing key in the owner hierarchy, with an empty password.
const CREATE_PRIMARY: [u8; 55] = [
    0x40, 0, 0, 1, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 24, 0, 0x23, 0, 0x0b, 0, 4,
    0, 0x72, 0, 0, 0, 0x10, 0, 0x18, 0, 0x0b, 0, 3, 0, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];
