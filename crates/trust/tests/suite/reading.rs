//! Evidence read aloud: a real boot, and what a policy says of each part of it.

use assay_evidence::HashAlgorithm;
use assay_trust::policy::Cover;
use assay_trust::reading::{QuotedPcr, Reading, Stage, Standing, ToldBy, What, read_aloud};
use assay_trust::{CompiledPolicy, Policy};

use crate::{claims, learned};

fn read(policy: Option<Policy>) -> Reading {
    let policy = policy.map(|policy| CompiledPolicy::new(policy).unwrap());
    read_aloud(&claims("sb-good-1"), policy.as_ref())
}

fn stages(reading: &Reading, what: What) -> Vec<&Stage> {
    reading.stages.iter().filter(|stage| stage.what == what).collect()
}

fn pcr(reading: &Reading, index: u8) -> &QuotedPcr {
    reading.pcrs.iter().find(|pcr| pcr.index.get() == index).unwrap()
}

#[test]
fn a_boot_is_told_from_the_firmware_to_what_ran() {
    let reading = read(Some(learned()));
    let order: Vec<What> = reading.stages.iter().map(|stage| stage.what).collect();
    assert_eq!(order.first(), Some(&What::Firmware));
    assert_eq!(order.last(), Some(&What::Files));
    assert!(order.is_sorted(), "{order:?}");
    let secure_boot = stages(&reading, What::SecureBoot);
    assert_eq!(secure_boot[0].name, "on");
    assert!(secure_boot[0].details.iter().any(|detail| detail.starts_with("SBAT level sbat,1,")));
    let loaders = stages(&reading, What::BootLoader);
    assert!(loaders[0].name.ends_with(r"\EFI\BOOT\BOOTX64.EFI"), "{}", loaders[0].name);
    assert!(loaders[0].details[0].contains("Microsoft Corporation UEFI CA 2011 (db)"));
    assert_eq!(loaders[1].details, ["trusted by CN=Debian Secure Boot CA (MokListRT)"]);
    let kernel = stages(&reading, What::Kernel);
    assert!(kernel.iter().any(|stage| stage.details == ["its loader calls it 6.1.0-55-amd64"]));
    assert!(stages(&reading, What::CommandLine)[0].name.starts_with("/vmlinuz-6.1.0-55-amd64 root="));
    // What was learned of this boot covers all that started.
    for stage in &reading.stages {
        assert!(!stage.covered.is_empty(), "{stage:?}");
        assert!(stage.covered.iter().all(|covered| covered.cover > Cover::Open), "{stage:?}");
    }
}

#[test]
fn each_pcr_says_what_tells_it_and_which_lines_are_about_it() {
    let reading = read(Some(learned()));
    let told: Vec<ToldBy> = [4, 7, 10, 11, 14].map(|index| pcr(&reading, index).told_by).into();
    assert_eq!(told, [ToldBy::BootLog, ToldBy::BootLog, ToldBy::ImaList, ToldBy::Nothing, ToldBy::BootLog]);
    let lines = |reading: &Reading, index| {
        let lines = pcr(reading, index).lines.iter();
        lines.map(|line| (line.line.clone(), line.holds)).collect::<Vec<_>>()
    };
    let line = |line: &str, holds| (line.to_owned(), holds);
    assert_eq!(lines(&reading, 7), [line("pcr.sha256.7", Some(true)), line("boot.secure_boot", None)]);
    assert_eq!(lines(&reading, 10), [line("ima", None)]);
    assert!(pcr(&reading, 7).events > 5);

    let mut other = learned();
    let four = pcr(&reading, 4).index;
    other.pcr = Default::default();
    other.allow_pcr(four, HashAlgorithm::Sha256.hash(&[b"another kernel"]));
    let reading = read(Some(other));
    assert_eq!(lines(&reading, 4), [line("pcr.sha256.4", Some(false))]);
    assert_eq!(lines(&reading, 14), []);
    let open = stages(&reading, What::MachineOwnerKeys);
    assert_eq!(open[0].covered[0].cover, Cover::Open);
}

#[test]
fn every_measured_file_has_its_standing() {
    let files = read(Some(learned())).files.unwrap();
    assert_eq!(files.by_standing, [(Standing::Listed, 108), (Standing::BootAggregate, 1)]);
    assert_eq!((files.attested, files.undecided), (109, 0));
    assert_eq!(files.latest[0].path, "/usr/bin/sleep");
    assert!(files.latest.len() < 109);

    let mut fewer = learned();
    fewer.ima.as_mut().unwrap().allow.remove("/usr/bin/sleep");
    let files = read(Some(fewer)).files.unwrap();
    assert_eq!(files.latest[0].standing, Some(Standing::Refused));
    assert_eq!(files.by_standing.last(), Some(&(Standing::Refused, 1)));
}

#[test]
fn without_a_policy_nothing_is_covered_and_all_is_told() {
    let reading = read(None);
    assert!(reading.stages.iter().all(|stage| stage.covered.is_empty()));
    assert!(reading.pcrs.iter().all(|pcr| pcr.lines.is_empty()));
    let files = reading.files.unwrap();
    assert!(files.by_standing.is_empty() && files.latest.iter().all(|file| file.standing.is_none()));
}
