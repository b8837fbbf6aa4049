//! Makes the cases of `vectors/field` that are the project's own: `cargo run -p assay-testkit --example field_vectors DIR`.
//!
//! Keys are new each time, so that every file changes with each run; `cases.json` and the policies are written by hand.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use assay_testkit::edge::protocol::{Challenge, PcrSelection};
use assay_testkit::machine::{ImaEntry, measure_record};
use assay_testkit::pcrs::Measurement;
use assay_testkit::software_device::Quoting;
use assay_testkit::{Bank, EkMaker, SoftwareDevice, System, policy_for, tamper};
use data_encoding::HEXLOWER;

type Outcome = Result<(), Box<dyn Error>>;

fn main() -> Outcome {
    let root = PathBuf::from(std::env::args().nth(1).ok_or("name the folder to write to")?);
    let device = SoftwareDevice::new("field", &EkMaker::new()?)?;
    fs::create_dir_all(&root)?;
    let policy = policy_for("field", &[&device]);
    let policy = format!("{policy}\n[endorsement]\nrequired = \"dangerous_none\"\n");
    fs::write(root.join("policy.toml"), &policy)?;
    for (name, pcr) in [("two-pcrs", 15), ("pcr-11", 11), ("pcr-14", 14)] {
        let policy = policy.replace("[ima]\n", &format!("[ima]\npcrs = [10, {pcr}]\n"));
        fs::write(root.join(format!("policy-{name}.toml")), policy)?;
    }
    other_pcrs(&root.join("ima-other-pcr"))?;
    measurements(&root.join("measure-log"))?;
    lists(&root.join("ima-list"))?;
    further(&root.join("further"))
}

fn device() -> Result<SoftwareDevice, Box<dyn Error>> {
    Ok(SoftwareDevice::new("field", &EkMaker::new()?)?)
}

/// Files measured into PCR 15, which is quoted, is not, or holds an entry that the list lacks.
fn other_pcrs(root: &Path) -> Outcome {
    let measured = || -> Result<SoftwareDevice, Box<dyn Error>> {
        let mut device = device()?;
        let files: Vec<ImaEntry> = device.ima.entries().iter().skip(1).take(2).cloned().collect();
        files.into_iter().for_each(|file| device.measure(file.into_pcr(15)));
        Ok(device)
    };
    Case::of(&mut measured()?).write(&root.join("attested"), 16)?;
    Case::of(&mut measured()?).write(&root.join("not-quoted"), 15)?;
    let mut kept_back = measured()?;
    kept_back.pcrs.extend(&ImaEntry::file("/tmp/implant", b"evil").into_pcr(15).measurement(&[Bank::Sha256]));
    Case::of(&mut kept_back).write(&root.join("entry-kept-back"), 16)
}

/// Words of systemd in PCR 15, with its log, without it, and with one that lies.
fn measurements(root: &Path) -> Outcome {
    let mut device = device()?;
    device.say(15, "machine-id", "machine-id:4691595be6a345f1833cc75fab63e475");
    device.say(15, "filesystem", "file-system:/:ext4:61b91a80::root:4f68bce3:root");
    Case::of(&mut device).write(&root.join("told"), 16)?;
    let log = std::mem::take(&mut device.measure_log);
    Case::of(&mut device).write(&root.join("not-told"), 16)?;
    device.measure_log =
        [log, measure_record(&[Bank::Sha256], 15, "filesystem", "file-system:/var")].concat();
    Case::of(&mut device).write(&root.join("ahead"), 16)?;
    device.measure_log = measure_record(&[Bank::Sha256], 15, "machine-id", "machine-id:another");
    Case::of(&mut device).write(&root.join("lies"), 16)
}

/// Lists that are not the PCRs', each for a reason of its own.
fn lists(root: &Path) -> Outcome {
    let mut device = device()?;
    let whole = device.ima.binary_from(0).to_vec();
    let entries = tamper::ima_entries(&whole);
    let (Some(second), Some(last)) = (entries.get(1), entries.last()) else {
        return Err("no entries".into());
    };
    let with = |device: &mut SoftwareDevice, ima: &[u8], name: &str| {
        Case { ima: ima.to_vec(), ..Case::of(device) }.write(&root.join(name), 16)
    };
    let cut = |range: std::ops::Range<usize>| whole.get(range).unwrap_or_default().to_vec();
    with(
        &mut device,
        &[whole.clone(), ImaEntry::file("/opt/later", b"later").binary()].concat(),
        "ahead-of-the-quote",
    )?;
    with(&mut device, &cut(0..last.start), "end-missing")?;
    with(&mut device, &cut(second.start..whole.len()), "start-missing")?;
    with(&mut device, &cut(0..whole.len() - 5), "cut-short")?;
    let mut altered = whole.clone();
    tamper::flip_bit(&mut altered, (second.end - 8) * 8);
    with(&mut device, &altered, "altered")?;
    device.boot(&System { kernel: "6.12.10-amd64".into(), ..System::default() });
    with(&mut device, &whole, "other-boot")?;
    // Extended after the kernel looked, and no boot log says so.
    let mut later = self::device()?;
    later.pcrs.extend(&Measurement::of(&[Bank::Sha256], 4, b"os-separator"));
    Case { boot_log: Vec::new(), ..Case::of(&mut later) }.write(&root.join("boot-log-not-sent"), 16)
}

/// Machines of kinds that were told, which differ from the machine told.
fn further(root: &Path) -> Outcome {
    let ended = |device: &mut SoftwareDevice, pcrs: &[u32], times: usize| {
        for pcr in pcrs.iter().flat_map(|pcr| std::iter::repeat_n(*pcr, times)) {
            device.pcrs.extend(&Measurement::of(&[Bank::Sha256], pcr, b"os-separator"));
        }
    };
    for (name, pcrs, times) in [
        ("ends-9-12-13", &[9, 12, 13][..], 1),
        ("ends-7-twice", &[7], 2),
        ("ends-0-to-7-thrice", &FIRMWARE_PCRS, 3),
    ] {
        let mut device = device()?;
        ended(&mut device, pcrs, times);
        Case::of(&mut device).write(&root.join(name), 16)?;
    }
    // Between two kernels, user space of the first ends the PCRs of the firmware.
    let mut device = device()?;
    for _ in 0..3 {
        ended(&mut device, &FIRMWARE_PCRS, 1);
        device.measure(ImaEntry::boot_aggregate(&device.pcrs));
    }
    Case::of(&mut device).write(&root.join("kexec-thrice"), 16)?;
    let mut other = device.pcrs.clone();
    other.extend(&Measurement::of(&[Bank::Sha256], 4, b"another boot loader"));
    device.measure(ImaEntry::boot_aggregate(&other));
    Case::of(&mut device).write(&root.join("kexec-wrong-last"), 16)?;
    for pcr in [11, 14] {
        let mut device = self::device()?;
        let files: Vec<ImaEntry> = device.ima.entries().iter().skip(1).take(2).cloned().collect();
        files.into_iter().for_each(|file| device.measure(file.into_pcr(pcr)));
        Case::of(&mut device).write(&root.join(format!("list-in-pcr-{pcr}")), 16)?;
    }
    Ok(())
}

/// A folder as `assay-agent collect` writes it, as far as it is needed here.
struct Case<'a> {
    device: &'a mut SoftwareDevice,
    boot_log: Vec<u8>,
    measure_log: Vec<u8>,
    ima: Vec<u8>,
}

impl<'a> Case<'a> {
    fn of(device: &'a mut SoftwareDevice) -> Self {
        Case {
            boot_log: device.boot_log.clone(),
            measure_log: device.measure_log.clone(),
            ima: device.ima.binary_from(0).to_vec(),
            device,
        }
    }

    /// With a quote of the first so many PCRs.
    fn write(self, folder: &Path, pcrs: u32) -> Outcome {
        let selection = vec![PcrSelection { bank: "sha256".into(), pcrs: (0..pcrs).collect() }];
        let challenge = Challenge { nonce: NONCE.to_vec(), selection, ..Challenge::default() };
        let quote = Quoting::honest(self.device, &challenge).sign(&self.device.ak)?;
        fs::create_dir_all(folder)?;
        let digests: Vec<&[u8]> = quote.pcrs.iter().map(|value| value.digest.as_slice()).collect();
        let (nonce, public, pcrs) =
            (HEXLOWER.encode(&NONCE), self.device.ak.public_area(), pcr_file(&digests));
        let files: [(&str, &[u8]); 8] = [
            ("quote.msg", &quote.message),
            ("quote.sig", &quote.signature),
            ("quote.pcrs", &pcrs),
            ("quote.nonce", nonce.as_bytes()),
            ("ak.tpm2b_public", &public),
            ("binary_bios_measurements", &self.boot_log),
            ("tpm2-measure.log", &self.measure_log),
            ("binary_runtime_measurements", &self.ima),
        ];
        for (name, bytes) in files.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            fs::write(folder.join(name), bytes)?;
        }
        Ok(())
    }
}

/// As tpm2_quote writes the first PCRs of the SHA-256 bank: a TPML_PCR_SELECTION with its sixteen slots, a count, and lists of
/// eight digests with 64 bytes each.
fn pcr_file(digests: &[&[u8]]) -> Vec<u8> {
    let mask = (1u32 << digests.len()) - 1;
    let mut file = 1u32.to_le_bytes().to_vec();
    file.extend([0x0b, 0, 3]);
    file.extend(mask.to_le_bytes());
    file.push(0);
    file.resize(4 + 16 * 8, 0);
    let lists: Vec<&[&[u8]]> = digests.chunks(8).collect();
    file.extend(u32::try_from(lists.len()).unwrap_or_default().to_le_bytes());
    for list in lists {
        file.extend(u32::try_from(list.len()).unwrap_or_default().to_le_bytes());
        for slot in 0..8 {
            let digest = list.get(slot).copied().unwrap_or_default();
            file.extend(u16::try_from(digest.len()).unwrap_or_default().to_le_bytes());
            let mut buffer = digest.to_vec();
            buffer.resize(64, 0);
            file.extend(buffer);
        }
    }
    file
}

const NONCE: [u8; 32] = [7; 32];
/// TCG PC Client Platform Firmware Profile, 2.3.4.
const FIRMWARE_PCRS: [u32; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
