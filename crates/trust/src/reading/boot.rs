//! What came up, by the boot log.

use assay_evidence::boot_log::{Authority, BootClaims, BootFacts, Image, KernelLine, SignatureKind};

use super::{Stage, What};
use crate::words::{counted, counted_as, names};

/// The stages of a boot, in the order in which a machine comes up.
pub(super) fn stages(boot: &BootClaims) -> Vec<Stage> {
    let facts = boot.facts();
    let mut stages = vec![firmware(facts)];
    stages.extend(option_roms(facts));
    stages.push(secure_boot(facts));
    stages.extend(images(facts));
    stages.extend(machine_owner_keys(facts));
    // Stable, so that images stay in the order in which they were started.
    stages.sort_by_key(|stage| stage.what);
    stages.extend(unified_kernel(facts));
    stages.extend(command_lines(facts));
    stages.extend(loaded_files(facts));
    stages
}

fn firmware(facts: &BootFacts) -> Stage {
    let version = facts.firmware_version.as_deref().filter(|version| version.chars().any(|one| one != '0'));
    let name = version.map_or_else(|| "states no version".to_owned(), |version| format!("version {version}"));
    let code = facts.firmware.iter().filter(|item| item.pcr.get() == FIRMWARE_PCR).count();
    let errors = &facts.error_separators;
    let failed = (!errors.is_empty()).then(|| {
        let pcrs: Vec<String> = errors.iter().map(ToString::to_string).collect();
        format!("reports an error in PCR {}", pcrs.join(", "))
    });
    let measured = counted_as(code, "measurement of its code", "measurements of its code");
    Stage::new(What::Firmware, &name, &[0, 1]).saying([measured].into_iter().chain(failed))
}

fn option_roms(facts: &BootFacts) -> Option<Stage> {
    let roms: Vec<&str> = facts
        .firmware
        .iter()
        .filter(|item| item.pcr.get() != FIRMWARE_PCR)
        .map(|item| item.remark.as_str())
        .collect();
    let name = counted(roms.len(), "image");
    (!roms.is_empty()).then(|| Stage::new(What::OptionRoms, &name, &[2, 3]).saying([names(&roms)]))
}

fn secure_boot(facts: &BootFacts) -> Stage {
    let name = match &facts.secure_boot {
        Some(variables) if variables.is_enabled => "on",
        Some(_) => "off",
        None => "unknown: PCR 7 does not begin with its variables",
    };
    let mut details = Vec::new();
    if let Some(variables) = &facts.secure_boot {
        details.extend(
            [("platform key", &variables.pk), ("key exchange keys", &variables.kek), ("db", &variables.db)]
                .map(|(what, list)| signers(what, list.iter().map(|signature| &signature.kind))),
        );
        details.push(format!("dbx: {}", counted_as(variables.dbx.len(), "entry", "entries")));
    }
    details.extend(facts.sbat_level.as_ref().map(|level| format!("SBAT level {}", level.trim())));
    details.extend(facts.is_shim_validation_off.then(|| "shim's own checks are switched off".to_owned()));
    details.extend(facts.remeasured.iter().map(|name| format!("{name} was measured again after the boot")));
    details.extend(facts.statements.iter().map(|statement| format!("the firmware says: {}", statement.text)));
    Stage::new(What::SecureBoot, name, &[7]).saying(details)
}

/// Certificates by their subjects, everything else by number.
fn signers<'a>(what: &str, signatures: impl Iterator<Item = &'a SignatureKind>) -> String {
    let (mut subjects, mut others) = (Vec::new(), 0_usize);
    for signature in signatures {
        match signature {
            SignatureKind::Certificate { subject, .. } if !subject.is_empty() => {
                subjects.push(subject.as_str());
            }
            _ => others += 1,
        }
    }
    match (subjects.is_empty(), others) {
        (true, 0) => format!("{what}: empty"),
        (true, others) => format!("{what}: {}", counted_as(others, "digest", "digests")),
        (false, 0) => format!("{what}: {}", names(&subjects)),
        (false, others) => format!("{what}: {} and {}", names(&subjects), counted(others, "digest")),
    }
}

/// What the firmware started, and what that was trusted by as far as the log's order tells.
fn images(facts: &BootFacts) -> impl Iterator<Item = Stage> {
    let images = &facts.boot_applications;
    let (kernel, last) = (kernel_name(facts), images.last().map(|image| image.digest));
    images.iter().enumerate().map(move |(place, image)| {
        // What checks an image and what starts it may each measure it.
        let is_last = Some(image.digest) == last;
        let since = place.checked_sub(1).and_then(|before| images.get(before)).map_or(0, |image| image.event);
        let trusted = facts.authorities.iter().filter(move |authority| {
            (since..image.event).contains(&authority.event) && !authority.is_setting()
        });
        let trusted = trusted.map(trusted_by).collect::<Vec<_>>();
        let called =
            if is_last { kernel.map(|kernel| format!("its loader calls it {kernel}")) } else { None };
        let what = if is_last { What::Kernel } else { What::BootLoader };
        let stage = Stage::new(what, path(image), &[4]).saying(called.into_iter().chain(trusted));
        Stage { digest: Some(image.digest), ..stage }
    })
}

/// Where the log has no path, it has the event's type.
fn path(image: &Image) -> &str {
    let path = image.remark.trim();
    if path.is_empty() || path.starts_with("EV_") { "an image that was handed over in memory" } else { path }
}

fn trusted_by(authority: &Authority) -> String {
    let by = match &authority.signature {
        Some(SignatureKind::Certificate { subject, .. }) if !subject.is_empty() => subject.as_str(),
        Some(SignatureKind::ImageDigest(_)) => "its own digest",
        _ => "what is not readable",
    };
    format!("trusted by {by} ({})", authority.variable)
}

/// The version in what exactly one command line loads, or else the file.
fn kernel_name(facts: &BootFacts) -> Option<&str> {
    match facts.kernel_lines().as_deref() {
        Some([line]) => {
            let line = KernelLine::parse(line);
            line.version().or(line.image)
        }
        _ => None,
    }
}

fn machine_owner_keys(facts: &BootFacts) -> Option<Stage> {
    let lists: Vec<&str> = facts.mok.iter().map(|item| item.remark.as_str()).collect();
    let name = counted(lists.len(), "list");
    (!lists.is_empty()).then(|| Stage::new(What::MachineOwnerKeys, &name, &[14]).saying([names(&lists)]))
}

fn unified_kernel(facts: &BootFacts) -> Option<Stage> {
    let sections: Vec<&str> = facts.unified_kernel.iter().map(|section| section.name).collect();
    let name = counted(sections.len(), "section");
    let beside = [
        ("credential or add-on", facts.credentials().count()),
        ("system extension", facts.system_extensions().count()),
    ];
    let beside = beside.into_iter().filter(|(_, count)| *count > 0).map(|(what, count)| counted(count, what));
    let stage = || {
        Stage::new(What::UnifiedKernel, &name, &[11, 12, 13])
            .saying([sections.join(", ")].into_iter().chain(beside))
    };
    (!sections.is_empty()).then(stage)
}

fn command_lines(facts: &BootFacts) -> Option<Stage> {
    let Some(lines) = facts.kernel_lines() else {
        let name = "something where command lines are measured does not read";
        return Some(Stage::new(What::CommandLine, name, &[8, 12]));
    };
    let (first, more) = lines.split_first()?;
    let more = more.iter().map(|line| (*line).to_owned());
    Some(Stage::new(What::CommandLine, first, &[8, 12]).saying(more))
}

fn loaded_files(facts: &BootFacts) -> Option<Stage> {
    let files: Vec<&str> = facts
        .loaded
        .iter()
        .filter(|item| item.pcr.get() == LOADED_FILES_PCR)
        .map(|item| item.remark.as_str())
        .collect();
    let name = counted(files.len(), "file");
    (!files.is_empty()).then(|| Stage::new(What::LoadedFiles, &name, &[9]).saying([names(&files)]))
}

const FIRMWARE_PCR: u8 = 0;
const LOADED_FILES_PCR: u8 = 9;
