//! Each check has cases that fail for that reason alone: the table below, by name.

mod told;

use std::collections::BTreeSet;

use assay_evidence::boot_log::EventType;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::BootCounters;
use assay_evidence::tpm::certify::verify_certify;
use assay_evidence::tpm::ek_certificate::verify_ek_certificate;
use assay_evidence::tpm::idevid::{ShownIdentity, verify_device_identity, verify_iak_binding};
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::{Check, Failure};
use assay_testkit::machine::ImaEntry;
use assay_testkit::pcrs::Measurement;
use assay_testkit::software_device::key::{ATTESTATION_KEY, DEVICE_KEY};
use assay_testkit::software_device::quote::Certifying;
use assay_testkit::software_device::{MakersIdentity, TpmKey};
use assay_testkit::tamper::{
    alter_event_data, alter_event_digest, enlarge_event, flip_bit, ima_entries, move_event_last, move_to_pcr,
    swap_ranges, truncate,
};
use assay_testkit::{Bank, EkMaker, SoftwareDevice, System};
use tempfile::tempdir;

use crate::tampered::{Copy, check_alone, pem, spki};
use crate::{Appraisal, learn};
use told::{NOW, Told, endorsers, of_failures, of_findings};

type Case = (Check, fn(Check));

/// Checks, and cases in which they fail. Each check of [`Check::ALL`] has one or more here, or is the server's
/// and has them in the file that [`AT_THE_SERVER`] names.
const CASES: &[Case] = &[
    (Check::AkParse, |check| told(check, |told| truncate(&mut told.ak_public, 20))),
    (Check::AkAttributes, |check| {
        // An unrestricted key signs whatever looks like a quote.
        told_after(check, |device| device.ak = TpmKey::generate(DEVICE_KEY).unwrap(), |_| {});
    }),
    (Check::AkName, |check| check_alone(check.name(), &[], |copy| copy.flip("ak.name", 20))),
    (Check::AkPublic, |check| {
        check_alone(check.name(), &[], |copy| copy.write("ak.pem", pem(&spki(copy, "ek.tpm2b_public"))));
    }),
    (Check::EkPublic, |check| {
        // A signing key opens no credential.
        let key = PublicArea::parse_tpm2b(&TpmKey::generate(DEVICE_KEY).unwrap().public_area()).unwrap();
        assert_eq!(of_failures(&key.check_ek()), only(check));
    }),
    (Check::EkChain, |check| {
        check_alone(check.name(), &[], |copy| {
            copy.edit("ek-cert.der", |bytes| *bytes.last_mut().unwrap() ^= 1);
        });
    }),
    (Check::EkChain, |check| check_alone(check.name(), &[], |copy| copy.write("ek-cert.der", "not DER"))),
    (Check::EkSignature, |check| {
        // sha1WithRSAEncryption in both places where a certificate says how it is signed.
        check_alone(check.name(), &[], |copy| {
            copy.edit("ek-cert.der", |bytes| {
                let algorithm = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b];
                let places: Vec<usize> =
                    (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&algorithm)).collect();
                assert_eq!(places.len(), 2);
                places.into_iter().for_each(|at| bytes[at + 8] = 5);
            });
        });
    }),
    (Check::EkValidity, |check| check_alone(check.name(), &["--at", "2020-01-01T00:00:00Z"], |_| {})),
    (Check::EkEku, |check| {
        let maker = EkMaker::new().unwrap();
        let device = SoftwareDevice::new("device", &maker).unwrap();
        let certificate = maker.certify_as_server(&device.ek).unwrap();
        let refused =
            verify_ek_certificate(&certificate, &[maker.issuing_ca()], &endorsers(&maker, &[]), NOW);
        assert_eq!(of_failures(&refused.unwrap_err()), only(check));
    }),
    (Check::EkRevoked, |check| {
        let maker = EkMaker::new().unwrap();
        let device = SoftwareDevice::new("device", &maker).unwrap();
        for list in [maker.revoke(&[&device.ek.certificate_serial()]), maker.revoke_issuing_ca()] {
            let endorsers = endorsers(&maker, &[list.unwrap()]);
            let refused =
                verify_ek_certificate(&device.ek_certificate, &[maker.issuing_ca()], &endorsers, NOW);
            assert_eq!(of_failures(&refused.unwrap_err()), only(check));
        }
    }),
    (Check::IdevidChain, |check| identity(check, NOW, |_, shown| shown.intermediates.clear())),
    (Check::IdevidValidity, |check| identity(check, UnixTime(u64::MAX), |_, _| {})),
    (Check::IdevidRevoked, |check| {
        let (maker, shown) = with_identity();
        let lists = [maker.revoke(&[&shown.idevid.certificate_serial()]).unwrap()];
        assert_eq!(of_failures(&verify_identity(&maker, &shown, &lists, NOW)), only(check));
    }),
    (Check::IdevidCertificate, |check| {
        // The IDevID of another device of the same maker.
        identity(check, NOW, |maker, shown| {
            let other = maker.identity("8").unwrap();
            (shown.idevid, shown.idevid_certificate) = (other.idevid, other.idevid_certificate);
        });
    }),
    (Check::IdevidKey, |check| {
        identity(check, NOW, |_, shown| shown.idevid = TpmKey::generate(DEVICE_KEY).unwrap());
    }),
    (Check::IakCertify, |check| {
        let (maker, shown) = with_identity();
        let device = SoftwareDevice::new("device", &maker).unwrap();
        let signed = Certifying::of_ak(&device, &[9; 32]).sign(&shown.iak).unwrap();
        let ak = PublicArea::parse_tpm2b(&device.ak.public_area()).unwrap();
        let iak = shown.iak.public_area();
        let refused = verify_iak_binding(&iak, &ak, &signed.message, &signed.signature, &told::NONCE);
        assert_eq!(of_failures(&refused), only(check));
    }),
    (Check::EkCertificateKey, |check| {
        check_alone(check.name(), &[], |copy| copy.write("ek.pem", pem(&spki(copy, "ak.tpm2b_public"))));
    }),
    (Check::QuoteParse, |check| {
        told(check, |told| {
            told.after_signing = |device, quote| {
                truncate(&mut quote.message, 9);
                quote.signature = device.ak.sign(&quote.message).unwrap();
            };
        });
    }),
    (Check::QuoteParse, |check| {
        told(check, |told| told.after_signing = |_, quote| truncate(&mut quote.signature, 1));
    }),
    (Check::QuoteMagic, |check| told(check, |told| told.quoting.magic ^= 1)),
    (Check::QuoteType, |check| {
        told(check, |told| {
            told.after_signing = |device, quote| {
                let certified = Certifying::honest(device, &told::NONCE).sign(&device.ak).unwrap();
                (quote.message, quote.signature) = (certified.message, certified.signature);
            };
        });
    }),
    (Check::QuoteSignature, |check| {
        told(check, |told| told.after_signing = |_, quote| flip_bit(&mut quote.signature, 200));
    }),
    (Check::QuoteSignature, |check| {
        // Keys swapped: the quote is another device's.
        told(check, |told| told.ak_public = TpmKey::generate(ATTESTATION_KEY).unwrap().public_area());
    }),
    (Check::QuoteNonce, |check| told(check, |told| flip_bit(&mut told.quoting.nonce, 0))),
    (Check::QuoteSelection, |check| {
        told(check, |told| {
            let without_7 = (0..16).filter(|pcr| *pcr != 7).collect();
            told.quoting.select(&told.device, vec![(Bank::Sha256, without_7)]);
        });
    }),
    (Check::PcrBanks, |check| boot_rule(check, "banks = [\"sha256\"]")),
    (Check::QuotePcrDigest, |check| {
        // A PCR that no log tells of, so that nothing else contradicts the value.
        told(check, |told| flip_bit(&mut told.quoting.pcrs.last_mut().unwrap().digest, 3));
    }),
    (Check::ResetCounter, |check| {
        told(check, |told| told.last_counters = Some(BootCounters { reset_count: 99, restart_count: 0 }))
    }),
    (Check::RestartCounter, |check| {
        told(check, |told| {
            told.last_counters = told.last_counters.map(|last| BootCounters { restart_count: 99, ..last })
        });
    }),
    (Check::EventLogPresent, |check| {
        told(check, |told| {
            told.boot("event_log = \"required\"\nsecure_boot = \"optional\"\n");
            told.boot_log = None;
        });
    }),
    (Check::EventLogParse, |check| told(check, |told| truncate(told.boot_log.as_mut().unwrap(), 5))),
    (Check::EventLogParse, |check| {
        told(check, |told| told.event(EventType::SEPARATOR, |log, at| enlarge_event(log, at)))
    }),
    (Check::EventLogReplay, |check| {
        told(check, |told| {
            told.event(EventType::EFI_BOOT_SERVICES_APPLICATION, |log, at| alter_event_digest(log, at))
        });
    }),
    (Check::EventLogReplay, |check| told(check, |told| told.event(EventType::SEPARATOR, move_event_last))),
    (Check::EventLogReplay, |check| {
        told(check, |told| told.event(EventType::SEPARATOR, |log, at| move_to_pcr(log, at, 2)));
    }),
    (Check::EventDataDigest, |check| {
        told(check, |told| {
            told.event(EventType::EFI_VARIABLE_DRIVER_CONFIG, |log, at| alter_event_data(log, at))
        });
    }),
    (Check::ImaParse, |check| told(check, |told| truncate(&mut told.ima, 3))),
    (Check::ImaParse, |check| told(check, |told| told.entry(2, |list, start| list[start] = 99))),
    (Check::ImaTemplateDigest, |check| {
        told(check, |told| told.entry(2, |list, start| flip_bit(list, (start + DIGEST_AT) * 8)));
    }),
    (Check::ImaReplay, |check| {
        told(check, |told| {
            let last = ima_entries(&told.ima).pop().unwrap();
            told.ima.truncate(last.start);
        });
    }),
    (Check::ImaReplay, |check| {
        told(check, |told| {
            let entries = ima_entries(&told.ima);
            swap_ranges(&mut told.ima, &entries[1], &entries[2]);
        });
    }),
    (Check::ImaReplay, |check| {
        // A violation that is none: the kernel measured the file.
        told(check, |told| {
            told.entry(2, |list, start| list[start + DIGEST_AT..start + DIGEST_AT + 20].fill(0));
        });
    }),
    (Check::BootAggregate, |check| {
        let extend = |device: &mut SoftwareDevice| {
            device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 4, b"after the kernel looked"));
        };
        told_after(check, extend, |told| told.boot_log = None);
    }),
    (Check::MeasureLogParse, |check| told(check, |told| told.measure_log = Some(b"\x1e{".to_vec()))),
    (Check::ImaPcr, |check| {
        // Measured into a PCR that the policy does not name.
        told_after(check, |device| measure_again(device, 12), |_| {});
    }),
    (Check::ImaPcr, |check| {
        // Into one that is not quoted.
        told_after(
            check,
            |device| measure_again(device, 15),
            |told| {
                told.name_pcrs("10, 15");
                told.quoting.select(&told.device, vec![(Bank::Sha256, (0..15).collect())]);
            },
        );
    }),
    (Check::ImaPcr, |check| {
        // Into one that is named, and from which the list lacks an entry.
        told_after(
            check,
            |device| {
                let kept = ImaEntry::file("/tmp/implant", b"evil").into_pcr(12);
                device.pcrs.extend(&kept.measurement(&[Bank::Sha256]));
            },
            |told| told.name_pcrs("10, 12"),
        );
    }),
    (Check::ImaForms, |check| {
        let (copy, folder) = (Copy::new(), tempdir().unwrap());
        let policy = learn(copy.path(), folder.path(), &[]);
        copy.write("ascii_runtime_measurements", "10 nonsense\n");
        let appraisal = Appraisal::of(copy.path(), &["--policy", policy.to_str().unwrap()]);
        let found: BTreeSet<_> =
            appraisal.findings().iter().map(|finding| finding["check"].as_str().unwrap()).collect();
        assert_eq!((appraisal.tier(), found), ("warning", only(check)));
    }),
    (Check::ImaPolicy, |check| {
        told_after(check, |device| device.run_program("/tmp/implant", b"evil"), |_| {})
    }),
    (Check::ImaPolicy, |check| {
        told_after(check, |device| device.run_program("/usr/bin/bash", b"another"), |_| {});
    }),
    (Check::ImaKernelPolicy, |check| {
        // None was measured.
        told(check, |told| told.accept_kernel_policy(b"what was read"));
    }),
    (Check::ImaKernelPolicy, |check| {
        // Another one was, after the one that is listed.
        let replace = |device: &mut SoftwareDevice| {
            for policy in [b"listed".as_slice(), b"another"] {
                device.measure(ImaEntry::file("/etc/ima/ima-policy", policy));
            }
        };
        told_after(check, replace, |told| told.accept_kernel_policy(b"listed"));
    }),
    (Check::ImaViolation, |check| {
        told_after(check, |device| device.measure(ImaEntry::violation("/usr/bin/bash")), |_| {});
    }),
    (Check::ImaViolation, |check| {
        // Of a file that nobody listed, where every one is refused.
        told_after(
            check,
            |device| device.measure(ImaEntry::violation("/var/lib/state")),
            |told| told.replace("[ima]\n", "[ima]\nviolations = \"refuse\"\n"),
        );
    }),
    (Check::ImaUndecided, |check| {
        told(check, |told| told.ima.extend(ImaEntry::file("/tmp/later", b"read after the quote").binary()));
    }),
    (Check::BootPolicy, |check| {
        let insecure = System { secure_boot: false, ..System::default() };
        told_after(
            check,
            |device| device.boot(&insecure),
            |told| {
                told.accept_boot();
                told.boot("secure_boot = \"required\"\n");
            },
        );
    }),
    (Check::BootPolicy, |check| boot_rule(check, "kernel_command_lines = [\"/vmlinuz quiet\"]")),
    (Check::BootPolicy, |check| boot_rule(check, "kernel_command_line_patterns = [\"/vmlinuz-* quiet\"]")),
    (Check::BootPolicy, |check| boot_rule(check, &format!("applications = [\"{NO_IMAGE}\"]"))),
    (Check::BootPolicy, |check| {
        told(check, |told| {
            let started = told.started();
            told.boot(&format!("applications = {:?}\nkernels = [\"{NO_IMAGE}\"]\n", &started[..2]));
        });
    }),
    (Check::BootPolicy, |check| boot_rule(check, &format!("signers = [\"{NO_IMAGE}\"]"))),
    (Check::BootPolicy, |check| boot_rule(check, "firmware_versions = [\"Example Firmware 2027.01\"]")),
    (Check::BootPolicy, |check| boot_rule(check, &format!("dbx_contains = [\"{NO_IMAGE}\"]"))),
    (Check::BootPolicy, |check| boot_rule(check, "dbx_entries_min = 400")),
    (Check::PcrPolicy, |check| {
        let extend = |device: &mut SoftwareDevice| {
            device.pcrs.extend(&Measurement::of(&[Bank::Sha256], 14, b"a list of keys"));
        };
        // Without its log nothing says what it was; without IMA nothing says that the kernel saw less.
        told_after(check, extend, |told| told.boot_log = None);
    }),
    (Check::AlgorithmPolicy, |check| {
        told(check, |told| {
            told.replace("list = \"optional\"", "list = \"optional\"\nweakest_digest = \"sha384\"")
        });
    }),
    (Check::ClockPolicy, |check| {
        told(check, |told| {
            told.quoting.clock.safe = false;
            told.replace("[boot]\n", "[clock]\nunsafe_clock = \"refuse\"\n\n[boot]\n");
        });
    }),
    (Check::EndorsementPolicy, |check| told(check, |told| told.device.ek_certificate.clear())),
    (Check::EndorsementPolicy, |check| {
        told(check, |told| {
            told.replace("[boot]\n", "[endorsement]\nmanufacturers = [\"id:4E4F4E45\"]\n\n[boot]\n")
        });
    }),
    (Check::RegoPolicy, |check| rego(check, "not input.boot.secure_boot.enabled == \"never\"")),
    (Check::RegoPolicy, |check| rego(check, "some entry in input.ima.new; endswith(entry.path, \"/bash\")")),
    // A rule that does not end gives no answer.
    (Check::RegoPolicy, |check| rego(check, "endless(1)\n}\nendless(x) if {\n\tendless(x)")),
    (Check::PolicyPresent, |check| told(check, |told| told.policy = None)),
    (Check::DeviceKeyCertify, |check| {
        certified(check, |device| device.device_key = TpmKey::generate(DEVICE_KEY).unwrap())
    }),
    (Check::DeviceKeyCertify, |check| {
        certified(check, |device| device.ak = TpmKey::generate(ATTESTATION_KEY).unwrap())
    }),
];

const TEE_SNP: &str = include_str!("../../../../evidence/tests/suite/tee/snp.rs");
const TEE_DCAP: &str = include_str!("../../../../evidence/tests/suite/tee/dcap.rs");

/// Checks of evidence that has a place of its own, and the tests that see each fail alone.
const OF_A_TEE: &[(Check, &str)] = &[
    (Check::TeeParse, TEE_SNP),
    (Check::TeeEndorsement, TEE_SNP),
    (Check::TeeChain, TEE_SNP),
    (Check::TeeValidity, TEE_SNP),
    (Check::TeeRevoked, TEE_SNP),
    (Check::TeeReportSignature, TEE_SNP),
    (Check::TeeProduct, TEE_SNP),
    (Check::TeeTcb, TEE_SNP),
    (Check::TeeChip, TEE_SNP),
    (Check::TeeReportData, TEE_SNP),
    (Check::TeeCollateral, TEE_DCAP),
    (Check::TeeLog, TEE_DCAP),
    (Check::TeeBinding, include_str!("../../../../evidence/tests/suite/tee/azure.rs")),
];

/// Checks that only a server makes, or a verb of its own, and the tests that see each refused by name.
const AT_THE_SERVER: &[(Check, &str)] = &[
    (Check::TeePolicy, include_str!("../tee.rs")),
    (Check::DeviceKeyCsr, include_str!("../../../../server/tests/suite/enrollment.rs")),
    (Check::LocationPolicy, include_str!("../../../../server/tests/suite/telemetry.rs")),
];

#[test]
fn each_check_fails_alone() {
    for check in Check::ALL {
        let cases: Vec<_> = CASES.iter().filter(|(of, _)| of == check).collect();
        if let Some((_, tests)) = OF_A_TEE.iter().find(|(of, _)| of == check) {
            assert!(
                tests.contains(&format!("[Check::{check:?}]"))
                    || tests.contains(&format!("Check::{check:?}, |case|")),
                "{check} fails alone in no test"
            );
            continue;
        }
        let at_the_server = AT_THE_SERVER.iter().find(|(of, _)| of == check);
        match at_the_server {
            Some((_, tests)) => assert!(tests.contains(&format!("\"{check}\"")), "{check} is in no test"),
            None => assert!(!cases.is_empty(), "{check} has no case"),
        }
        cases.iter().for_each(|(check, case)| case(*check));
    }
}

#[test]
fn the_truth_is_affirmed() {
    assert_eq!(Told::after(|_| {}).findings(), []);
    let mut strict = Told::after(|_| {});
    strict.boot("event_log = \"required\"\nsecure_boot = \"required\"\n");
    assert_eq!(strict.findings(), []);
}

/// A lie is told, and no other check says a word as grave.
fn told(check: Check, lie: impl FnOnce(&mut Told)) {
    told_after(check, |_| {}, lie);
}

/// The same after something happened that the policy does not know of.
fn told_after(check: Check, happens: impl FnOnce(&mut SoftwareDevice), lie: impl FnOnce(&mut Told)) {
    let mut told = Told::after(happens);
    lie(&mut told);
    let findings = told.findings();
    assert_eq!(of_findings(&findings), only(check), "{findings:#?}");
}

/// The kernel measures a file that the policy lists into another PCR.
fn measure_again(device: &mut SoftwareDevice, pcr: u32) {
    let file = device.ima.entries()[1].clone();
    device.measure(file.into_pcr(pcr));
}

/// A rule of the boot section that the default system does not keep.
fn boot_rule(check: Check, rule: &str) {
    told(check, |told| told.boot(&format!("{rule}\n")));
}

/// A rule of the policy's own that objects.
fn rego(check: Check, body: &str) {
    let section = format!(
        "[rego]\nmodules = ['''\npackage assay\ndeny contains \"no\" if {{\n\t{body}\n}}\n''']\n\n[boot]\n"
    );
    told(check, |told| told.replace("[boot]\n", &section));
}

/// The AK's certification of the device key, after one of the keys was swapped.
fn certified(check: Check, swap: impl FnOnce(&mut SoftwareDevice)) {
    let mut device = SoftwareDevice::new("device", &EkMaker::new().unwrap()).unwrap();
    let signed = Certifying::honest(&device, &told::NONCE).sign(&device.ak).unwrap();
    swap(&mut device);
    let parse = |key: &TpmKey| PublicArea::parse_tpm2b(&key.public_area()).unwrap();
    let (ak, device_key) = (parse(&device.ak), parse(&device.device_key));
    let refused = verify_certify(&ak, &signed.message, &signed.signature, &told::NONCE, &device_key);
    assert_eq!(of_failures(&refused.unwrap_err()), only(check));
}

fn with_identity() -> (EkMaker, MakersIdentity) {
    let maker = EkMaker::new().unwrap();
    let shown = maker.identity("7").unwrap();
    (maker, shown)
}

/// An identity is shown, and something about it is another's.
fn identity(check: Check, at: UnixTime, change: impl FnOnce(&EkMaker, &mut MakersIdentity)) {
    let (maker, mut shown) = with_identity();
    assert_eq!(verify_identity(&maker, &shown, &[], NOW), []);
    change(&maker, &mut shown);
    assert_eq!(of_failures(&verify_identity(&maker, &shown, &[], at)), only(check));
}

fn verify_identity(maker: &EkMaker, shown: &MakersIdentity, lists: &[Vec<u8>], at: UnixTime) -> Vec<Failure> {
    let intermediates: Vec<&[u8]> = shown.intermediates.iter().map(Vec::as_slice).collect();
    let told = ShownIdentity {
        iak_public: &shown.iak.public_area(),
        iak_certificate: &shown.iak_certificate,
        idevid_public: &shown.idevid.public_area(),
        idevid_certificate: &shown.idevid_certificate,
        intermediates: &intermediates,
    };
    verify_device_identity(&told, &endorsers(maker, lists), at).err().unwrap_or_default()
}

fn only(check: Check) -> BTreeSet<&'static str> {
    BTreeSet::from([check.name()])
}

/// Where an entry's template digest is: behind its PCR.
const DIGEST_AT: usize = 4;
/// A digest of nothing that was started.
const NO_IMAGE: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
