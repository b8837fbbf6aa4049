//! What a machine leaves behind replays to what its TPM holds, in every bank.

use std::fs;
use std::process::Command;

use super::{Machine, System};
use crate::pcrs::Pcrs;
use crate::{Bank, SoftTpm, TpmMaker};

#[test]
fn swtpm_holds_what_the_logs_say() {
    let folder = tempfile::tempdir().unwrap();
    let maker = TpmMaker::new(&folder.path().join("maker")).unwrap();
    let banks = [Bank::Sha1, Bank::Sha256, Bank::Sha384];
    let mut tpm = SoftTpm::start_with_banks(&maker, &folder.path().join("tpm"), &banks).unwrap();
    let logs = folder.path().join("logs");
    let system = System::default();

    let first = booted(&mut tpm, &system, &logs);
    tpm.reboot().unwrap();
    let second = booted(&mut tpm, &system, &logs);
    assert_eq!(first, second, "one system boots to the same values every time");

    let machine = Machine::open(tpm.socket(), &logs);
    machine.run_program("/opt/tool", b"unknown").unwrap();
    let grown = fs::read(machine.ima_log_path()).unwrap();
    machine.run_program("/opt/tool", b"unknown").unwrap();
    assert_eq!(fs::read(machine.ima_log_path()).unwrap(), grown, "an unchanged file is measured once");
    machine.run_program("/opt/tool", b"changed").unwrap();
    assert!(fs::read(machine.ima_log_path()).unwrap().len() > grown.len());
}

/// Boots and compares boot PCRs with the log, then returns PCR 0 to 15.
fn booted(tpm: &mut SoftTpm, system: &System, logs: &std::path::Path) -> Vec<Vec<u8>> {
    let machine = Machine::boot_system(system, tpm.socket(), logs).unwrap();
    let mut connection = tpm.connect().unwrap();
    let banks = connection.active_banks().unwrap();
    let boot = system.boot_log(&banks);
    assert_eq!(fs::read(machine.boot_log_path()).unwrap(), boot.bytes());
    let mut pcrs = Pcrs::new(&banks);
    boot.measurements().iter().for_each(|measurement| pcrs.extend(measurement));
    for bank in &banks {
        for pcr in (0..10).chain(11..24) {
            assert_eq!(connection.pcr_read(*bank, pcr).unwrap(), pcrs.value(*bank, pcr), "{bank:?} {pcr}");
        }
    }
    assert_eq!(fs::read_to_string(machine.ima_log_ascii_path()).unwrap().lines().count(), 17);
    (0..16).map(|pcr| connection.pcr_read(Bank::Sha256, pcr).unwrap()).collect()
}

#[test]
fn tpm2_tools_reads_and_replays_the_boot_log() {
    let banks = [Bank::Sha256, Bank::Sha384];
    let boot = System::default().boot_log(&banks);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), boot.bytes()).unwrap();
    let output = Command::new("tpm2_eventlog").arg(file.path()).output().expect("apt-get install tpm2-tools");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap().to_lowercase();
    let mut pcrs = Pcrs::new(&banks);
    boot.measurements().iter().for_each(|measurement| pcrs.extend(measurement));
    for bank in banks {
        for pcr in [0, 1, 2, 4, 5, 7, 8, 9, 14] {
            let value = data_encoding::HEXLOWER.encode(pcrs.value(bank, pcr));
            assert!(text.contains(&format!("{pcr:<2} : 0x{value}")), "{bank:?} {pcr}: {text}");
        }
    }
}
