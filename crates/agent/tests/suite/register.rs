//! The register of tasks in a real TPM: what it holds, what the TPM says of it, and what becomes of it.

use assay_agent::tpm::RegisterStatement;
use assay_agent::tpm::keys::Keys;
use assay_evidence::task::log::{Entry, Log};
use assay_evidence::task::register::{Register, RegisterFault, verify_register};
use assay_evidence::tpm::public_area::PublicArea;

use crate::bench::Bench;

fn entry(number: u8) -> Entry {
    Entry { occasion: [number; 48], measurement: [1; 48], runtime: [2; 32], input: [3; 48] }
}

fn verified(
    statement: &RegisterStatement,
    keys: &Keys,
    nonce: &[u8],
) -> Result<Register, Vec<RegisterFault>> {
    verified_by(statement, keys.ak.area(), nonce)
}

fn verified_by(
    statement: &RegisterStatement,
    key: &PublicArea,
    nonce: &[u8],
) -> Result<Register, Vec<RegisterFault>> {
    let RegisterStatement { public, message, signature } = statement;
    let statement = assay_evidence::task::register::RegisterStatement { public, message, signature, nonce };
    verify_register(&statement, key)
}

#[test]
fn swtpm_the_register_holds_what_the_log_says_and_begins_anew_with_a_boot() {
    let mut bench = Bench::new();
    let tpm = bench.open();
    let keys = Keys::ephemeral(&tpm).unwrap();
    assert_eq!(tpm.register_value().unwrap(), [0; 32], "there was none, and nothing was extended");
    let mut log = Log::of_boot(tpm.read_clock().unwrap().reset_count);
    for number in [1, 2] {
        tpm.extend_register(&log.append(entry(number))).unwrap();
    }
    assert_eq!(tpm.register_value().unwrap(), log.end().value);
    let statement = tpm.certify_register(&keys.ak, &[9; 48]).unwrap();
    let register = verified(&statement, &keys, &[9; 48]).unwrap();
    assert_eq!(register.is_of(&log), Ok(()));

    // What is told of it in another way is found out.
    let faults = verified(&statement, &keys, &[8; 48]).unwrap_err();
    assert!(matches!(faults.as_slice(), [RegisterFault::Nonce { .. }]), "{faults:?}");
    let faults = verified_by(&statement, keys.device.area(), &[9; 48]).unwrap_err();
    assert!(matches!(faults.as_slice(), [RegisterFault::Signature { .. }]), "{faults:?}");
    let mut writable = statement.clone();
    writable.public[9] ^= 2;
    let faults = verified(&writable, &keys, &[9; 48]).unwrap_err();
    assert!(matches!(faults.as_slice(), [RegisterFault::Public(_), RegisterFault::Name]), "{faults:?}");
    let mut longer = log.clone();
    longer.append(entry(3));
    assert!(matches!(register.is_of(&longer), Err(RegisterFault::Replay { .. })));

    // Made anew in the same boot it is empty, and says so.
    tpm.renew_register().unwrap();
    assert_eq!(tpm.register_value().unwrap(), [0; 32]);
    tpm.extend_register(&Log::of_boot(log.reset_count()).append(entry(1))).unwrap();
    drop(keys);
    drop(tpm);

    // Nothing is left of it after a boot, and the log of the one before leads nowhere.
    bench.soft.reboot().unwrap();
    let tpm = bench.open();
    let keys = Keys::ephemeral(&tpm).unwrap();
    assert_eq!(tpm.register_value().unwrap(), [0; 32]);
    let mut next = Log::of_boot(tpm.read_clock().unwrap().reset_count);
    tpm.extend_register(&next.append(entry(1))).unwrap();
    let statement = tpm.certify_register(&keys.ak, &[9; 48]).unwrap();
    let register = verified(&statement, &keys, &[9; 48]).unwrap();
    assert_eq!(register.is_of(&next), Ok(()));
    let mut played_again = Log::of_boot(log.reset_count());
    played_again.append(entry(1));
    assert!(matches!(register.is_of(&played_again), Err(RegisterFault::Boot { .. })));
}
