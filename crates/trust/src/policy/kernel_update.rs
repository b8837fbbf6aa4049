//! A kernel update under rules: its files stand where the files of the kernel before it stood.

use assay_evidence::{Digest, HashAlgorithm};
use thiserror::Error;

use super::{Alternative, BootSection, Policy, Slot};

/// Why a policy takes no files of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "no sequence of the policy has a place for a file, so that it lists none: learn it with --boot rules from a device whose \
     boot loader or kernel measures what it reads, or learn this kernel from a device that has it"
)]
pub struct NoBootFiles;

impl Policy {
    /// Accepts boots that read these files where the policy's own read theirs, each as a whole: the new kernel with the new
    /// initial ramdisk, and not one of them with an old other. With `is_only`, what was accepted is so no longer.
    ///
    /// `files` has of each file its digest by every algorithm that a boot log may have.
    pub fn allow_kernel(&mut self, files: &[Vec<Digest>], is_only: bool) -> Result<(), NoBootFiles> {
        let mut boots = Vec::new();
        let mut is_any = false;
        for boot in self.boots() {
            let old = Alternative { pcr: boot.pcr.clone(), boot: boot.boot.clone() };
            let has_files = reads_files(boot.boot);
            is_any |= has_files;
            if has_files {
                let bank = old.boot.files.first().map_or(HashAlgorithm::Sha256, Digest::algorithm);
                let of_bank = files.iter().flatten().filter(|digest| digest.algorithm() == bank);
                let mut new = old.clone();
                new.boot.files = of_bank.copied().collect();
                boots.push(new);
            }
            boots.extend(Some(old).filter(|_| !(has_files && is_only)));
        }
        if !is_any {
            return Err(NoBootFiles);
        }
        self.accept_boots(&boots);
        Ok(())
    }
}

fn reads_files(boot: &BootSection) -> bool {
    let mut slots = boot.sequence.values().flatten().flat_map(|sequence| &sequence.0);
    slots.any(|slot| *slot == Slot::File)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(name: char) -> Digest {
        HashAlgorithm::Sha256.hash(&[name.to_string().as_bytes()])
    }

    fn policy(rest: &str) -> Policy {
        Policy::from_toml(&format!("name = \"edge\"\nversion = 1\n{rest}")).unwrap()
    }

    /// The files of each boot that is accepted, as letters.
    fn check(policy: &mut Policy, is_only: bool, expected: &[&str]) {
        policy.allow_kernel(&[vec![digest('c')], vec![digest('d')]], is_only).unwrap();
        let letters = |boot: &BootSection| -> String {
            ('a'..='d').filter(|letter| boot.files.contains(&digest(*letter))).collect()
        };
        let mut found: Vec<String> = policy.boots().map(|boot| letters(boot.boot)).collect();
        found.sort_unstable();
        assert_eq!(found, expected);
    }

    #[test]
    fn files_of_two_kernels_are_never_in_one_boot() {
        let text = format!(
            "[boot]\nfiles = [\"{}\", \"{}\"]\n[boot.sequence]\n9 = [[\"file\", \"file\"]]\n",
            digest('a'),
            digest('b')
        );
        check(&mut policy(&text), false, &["ab", "cd"]);
        check(&mut policy(&text), true, &["cd"]);
        // A second time changes nothing.
        let mut twice = policy(&text);
        check(&mut twice, false, &["ab", "cd"]);
        check(&mut twice, false, &["ab", "cd"]);
    }

    #[test]
    fn a_policy_without_places_for_files_takes_none() {
        let mut pins = policy(&format!("[pcr.sha256]\n\"4\" = [\"{}\"]\n", digest('a').to_hex()));
        assert_eq!(pins.allow_kernel(&[vec![digest('c')]], false), Err(NoBootFiles));
    }
}
