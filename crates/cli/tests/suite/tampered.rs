//! The ways to lie: each check has a tampered case in which its finding appears.

use std::path::Path;

use assay_evidence::ima;
use assay_evidence::tpm::public_area::PublicArea;
use assay_testkit::software_device::{EkKind, EkMaker, EndorsementKey};
use tempfile::{TempDir, tempdir};

use crate::{Appraisal, learn, vector};

/// A copy of the baseline case to be tampered with.
pub struct Copy(TempDir);

impl Copy {
    pub fn new() -> Self {
        let copy = tempdir().unwrap();
        for entry in std::fs::read_dir(vector("sb-good-1")).unwrap() {
            let file = entry.unwrap().path();
            std::fs::copy(&file, copy.path().join(file.file_name().unwrap())).unwrap();
        }
        Copy(copy)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path().join(name)).unwrap()
    }

    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), bytes).unwrap();
    }

    pub fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = self.read(name);
        edit(&mut bytes);
        self.write(name, bytes);
    }

    pub fn flip(&self, name: &str, at: usize) {
        self.edit(name, |bytes| bytes[at] ^= 1);
    }
}

/// The tampered case is refused, and a finding of the check is among the reasons.
fn check(expected: &str, arguments: &[&str], tamper: impl FnOnce(&Copy)) {
    let copy = Copy::new();
    tamper(&copy);
    let appraisal = Appraisal::of(copy.path(), arguments);
    assert_eq!((appraisal.integrity(), appraisal.exit), ("reject", 1), "{expected}");
    assert!(!appraisal.claims(expected).is_empty(), "{expected} is not in {}", appraisal.messages());
    for finding in appraisal.findings() {
        assert!(finding["message"].as_str().unwrap().len() > 40, "{finding}");
    }
}

/// As `check`, and no other check fails.
pub fn check_alone(expected: &str, arguments: &[&str], tamper: impl FnOnce(&Copy)) {
    let copy = Copy::new();
    tamper(&copy);
    let appraisal = Appraisal::of(copy.path(), arguments);
    assert_eq!((appraisal.integrity(), appraisal.exit), ("reject", 1), "{expected}");
    let failed = appraisal.findings().iter().filter(|finding| finding["tier"] == "contraindicated");
    assert!(failed.clone().all(|finding| finding["check"] == expected), "{}", appraisal.messages());
    assert!(failed.count() > 0, "{}", appraisal.messages());
}

/// Where a text, in UTF-16 as UEFI writes it, first stands.
fn find_utf16(bytes: &[u8], text: &str) -> usize {
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    find(bytes, &wide)
}

fn find(bytes: &[u8], part: &[u8]) -> usize {
    bytes.windows(part.len()).position(|window| window == part).unwrap()
}

pub fn pem(spki: &[u8]) -> String {
    pem_of("PUBLIC KEY", spki)
}

fn pem_of(label: &str, der: &[u8]) -> String {
    let body = data_encoding::BASE64.encode(der);
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

pub fn spki(copy: &Copy, name: &str) -> Vec<u8> {
    PublicArea::parse_tpm2b(&copy.read(name)).unwrap().spki_der()
}

#[test]
fn the_untouched_copy_is_accepted() {
    let copy = Copy::new();
    copy.write("ak.pem", pem(&spki(&copy, "ak.tpm2b_public")));
    copy.write("ek.pem", pem(&spki(&copy, "ek.tpm2b_public")));
    let appraisal = Appraisal::of(copy.path(), &[]);
    assert_eq!((appraisal.integrity(), appraisal.exit), ("accept", 0), "{}", appraisal.messages());
}

#[test]
fn keys() {
    check("ak-parse", &[], |copy| copy.edit("ak.tpm2b_public", |bytes| bytes.truncate(100)));
    // TPMT_PUBLIC: type, Name algorithm, attributes; restricted is bit 16.
    check("ak-attributes", &[], |copy| copy.flip("ak.tpm2b_public", 7));
    check_alone("ak-name", &[], |copy| copy.flip("ak.name", 20));
    check_alone("ak-name", &[], |copy| copy.flip("ak-ecc.name", 20));
    check_alone("ak-public", &[], |copy| copy.write("ak.pem", pem(&spki(copy, "ek.tpm2b_public"))));
    check("ek-public", &[], |copy| copy.edit("ek.tpm2b_public", |bytes| bytes.truncate(100)));
    check("ek-certificate-key", &[], |copy| {
        copy.edit("ek.tpm2b_public", |bytes| *bytes.last_mut().unwrap() ^= 4)
    });
    check_alone("ek-certificate-key", &[], |copy| copy.write("ek.pem", pem(&spki(copy, "ak.tpm2b_public"))));
}

#[test]
fn certificates() {
    check_alone("ek-chain", &[], |copy| copy.edit("ek-cert.der", |bytes| *bytes.last_mut().unwrap() ^= 1));
    check_alone("ek-chain", &[], |copy| {
        copy.edit("ek-ecc-p384-cert.der", |bytes| *bytes.last_mut().unwrap() ^= 1)
    });
    check_alone("ek-validity", &["--at", "2020-01-01T00:00:00Z"], |_| {});
    // tcg-kp-EKCertificate, 2.23.133.8.1.
    check("ek-eku", &[], |copy| {
        copy.edit("ek-cert.der", |bytes| {
            let oid = find(bytes, &[0x06, 0x05, 0x67, 0x81, 0x05, 0x08, 0x01]);
            bytes[oid + 6] = 3;
        });
    });
}

#[test]
fn revoked_certificates() {
    let (maker, ek) = (EkMaker::new().unwrap(), EndorsementKey::generate(EkKind::P256).unwrap());
    let lists = tempdir().unwrap();
    let list = lists.path().join("maker.crl");
    // The EK of another TPM, since the authority of this one is not here to take its certificate back.
    let other_tpm = |copy: &Copy| {
        copy.write("ek.tpm2b_public", ek.public_area());
        copy.write("ek-cert.der", maker.certify(&ek).unwrap());
        copy.write("ek-root-ca.pem", maker.root_ca_pem());
        copy.write("ek-issuing-ca.pem", pem_of("CERTIFICATE", maker.issuing_ca()));
        std::fs::remove_file(copy.path().join("ek-ecc-p384-cert.der")).unwrap();
    };
    let arguments = ["--ek-crl", lists.path().to_str().unwrap()];
    std::fs::write(&list, maker.revoke(&[&[7]]).unwrap()).unwrap();
    let copy = Copy::new();
    other_tpm(&copy);
    assert_eq!(Appraisal::of(copy.path(), &arguments).integrity(), "accept");
    std::fs::write(&list, maker.revoke(&[&ek.certificate_serial()]).unwrap()).unwrap();
    check_alone("ek-revoked", &arguments, other_tpm);
    std::fs::write(&list, maker.revoke_issuing_ca().unwrap()).unwrap();
    check_alone("ek-revoked", &arguments, other_tpm);
}

#[test]
fn an_authority_that_was_not_given_vouches_for_nothing() {
    let copy = Copy::new();
    let root = copy.path().join("ek-root-ca.pem");
    let given = Appraisal::of(copy.path(), &["--trust-anchor", root.to_str().unwrap()]);
    assert_eq!((given.integrity(), given.exit), ("accept", 0), "{}", given.messages());
    let folder = tempdir().unwrap();
    std::fs::copy(&root, folder.path().join("root.pem")).unwrap();
    let given = Appraisal::of(copy.path(), &["--trust-anchor", folder.path().to_str().unwrap()]);
    assert_eq!((given.integrity(), given.exit), ("accept", 0), "{}", given.messages());
    // The certificate of another authority, as an anchor.
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../vectors/ima/ima-sig/signing-cert.pem");
    check_alone("ek-chain", &["--trust-anchor", other.to_str().unwrap()], |_| {});
}

/// A folder that brings its own authority is no endorsement, whatever maker its certificate names.
/// Whoever records evidence chooses the nonce beside it, so that it may be of any time.
#[test]
fn a_nonce_that_nobody_chose_is_said() {
    let copy = Copy::new();
    let nonce = std::fs::read_to_string(copy.path().join("quote.nonce")).unwrap();
    let said = |arguments: &[&str]| {
        let appraisal = Appraisal::as_given(copy.path(), arguments, &[]);
        assert_eq!(appraisal.integrity(), "accept");
        appraisal.claims("quote-nonce").len()
    };
    assert_eq!((said(&[]), said(&["--nonce", nonce.trim()])), (1, 0));
}

#[test]
fn a_folder_does_not_vouch_for_itself() {
    let copy = Copy::new();
    let folder = tempdir().unwrap();
    let policy = learn(copy.path(), folder.path(), &[]);
    let text = std::fs::read_to_string(&policy).unwrap();
    let judged = |text: &str, arguments: &[&str]| {
        std::fs::write(&policy, text).unwrap();
        let policy = ["--policy", policy.to_str().unwrap()];
        Appraisal::as_given(copy.path(), &[&policy[..], arguments].concat(), &[])
    };
    let anchor = copy.path().join("ek-issuing-ca.pem");
    let named = judged(&text, &["--trust-anchor", anchor.to_str().unwrap()]);
    assert_eq!((named.integrity(), named.tier()), ("accept", "affirming"), "{}", named.messages());
    let unnamed = judged(&text, &[]);
    assert_eq!(
        (unnamed.integrity(), unnamed.tier()),
        ("accept", "contraindicated"),
        "{}",
        unnamed.messages()
    );
    assert!(unnamed.messages().contains("--trust-anchor"), "{}", unnamed.messages());
    // Whom nobody is asked to vouch for needs none.
    let unasked = judged(&text.replace("required = \"certificate\"", "required = \"dangerous_none\""), &[]);
    assert_eq!(unasked.tier(), "affirming", "{}", unasked.messages());
}

#[test]
fn quotes() {
    check("quote-parse", &[], |copy| copy.edit("quote.msg", |bytes| bytes.truncate(40)));
    check("quote-parse", &[], |copy| copy.edit("quote.sig", |bytes| bytes.truncate(40)));
    check("quote-parse", &[], |copy| copy.edit("quote.pcrs", |bytes| bytes.truncate(40)));
    check("quote-magic", &[], |copy| copy.flip("quote.msg", 0));
    check("quote-type", &[], |copy| copy.flip("quote.msg", 5));
    check_alone("quote-signature", &[], |copy| {
        copy.edit("quote.sig", |bytes| *bytes.last_mut().unwrap() ^= 1)
    });
    check_alone("quote-nonce", &["--nonce", "00112233"], |_| {});
    check_alone("quote-nonce", &[], |copy| copy.write("quote.nonce", "00"));
    check_alone("quote-signature", &[], |copy| copy.flip("quote-ecc.sig", 20));
    check_alone("reset-counter", &["--last-reset-count", "3"], |_| {});
}

#[test]
fn the_quote_covers_what_the_logs_extend() {
    check_alone("quote-selection", &[], |copy| {
        for extension in ["msg", "sig", "pcrs", "nonce"] {
            copy.write(&format!("quote.{extension}"), copy.read(&format!("quote-pcr10.{extension}")));
        }
    });
}

#[test]
fn pcr_values() {
    check("quote-pcr-digest", &[], |copy| {
        let pcr0 = data_encoding::HEXLOWER
            .decode(b"b2ca24e9547a4561bac625b143a9d8665689249afa655d16597c67b11e43c88f")
            .unwrap();
        copy.edit("quote.pcrs", |bytes| {
            let at = find(bytes, &pcr0);
            bytes[at] ^= 1;
        });
    });
}

#[test]
fn boot_logs() {
    check("event-log-parse", &[], |copy| copy.edit("binary_bios_measurements", |bytes| bytes.truncate(9000)));
    check("event-log-parse", &[], |copy| {
        copy.edit("binary_bios_measurements", |bytes| bytes[1000..].fill(0xff))
    });
    // An event that loads an image: its digest covers what is not in the log.
    check_alone("event-log-replay", &[], |copy| {
        let digest = data_encoding::HEXLOWER
            .decode(b"80a66d53a945d2286fcadd780fae1c225aa732079cd67b5225dc78aaab4e2ff8")
            .unwrap();
        copy.edit("binary_bios_measurements", |bytes| {
            let at = find(bytes, &digest);
            bytes[at] ^= 1;
        });
    });
    // SecureBoot's value follows its name.
    check_alone("event-data-digest", &[], |copy| {
        copy.edit("binary_bios_measurements", |bytes| {
            let value = find_utf16(bytes, "SecureBoot") + 20;
            bytes[value] ^= 1;
        });
    });
}

#[test]
fn an_empty_boot_log_is_noted_and_refused_by_policy() {
    let (copy, folder) = (Copy::new(), tempdir().unwrap());
    let policy = learn(copy.path(), folder.path(), &[]);
    copy.write("binary_bios_measurements", "");
    let noted = Appraisal::of(copy.path(), &[]);
    assert_eq!((noted.integrity(), noted.exit), ("accept", 0));
    assert_eq!(noted.claims("event-log-present"), ["boot log"]);
    let refused = Appraisal::of(copy.path(), &["--policy", policy.to_str().unwrap()]);
    assert_eq!((refused.exit, refused.tier()), (1, "contraindicated"));
    assert_eq!(refused.claims("event-log-present"), ["boot log"]);
}

#[test]
fn ima_lists() {
    check("ima-parse", &[], |copy| {
        copy.edit("binary_runtime_measurements", |bytes| {
            bytes.pop();
        });
    });
    check("ima-template-digest", &[], |copy| {
        copy.edit("binary_runtime_measurements", |bytes| {
            let path = find(bytes, b"/bin/busybox");
            bytes[path + 5] = b'B';
        });
    });
    check_alone("ima-replay", &[], |copy| {
        copy.write(
            "binary_runtime_measurements",
            std::fs::read(vector("sb-good-2-rebooted").join("binary_runtime_measurements")).unwrap(),
        );
    });
    check_alone("ima-replay", &[], |copy| {
        let list = copy.read("binary_runtime_measurements");
        let last =
            ima::parse_binary(&list).unwrap().iter().next_back().map(|entry| entry.path().to_vec()).unwrap();
        // The last entry from its PCR on: digest, template name and length of the data stand before the path.
        let path = list.windows(last.len()).rposition(|window| window == last).unwrap();
        let start = list[..path].windows(4).rposition(|window| window == [10, 0, 0, 0]).unwrap();
        copy.write("binary_runtime_measurements", &list[..start]);
    });
}

#[test]
fn forms_of_the_list_that_differ_are_a_warning() {
    let (copy, folder) = (Copy::new(), tempdir().unwrap());
    let policy = learn(copy.path(), folder.path(), &[]);
    copy.write("ascii_runtime_measurements", "10 nonsense\n");
    let appraisal = Appraisal::of(copy.path(), &["--policy", policy.to_str().unwrap()]);
    assert_eq!((appraisal.integrity(), appraisal.tier(), appraisal.exit), ("accept", "warning", 1));
    assert_eq!(appraisal.claims("ima-forms"), ["ascii_runtime_measurements"]);
}

/// Takes the next bytes.
fn take<'a>(rest: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(length);
    *rest = left;
    taken
}

/// Takes the next bytes, whose length stands before them.
fn field<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let length = u32::from_le_bytes(take(rest, 4).try_into().unwrap());
    take(rest, length as usize)
}

/// A binary list of the template ima-sig as the kernel prints it.
fn as_ascii(mut list: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut lines = String::new();
    while !list.is_empty() {
        let pcr = u32::from_le_bytes(take(&mut list, 4).try_into().unwrap());
        let (digest, template, mut data) = (take(&mut list, 20), field(&mut list), field(&mut list));
        let (mut file, path, signature) = (field(&mut data), field(&mut data), field(&mut data));
        let algorithm = take(&mut file, "sha256:\0".len());
        lines += &format!(
            "{pcr} {} {} {}{} {} {}\n",
            hex(digest),
            text(template),
            text(algorithm).trim_end_matches('\0'),
            hex(file),
            text(path).trim_end_matches('\0'),
            hex(signature)
        );
    }
    lines
}

/// Text in the place of the binary list is the same list, or none.
#[test]
fn a_list_as_text_says_what_the_quote_covers_and_nothing_else() {
    let (copy, folder) = (Copy::new(), tempdir().unwrap());
    let policy = learn(copy.path(), folder.path(), &[]);
    let ascii = as_ascii(&copy.read("binary_runtime_measurements"));
    std::fs::remove_file(copy.path().join("binary_runtime_measurements")).unwrap();
    let appraised = |text: &str| {
        copy.write("ascii_runtime_measurements", text);
        let appraisal = Appraisal::of(copy.path(), &["--policy", policy.to_str().unwrap()]);
        (appraisal.integrity().to_owned(), appraisal.tier().to_owned())
    };
    let (rejected, bad) = ("reject".to_owned(), "contraindicated".to_owned());
    assert_eq!(appraised(&ascii), ("accept".to_owned(), "affirming".to_owned()));
    let lines: Vec<&str> = ascii.lines().collect();
    let (last, before) = lines.split_last().unwrap();
    let zeros = format!("10 {} {}", "0".repeat(40), last.splitn(3, ' ').nth(2).unwrap());
    for changed in [
        ascii.replace("/usr/bin/", "/usr/sbin/"),
        ascii.replacen("sha256:", "sha256:00", 1),
        ascii.replacen("10 ", "11 ", 1),
        before.join("\n") + "\n",
        format!("{last}\n{ascii}"),
        // A violation, which says nothing of its file.
        format!("{}\n{zeros}\n", before.join("\n")),
        // An entry within the name of another.
        ascii.replacen(" ima-sig ", &format!(" ima-sig sha256:{} /x\n", "ab".repeat(32)), 1),
        ascii.replace('\n', "\n\n"),
    ] {
        assert_eq!(appraised(&changed), (rejected.clone(), bad.clone()), "{changed:.200}");
    }
    // None at all is not refused by the quote, but by the policy.
    assert_eq!(appraised("").1, bad);
}

#[test]
fn the_policys_verdict_is_contraindicated_when_verification_fails() {
    let (copy, folder) = (Copy::new(), tempdir().unwrap());
    let policy = learn(copy.path(), folder.path(), &[]);
    copy.flip("quote.msg", 0);
    let appraisal = Appraisal::of(copy.path(), &["--policy", policy.to_str().unwrap()]);
    assert_eq!((appraisal.integrity(), appraisal.tier(), appraisal.exit), ("reject", "contraindicated", 1));
}

#[test]
fn nothing_is_learned_from_what_does_not_verify() {
    let (copy, folder) = (Copy::new(), tempdir().unwrap());
    copy.flip("quote.msg", 0);
    let policy = folder.path().join("policy.toml");
    let arguments =
        ["policy".as_ref(), "learn".as_ref(), copy.path().as_os_str(), "-o".as_ref(), policy.as_os_str()];
    let output = crate::assay(arguments);
    assert_eq!(output.status.code(), Some(1));
    assert!(!policy.exists());
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(
        message.contains("nothing is learned") && message.contains("was not made inside a TPM"),
        "{message}"
    );
}
