//! `assay policy init debian`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use assay_evidence::verify::Claims;
use assay_trust::Policy;
use assay_trust::path::from_text;
use assay_trust::policy::{Field, Remark};
use assay_trust::{LearnError, learn, learn_rules};
use serde_json::json;

use super::explained::Explained;
use super::installed::installed;
use crate::appraise::VerifierArgs;
use crate::console::Console;
use crate::output;
use crate::policy::destination::Destination;
use crate::policy::learn::claims;
use crate::policy::source::file_list::FileList;
use crate::policy::source::{deb, initrd};

/// Arguments of `assay policy init debian`.
#[derive(clap::Args)]
pub struct Args {
    /// Folders of evidence of devices known to be good (`assay-agent collect`).
    #[arg(required_unless_present = "devices", value_name = "CASE_DIR")]
    case_dirs: Vec<PathBuf>,
    /// Go by the last evidence that the server keeps of this device, known to be good (may be repeated).
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Packages, or folders that hold packages at any depth, such as a mirror's pool (may be repeated).
    #[arg(long = "mirror", value_name = "DEB_OR_DIR", required_unless_present = "installed")]
    mirrors: Vec<PathBuf>,
    /// Go by the packages that are installed on this system, as far as dpkg finds their files unchanged.
    #[arg(long)]
    installed: bool,
    /// Root of the system for --installed.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// An initial ramdisk (may be repeated); with --installed, those in its /boot as well.
    #[arg(long = "initrd", value_name = "FILE")]
    initrds: Vec<PathBuf>,
    /// Leave out what nothing explains, instead of learning it from the device.
    #[arg(long)]
    only_explained: bool,
    /// Keep /bin, /sbin and /lib as they are: for systems where these are no links into /usr.
    #[arg(long)]
    no_usr_merge: bool,
    /// What to call it.
    #[arg(long, default_value = "debian")]
    name: String,
    #[command(flatten)]
    to: Destination,
    #[command(flatten)]
    verifier: VerifierArgs,
    #[command(flatten)]
    console: Console,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let cases = claims(&args.case_dirs, &args.devices, &args.verifier, &args.console)?;
    let mut remarks = Vec::new();
    let mut policy = of_the_boot(&args.name, &cases, &mut remarks)?;
    // Under a policy of Assay's only what runs is measured, else what is read as well.
    let all_files = policy.ima.as_ref().is_none_or(|ima| ima.kernel_policies.is_none());
    if all_files {
        remarks.push(note(
            "kernel_policies",
            "the devices follow no measured IMA policy, so that every file of the packages is listed: `assay-agent setup ima` \
             installs one that has measured what runs and not what is read",
        ));
    }
    let packages = packages(args, all_files, &mut remarks)?;
    let ramdisks = ramdisks(args)?;
    let explained = Explained::of(&cases, &packages, &ramdisks);
    take(&mut policy, &[&packages, &ramdisks], &explained, args.only_explained);
    report(args, &policy, &remarks, &explained)
}

/// Rules where Secure Boot says who signed what, else values.
fn of_the_boot(name: &str, cases: &[Claims], remarks: &mut Vec<Remark>) -> Result<Policy> {
    let cases: Vec<&Claims> = cases.iter().collect();
    match learn_rules(name, &[], &cases) {
        Err(LearnError::NoSecureBoot { .. }) => {
            remarks.push(Remark::note(
                Field::of(["pcr"]),
                "without Secure Boot there are no rules to learn, so that the boot is pinned by its PCR values: each update of \
                 kernel, initial ramdisk or boot menu needs new ones",
            ));
            Ok(learn(name, &[], &cases)?)
        }
        learned => Ok(learned?),
    }
}

fn packages(args: &Args, all_files: bool, remarks: &mut Vec<Remark>) -> Result<Policy> {
    let mut files = FileList::new("packages", all_files);
    deb::add_packages(&mut files, &args.mirrors, !args.no_usr_merge)?;
    if args.installed {
        let found = installed(&args.root, all_files)?;
        if !found.changed.is_empty() {
            let shown: Vec<&str> = found.changed.iter().take(SHOWN).map(String::as_str).collect();
            let count = found.changed.len();
            remarks.push(note(
                "allow",
                format!(
                    "{count} files are not as their packages have them, and are not listed: {}",
                    shown.join(", ")
                ),
            ));
        }
        files.absorb(found.files)?;
    }
    if files.len() == 0 {
        bail!("no program was found in the packages");
    }
    Ok(files.finish())
}

/// Every file of the initial ramdisks: until it loads another policy, the kernel's own measures what is read as well.
fn ramdisks(args: &Args) -> Result<Policy> {
    let mut files = FileList::new("initrd", true);
    let mut images = args.initrds.clone();
    if args.installed {
        images.extend(images_of(&args.root.join("boot")));
    }
    for image in &images {
        let read = initrd::read(image, true).with_context(|| image.display().to_string())?;
        files.absorb(read)?;
    }
    Ok(files.finish())
}

fn images_of(boot: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(boot).into_iter().flatten().flatten();
    let is_image = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("initrd.img-"))
    };
    let mut images: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(is_image).collect();
    images.sort_unstable();
    images
}

/// Puts the files of packages and ramdisks into the policy, and what the device makes itself in the place of its files.
fn take(policy: &mut Policy, lists: &[&Policy], explained: &Explained, only_explained: bool) {
    let files = lists.iter().filter_map(|list| list.ima.as_ref()).flat_map(|ima| &ima.allow);
    for (path, digests) in files {
        // It was written by us.
        let Some(bytes) = from_text(path) else { continue };
        digests.iter().for_each(|digest| policy.allow_file(&bytes, *digest));
    }
    let ima = policy.ima.get_or_insert_default();
    let kinds = explained.kinds();
    ima.made_on_device.extend_from_slice(&kinds);
    ima.made_on_device.sort_unstable();
    ima.made_on_device.dedup();
    if only_explained {
        for left in &explained.left {
            let Some(digests) = ima.allow.get_mut(&left.path) else { continue };
            digests.retain(|digest| digest.to_string() != left.digest);
            if digests.is_empty() {
                ima.allow.remove(&left.path);
            }
        }
    }
}

fn report(args: &Args, policy: &Policy, remarks: &[Remark], explained: &Explained) -> Result<()> {
    let percent = (explained.percent() * 10.0).floor() / 10.0;
    let kinds: Vec<_> =
        explained.kinds().iter().map(|kind| json!({ "kind": kind, "risk": kind.risk() })).collect();
    if args.to.json {
        let more = json!({
            "explained": explained, "percent": percent, "made_on_device": kinds,
            "left_are_accepted": !args.only_explained,
        });
        return args.to.write_with(policy, remarks, more);
    }
    args.to.write(policy, remarks)?;
    output::out!("\n{} files were measured, and {percent} % of them are explained:", explained.files);
    for (cause, count) in explained.causes.iter().filter(|(cause, _)| cause.explains()) {
        output::out!("{count:>7}  {}", cause.words());
    }
    for kind in explained.kinds() {
        output::out!("         {kind}: {}", kind.risk());
    }
    if explained.left.is_empty() {
        return Ok(());
    }
    output::out!(
        "{}",
        match args.only_explained {
            true => "Left, and not accepted:",
            false => "Left, and accepted as the device has them (--only-explained leaves them out):",
        }
    );
    for (cause, count) in explained.causes.iter().filter(|(cause, _)| !cause.explains()) {
        output::out!("{count:>7}  {}", cause.words());
        for left in explained.left.iter().filter(|left| left.cause == *cause).take(SHOWN) {
            output::out!("           {}", left.path);
        }
    }
    Ok(())
}

fn note(field: &str, message: impl Into<String>) -> Remark {
    Remark::note(Field::of(["ima", field]), message)
}

/// Files that are named; `--json` has all.
const SHOWN: usize = 20;
