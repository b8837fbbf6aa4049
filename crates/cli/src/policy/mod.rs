//! `assay policy`: the policies in force, new ones, and the offline verbs that make and read policies.
//!
//! Each verb is in the file of its name, those that make a policy of files in `source/`; what an offline one decides is
//! in `assay_trust::policy`.

mod allow_eks;
mod allow_kernel;
mod destination;
mod diff;
mod import;
mod init;
mod learn;
mod lint;
mod list;
mod merge;
mod rollout;
mod set;
mod sign;
mod source;
pub mod text;
mod r#try;
mod whom;

use std::process::ExitCode;

use clap::Subcommand;

use self::source::{deb, initrd, rootfs};
use crate::output;

/// Arguments of `assay policy`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Which policy is in force for whom, how far roll-outs are, and how many devices each judges.
    List(list::ListArgs),
    /// The text of a policy: the one for every device, for one device, or of a name.
    Show(list::ShowArgs),
    /// Put a policy in force, as the next version of its name, for every device or for those with a label. They are
    /// appraised under it at once. Refused while a trusted device would fall of it, as far as kept evidence tells.
    Set(set::SetArgs),
    /// Take a policy back from the devices with a label: the next best one judges them, or none. Refused while a trusted
    /// device would fall of that.
    Unassign(set::UnassignArgs),
    /// Take a policy to its next version in stages, so that no device falls.
    Rollout(rollout::Args),
    /// Judge the evidence that is kept by a policy that is not in force, and say which devices would change and why.
    /// Nothing is changed. Exit 0: no device would fall; 1: some would; 2: it cannot be tried.
    Try(r#try::Args),
    /// Make a policy from folders of good evidence.
    Learn(learn::Args),
    /// Say everything that speaks against a policy, by line. Exit 0: nothing; 1: something; 2: no such file.
    Lint(lint::Args),
    /// Say what changes when one policy takes another's place. Exit 0: nothing; 1: something; 2: of no use.
    Diff(diff::Args),
    /// Make one policy of several: lists are joined, the stricter demand holds.
    Merge(merge::Args),
    /// Vouch for endorsement keys by their hash, for TPMs without a certificate or beside it.
    AllowEks(allow_eks::Args),
    /// Accept a kernel with its initial ramdisk, by their files, in a policy of rules.
    AllowKernel(allow_kernel::Args),
    /// Make a policy that a system can live with, of its packages and of a device known to be good, and say how much they
    /// explain.
    Init(init::Args),
    /// Make a policy of Keylime's, and say what means something else here.
    Import(import::Args),
    /// Make a policy of the programs in Debian packages.
    FromDeb(deb::Args),
    /// Make a policy of the programs of a root file system.
    FromRootfs(rootfs::Args),
    /// Make a policy of the programs of an initramfs.
    FromInitrd(initrd::Args),
    /// Sign a policy, so that a server which wants signatures puts it in force.
    Sign(sign::SignArgs),
    /// Say which of the given keys signed a policy. Exit 0: at least one did.
    Verify(sign::VerifyArgs),
}

/// Runs the verb.
pub fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::List(args) => output::exit(list::list(&args)),
        Verb::Show(args) => output::exit(list::show(&args)),
        Verb::Set(args) => output::exit(set::set(&args)),
        Verb::Unassign(args) => output::exit(set::unassign(&args)),
        Verb::Rollout(args) => output::exit(rollout::run(&args)),
        Verb::Try(args) => r#try::run(&args),
        Verb::Learn(args) => learn::run(args),
        Verb::Lint(args) => lint::run(&args),
        Verb::Diff(args) => diff::run(&args),
        Verb::Merge(args) => output::exit(merge::run(&args)),
        Verb::AllowEks(args) => output::exit(allow_eks::run(&args)),
        Verb::AllowKernel(args) => output::exit(allow_kernel::run(&args)),
        Verb::Init(args) => output::exit(init::run(&args)),
        Verb::Import(args) => output::exit(import::run(&args)),
        Verb::FromDeb(args) => output::exit(deb::run(&args)),
        Verb::FromRootfs(args) => output::exit(rootfs::run(&args)),
        Verb::FromInitrd(args) => output::exit(initrd::run(&args)),
        Verb::Sign(args) => output::exit(sign::sign(&args)),
        Verb::Verify(args) => output::exit(sign::verify(&args)),
    }
}
