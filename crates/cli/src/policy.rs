//! `assay policy`: the policies in force, new ones, and the offline verbs that make and read policies.
//!
//! Each verb is in a file `policy_*.rs`; what an offline one decides is in `assay_trust::policy`.

use std::process::ExitCode;

use clap::Subcommand;

use crate::{
    output, policy_assign, policy_deb, policy_diff, policy_eks, policy_import, policy_initrd, policy_learn,
    policy_lint, policy_merge, policy_rollout, policy_rootfs, policy_sign, policy_try,
};

/// Arguments of `assay policy`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Which policy is in force for whom, how far roll-outs are, and how many devices each judges.
    List(policy_assign::ListArgs),
    /// The text of a policy: the one for every device, for one device, or of a name.
    Show(policy_assign::ShowArgs),
    /// Put a policy in force, as the next version of its name, for every device or for those with a label. They are
    /// appraised under it at once.
    Set(policy_assign::SetArgs),
    /// Take a policy back from the devices with a label: the next best one judges them, or none.
    Unassign(policy_assign::UnassignArgs),
    /// Take a policy to its next version in stages, so that no device falls.
    Rollout(policy_rollout::Args),
    /// Judge the evidence that is kept by a policy that is not in force, and say which devices would change and why.
    /// Nothing is changed. Exit 0: no device would fall; 1: some would; 2: it cannot be tried.
    Try(policy_try::Args),
    /// Make a policy from folders of good evidence.
    Learn(policy_learn::Args),
    /// Say everything that speaks against a policy, by line. Exit 0: nothing; 1: something; 2: no such file.
    Lint(policy_lint::Args),
    /// Say what changes when one policy takes another's place. Exit 0: nothing; 1: something; 2: of no use.
    Diff(policy_diff::Args),
    /// Make one policy of several: lists are joined, the stricter demand holds.
    Merge(policy_merge::Args),
    /// Vouch for endorsement keys by their hash, for TPMs without a certificate or beside it.
    AllowEks(policy_eks::Args),
    /// Make a policy of Keylime's, and say what means something else here.
    Import(policy_import::Args),
    /// Make a policy of the programs in Debian packages.
    FromDeb(policy_deb::Args),
    /// Make a policy of the programs of a root file system.
    FromRootfs(policy_rootfs::Args),
    /// Make a policy of the programs of an initramfs.
    FromInitrd(policy_initrd::Args),
    /// Sign a policy, so that a server which wants signatures puts it in force.
    Sign(policy_sign::SignArgs),
    /// Say which of the given keys signed a policy. Exit 0: at least one did.
    Verify(policy_sign::VerifyArgs),
}

/// Runs the verb.
pub fn run(args: Args) -> ExitCode {
    match args.verb {
        Verb::List(args) => output::exit(policy_assign::list(&args)),
        Verb::Show(args) => output::exit(policy_assign::show(&args)),
        Verb::Set(args) => output::exit(policy_assign::set(&args)),
        Verb::Unassign(args) => output::exit(policy_assign::unassign(&args)),
        Verb::Rollout(args) => output::exit(policy_rollout::run(&args)),
        Verb::Try(args) => policy_try::run(&args),
        Verb::Learn(args) => policy_learn::run(args),
        Verb::Lint(args) => policy_lint::run(&args),
        Verb::Diff(args) => policy_diff::run(&args),
        Verb::Merge(args) => output::exit(policy_merge::run(&args)),
        Verb::AllowEks(args) => output::exit(policy_eks::run(&args)),
        Verb::Import(args) => output::exit(policy_import::run(&args)),
        Verb::FromDeb(args) => output::exit(policy_deb::run(&args)),
        Verb::FromRootfs(args) => output::exit(policy_rootfs::run(&args)),
        Verb::FromInitrd(args) => output::exit(policy_initrd::run(&args)),
        Verb::Sign(args) => output::exit(policy_sign::sign(&args)),
        Verb::Verify(args) => output::exit(policy_sign::verify(&args)),
    }
}
