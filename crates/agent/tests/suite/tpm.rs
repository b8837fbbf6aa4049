//! The TPM client: every command, the proofs made with them, and typed refusals.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use assay_agent::logs::{ImaSource, quoted_values};
use assay_agent::state_dir::StateDir;
use assay_agent::tpm::ek::{EkKind, EndorsementKey};
use assay_agent::tpm::keys::{AkKind, Keys};
use assay_agent::tpm::{BankStatement, Bond, DeviceSigningKey, Property, Target, Tpm, TpmError, UnsealError};
use assay_evidence::digest::{HashAlgorithm, PcrIndex};
use assay_evidence::ima::{Replay, attested_prefix, parse_binary};
use assay_evidence::tpm::attest::{Attest, Body};
use assay_evidence::tpm::banks::verify_banks;
use assay_evidence::tpm::credential::make_credential;
use assay_evidence::tpm::pcr::{PcrSelection, PcrSet};
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::quote::Quoted;
use assay_evidence::tpm::signature::Signature;
use assay_identity::Csr;
use assay_telemetry::{pae, verify_device_signature};
use assay_testkit::Bank;
use assay_testkit::machine::ImaEntry;

use crate::bench::{Bench, selection, tool};

#[test]
fn swtpm_says_what_it_is() {
    let bench = Bench::with_banks(&[Bank::Sha1, Bank::Sha256]);
    let tpm = bench.open();
    assert_eq!(tpm.property(Property::Manufacturer).unwrap(), Some(u32::from_be_bytes(*b"IBM\0")));
    assert!(tpm.property(Property::NvBufferMax).unwrap().unwrap() >= 512);
    let algorithms = tpm.algorithms().unwrap();
    for needed in [HashAlgorithm::Sha256.tpm_id(), 0x0001, 0x0023] {
        assert!(algorithms.contains(&needed), "{needed:#x}");
    }
    assert!(tpm.curves().unwrap().contains(&3));
    let active: Vec<_> = tpm.pcr_banks().unwrap().into_iter().filter(|bank| bank.pcrs == 24).collect();
    assert_eq!(active.iter().filter_map(|bank| bank.hash()).collect::<Vec<_>>().len(), 2);
    assert_eq!(tpm.random(16).unwrap().len(), 16);
    assert_ne!(tpm.random(16).unwrap(), tpm.random(16).unwrap());
    let clock = tpm.read_clock().unwrap();
    assert!(clock.safe && clock.clock_ms < 3_600_000);
}

#[test]
fn swtpm_pcrs_are_read_and_quoted_and_the_quote_verifies() {
    let bench = Bench::new();
    let tpm = bench.open();
    bench.soft.connect().unwrap().pcr_extend(10, &[(Bank::Sha256, vec![7; 32])]).unwrap();
    let keys = Keys::ephemeral(&tpm).unwrap();
    assert!(keys.ak.area().check_ak().is_empty());
    assert!(keys.device.area().check_device_key().is_empty());
    let quote = tpm.quote(&keys.ak, &[9; 32], &selection(0..24), |_, _| None).unwrap();
    assert_eq!(quote.values.len(), 24);
    let ten = quote.values.get(HashAlgorithm::Sha256, PcrIndex::new(10).unwrap()).unwrap();
    assert_eq!(*ten, HashAlgorithm::Sha256.zero().extend(&[7; 32]));

    let signature = Signature::parse(&quote.signature).unwrap();
    keys.ak.area().verify(&signature, &quote.message).unwrap();
    let attest = Attest::parse(&quote.message).unwrap();
    assert_eq!(attest.extra_data, [9; 32]);
    assert!(matches!(attest.body, Body::Quote { .. }));
}

/// Measures something new for as long as it lives, as fast as the TPM takes it.
struct Storm {
    stop: Arc<AtomicBool>,
    /// Asked to be still, and is.
    lull: Arc<[AtomicBool; 2]>,
    thread: Option<JoinHandle<usize>>,
}

impl Storm {
    fn over(bench: &Bench, list: &Path) -> Storm {
        let (mut tpm, list) = (bench.soft.connect().unwrap(), list.to_owned());
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let lull = Arc::<[AtomicBool; 2]>::default();
        let resting = Arc::clone(&lull);
        let thread = std::thread::spawn(move || {
            let mut file = std::fs::File::options().append(true).create(true).open(list).unwrap();
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return number;
                }
                let [asked, still] = &*resting;
                while asked.load(Ordering::SeqCst) {
                    still.store(true, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(1));
                }
                still.store(false, Ordering::SeqCst);
                // The kernel lists an entry before it extends the PCR.
                let entry = ImaEntry::file("/tmp/rewritten", format!("{number}").as_bytes());
                file.write_all(&entry.binary()).unwrap();
                tpm.pcr_extend(10, &entry.measurement(&[Bank::Sha256]).digests).unwrap();
            }
            unreachable!()
        });
        Storm { stop, lull, thread: Some(thread) }
    }

    /// Looks at what there is between two entries: the list would grow faster than it is looked at.
    fn lull<T>(&self, look: impl FnOnce() -> T) -> T {
        let [asked, still] = &*self.lull;
        asked.store(true, Ordering::SeqCst);
        while !still.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        let seen = look();
        asked.store(false, Ordering::SeqCst);
        while still.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        seen
    }

    fn stop(mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

#[test]
fn swtpm_is_quoted_once_however_fast_the_list_grows() {
    let bench = Bench::new();
    let tpm = bench.open();
    let keys = Keys::ephemeral(&tpm).unwrap();
    let list = bench.path("binary_runtime_measurements");
    let storm = Storm::over(&bench, &list);
    let source = ImaSource::new(&list);
    let (mut asked, mut waited) = (0, Vec::new());
    for _ in 0..40 {
        let started = Instant::now();
        let mut tries = 0;
        let quote = tpm
            .quote(&keys.ak, &[9; 32], &selection(0..24), |quoted, read| {
                tries += 1;
                quoted_values(&source, quoted, read).unwrap()
            })
            .unwrap();
        waited.push(started.elapsed());
        assert!(tries <= 1, "once");
        asked += tries;
        // The list as it is read now begins with all that was quoted.
        let bytes = storm.lull(|| source.read_from(0).unwrap().bytes);
        let ten = *quote.values.get(HashAlgorithm::Sha256, PcrIndex::IMA).unwrap();
        let parsed = parse_binary(&bytes).unwrap();
        let start = Replay::new(&[HashAlgorithm::Sha256]);
        let (prefix, bad) = attested_prefix(&parsed, &start, &[(PcrIndex::IMA, ten)]);
        assert!(prefix.is_some() && bad.is_empty());
    }
    let measured = storm.stop();
    waited.sort_unstable();
    println!(
        "{measured} entries during 40 quotes; {asked} were overtaken; the slowest took {:?}",
        waited.last()
    );
    assert!(asked > 0 && measured > 40, "{asked} of 40, {measured} entries");
}

#[test]
fn swtpm_a_list_that_does_not_tell_what_was_quoted_settles_nothing() {
    let bench = Bench::new();
    let tpm = bench.open();
    let keys = Keys::ephemeral(&tpm).unwrap();
    let list = bench.path("binary_runtime_measurements");
    std::fs::write(&list, ImaEntry::file("/usr/bin/a", b"a").binary()).unwrap();
    let source = ImaSource::new(&list);
    let quote = tpm.quote(&keys.ak, &[9; 32], &selection(0..24), |_, _| None).unwrap();
    let quoted = Quoted::parse(&quote.message, &quote.signature).unwrap();
    assert!(quoted.is_over(&quote.values));
    // PCR 10 as before the list's only entry: that was quoted.
    let mut later = quote.values.clone();
    later.insert(PcrIndex::IMA, HashAlgorithm::Sha256.hash(&[b"later"]));
    assert_eq!(quoted_values(&source, &quoted, &later).unwrap(), Some(quote.values.clone()));
    // Another PCR went on as well, of which no list tells.
    later.insert(PcrIndex::new(11).unwrap(), HashAlgorithm::Sha256.hash(&[b"phase"]));
    assert_eq!(quoted_values(&source, &quoted, &later).unwrap(), None);
}

#[test]
fn swtpm_a_secret_is_given_back_in_its_boot_and_in_time_and_in_no_other() {
    let bench = Bench::new();
    let tpm = bench.open();
    let bond =
        |ms: u64| Bond { pcrs: selection(0..8), clock_until_ms: tpm.read_clock().unwrap().clock_ms + ms };
    let lasting = bond(60_000);
    let sealed = tpm.seal(&[7; 32], &lasting).unwrap();
    assert_eq!(tpm.unseal(&sealed, &lasting).unwrap(), [7; 32]);
    let short = bond(50);
    let brief = tpm.seal(&[8; 32], &short).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(matches!(tpm.unseal(&brief, &short), Err(UnsealError::Over)));
    // Neither a later end nor other PCRs can be said in the place of those that it was sealed to.
    let longer = Bond { clock_until_ms: u64::MAX, ..lasting.clone() };
    let fewer = Bond { pcrs: selection(0..4), ..lasting.clone() };
    for other in [longer, fewer] {
        assert!(matches!(tpm.unseal(&sealed, &other), Err(UnsealError::OtherPcrs)));
    }
    for length in [0, sealed.len() / 2, sealed.len() - 1] {
        assert!(tpm.unseal(&sealed[..length], &lasting).is_err(), "{length}");
    }
    let another = Bench::new();
    assert!(another.open().unseal(&sealed, &lasting).is_err());
    bench.soft.connect().unwrap().pcr_extend(3, &[(Bank::Sha256, vec![7; 32])]).unwrap();
    assert!(matches!(tpm.unseal(&sealed, &lasting), Err(UnsealError::OtherPcrs)));
}

/// A quote does not say which banks there are: one of which nothing was asked looks in it as one that is off. So the TPM is asked
/// in an audit session, which the AK signs.
#[test]
fn swtpm_says_which_banks_are_active_and_a_quote_does_not() {
    let bench = Bench::with_banks(&[Bank::Sha1, Bank::Sha256]);
    let tpm = bench.open();
    let ak = Keys::ephemeral(&tpm).unwrap().ak;
    let sessions = || tpm.handles(0x0200_0000).unwrap().len();
    let tpm2 = tpm.state_banks(&ak, &[9; 32]).unwrap();
    assert_eq!(sessions(), 0, "a session is left");
    let statement = |nonce: &'static [u8]| {
        let BankStatement { capability, message, signature } = &tpm2;
        assay_evidence::tpm::banks::BankStatement { capability, message, signature, nonce }
    };
    let banks = verify_banks(&statement(&[9; 32]), ak.area()).unwrap();
    assert_eq!(
        (banks.known(), banks.unknown()),
        ([HashAlgorithm::Sha1, HashAlgorithm::Sha256].as_slice(), [].as_slice())
    );
    assert_eq!(banks.reset_count(), tpm.read_clock().unwrap().reset_count);
    let failed = verify_banks(&statement(&[8; 32]), ak.area()).unwrap_err();
    assert_eq!(failed.len(), 1, "{failed:?}");

    let none = PcrSet::default();
    let of = |bank: HashAlgorithm| {
        let whole: PcrSelection =
            [(HashAlgorithm::Sha256, PcrIndex::of_firmware().collect()), (bank, none)].into_iter().collect();
        let quote = tpm.quote(&ak, &[9; 32], &whole, |_, _| None).unwrap();
        let Body::Quote { selection, .. } = Attest::parse(&quote.message).unwrap().body else { panic!() };
        selection.banks().filter(|(_, set)| !set.is_empty()).map(|(bank, _)| bank).collect::<Vec<_>>()
    };
    assert_eq!(of(HashAlgorithm::Sha1), of(HashAlgorithm::Sha384), "a quote told active from off");
}

#[test]
fn swtpm_banks_that_are_off_are_named() {
    let bench = Bench::new();
    let set = [PcrIndex::new(0).unwrap()].into_iter().collect();
    let sha384 = [(HashAlgorithm::Sha384, set)].into_iter().collect();
    let error = bench.open().read_pcrs(&sha384).unwrap_err();
    assert!(matches!(error, TpmError::NoBank { bank: HashAlgorithm::Sha384 }), "{error}");
}

#[test]
fn swtpm_keys_are_made_once_and_only_load_in_their_tpm() {
    let bench = Bench::new();
    let state = StateDir::open(&bench.path("state")).unwrap();
    let first = {
        let keys = Keys::open(&bench.open(), &state, AkKind::Ecc).unwrap();
        (keys.ak.public().to_vec(), keys.device.public().to_vec())
    };
    let again = Keys::open(&bench.open(), &state, AkKind::Ecc).unwrap();
    assert_eq!((again.ak.public().to_vec(), again.device.public().to_vec()), first);

    let other = Bench::new();
    let error = Keys::open(&other.open(), &state, AkKind::Ecc).err().unwrap();
    assert!(matches!(error, TpmError::ForeignKey { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("another machine's") && said.contains("both ak.key and device.key"), "{said}");

    state.write("ak.key", b"no key").unwrap();
    assert!(matches!(Keys::open(&bench.open(), &state, AkKind::Ecc), Err(TpmError::State(_))));
}

#[test]
fn swtpm_slots_suffice_however_often_an_agent_starts() {
    let bench = Bench::new();
    let state = StateDir::open(&bench.path("state")).unwrap();
    for _ in 0..4 {
        let tpm = bench.open();
        let keys = Keys::open(&tpm, &state, AkKind::Ecc).unwrap();
        let ek = EndorsementKey::load_kind(&tpm, EkKind::EccP256).unwrap();
        assert_eq!(tpm.handles(0x8000_0000).unwrap().len(), 3);
        // A killed agent flushes nothing; the next one starts with a full TPM.
        std::mem::forget((keys, ek));
    }
}

#[test]
fn swtpm_ek_certificates_are_for_the_keys_the_templates_make() {
    let bench = Bench::new();
    let tpm = bench.open();
    let certificates = tpm.ek_certificates().unwrap();
    let kinds: Vec<_> = certificates.leaves.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, [EkKind::Rsa2048, EkKind::EccP384]);
    for (kind, certificate) in certificates.leaves {
        let ek = EndorsementKey::load_kind(&tpm, kind).unwrap();
        let area = PublicArea::parse_tpm2b(ek.public()).unwrap();
        assert!(area.check_ek().is_empty(), "{kind}: {:?}", area.check_ek());
        let spki = area.spki_der();
        assert!(certificate.windows(spki.len()).any(|window| window == spki), "{kind}");
    }
    let ek = EndorsementKey::load(&tpm).unwrap();
    assert_eq!(ek.kind(), EkKind::Rsa2048);
    assert!(ek.certificate_is_its_own());
}

#[test]
fn swtpm_activates_credentials_of_every_ek_kind_for_the_ak_alone() {
    let bench = Bench::new();
    let tpm = bench.open();
    let keys = Keys::ephemeral(&tpm).unwrap();
    for kind in EkKind::ALL {
        let ek = EndorsementKey::load_kind(&tpm, kind).unwrap();
        let area = PublicArea::parse_tpm2b(ek.public()).unwrap();
        let secret = b"sixteen or more bytes of secret";
        let credential = make_credential(&area, &keys.ak.area().name(), secret).unwrap();
        let activated = ek.activate(&keys.ak, &credential.blob, &credential.encrypted_secret).unwrap();
        assert_eq!(activated, secret, "{kind}");

        // Made for another key's Name, it stays shut.
        let other = make_credential(&area, &keys.device.area().name(), secret).unwrap();
        let error = ek.activate(&keys.ak, &other.blob, &other.encrypted_secret).unwrap_err();
        assert_eq!(
            error.refusal().map(|code| code.name()).as_deref(),
            Some("TPM_RC_INTEGRITY"),
            "{kind}: {error}"
        );

        // What is no credential at all is refused before or by the TPM.
        assert!(ek.activate(&keys.ak, &[0; 300], &credential.encrypted_secret).is_err());
        assert!(ek.activate(&keys.ak, &credential.blob, &[]).is_err());
    }
    // Sessions do not pile up, refused or not.
    assert!(tpm.handles(0x0200_0000).unwrap().is_empty());
}

#[test]
fn swtpm_certifies_and_signs_and_the_ak_signs_nothing_it_did_not_make() {
    let bench = Bench::new();
    let keys = Keys::ephemeral(&bench.open()).unwrap();
    let (message, signature) = keys.ak.certify(&keys.device, &[5; 32]).unwrap();
    let attest = Attest::parse(&message).unwrap();
    keys.ak.area().verify(&Signature::parse(&signature).unwrap(), &message).unwrap();
    assert_eq!(attest.extra_data, [5; 32]);
    assert!(
        matches!(&attest.body, Body::Certify { name, .. } if name == keys.device.area().name().as_bytes())
    );

    let error = keys.ak.sign(&[1; 32]).unwrap_err();
    assert_eq!(error.refusal().map(|code| code.name()).as_deref(), Some("TPM_RC_TICKET"), "{error}");

    let key = DeviceSigningKey::new(keys.into()).unwrap();
    let signature = key.sign_message(&pae("a type", b"hello")).unwrap();
    verify_device_signature(&key.spki(), "a type", b"hello", &signature).unwrap();
    verify_device_signature(&key.spki(), "another", b"hello", &signature).unwrap_err();

    let request = key.certificate_request().unwrap();
    assert_eq!(Csr::parse(&request).unwrap().spki_der(), key.spki());
    std::fs::write(bench.path("request.der"), request).unwrap();
    tool(
        bench.folder.path(),
        "openssl",
        &["req", "-verify", "-noout", "-inform", "DER", "-in", "request.der"],
    );
}

#[test]
fn no_tpm_is_an_error_that_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let check = |target: String, advice: &str| {
        let error = Tpm::open(&target.parse::<Target>().unwrap()).err().unwrap();
        assert!(matches!(error, TpmError::Open { .. }) && error.to_string().contains(advice), "{error}");
    };
    check(folder.path().join("tpmrm0").display().to_string(), "load tpm_crb or tpm_tis");
    check(format!("unix:{}", folder.path().join("none").display()), "no such device");
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    check(format!("tcp:{port}"), "start the software TPM");
}
