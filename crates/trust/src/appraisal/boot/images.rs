//! The images that were started, and who vouched for them.

use std::collections::HashSet;

use assay_evidence::Digest;
use assay_evidence::boot_log::{Authority, BootFacts, SignatureKind};

use super::{Report, refusal};
use crate::appraisal::demand::{StartedImages, TrustedImages, witness};
use crate::policy::{BootRule, BootSection};

impl Report<'_> {
    /// Everything that was started is known, and where kernels are listed one of them was.
    ///
    /// Which image is the kernel only a label says. So a kernel is one of `kernels`, and whatever else was started has
    /// to be listed as well.
    pub(super) fn judge_images(&mut self, facts: Option<&BootFacts>, boot: &BootSection) {
        let Some(applications) = &boot.applications else { return };
        let kernels = boot.kernels.as_deref();
        let citation = self.policy.citation();
        let expected = format!("an image of policy {citation}");
        let missing = || {
            let message =
                format!("The boot log shows no started image, and policy {citation} lists allowed ones.");
            refusal("boot image", expected.as_str(), "unknown", message)
        };
        let Some(StartedImages(started)) = witness(facts, self.findings, missing) else { return };
        let (facts, images) = *started;
        let is_kernel = |digest: &Digest| kernels.is_some_and(|kernels| kernels.contains(digest));
        let is_listed = |digest: &Digest| applications.contains(digest) || is_kernel(digest);
        // A kernel is the last thing that is started.
        let last = images.last().map(|image| image.digest);
        // shim measures what it verifies, and the firmware measures it again when it starts.
        let mut said = HashSet::new();
        for image in images.iter().filter(|image| !is_listed(&image.digest) && said.insert(image.digest)) {
            let fields =
                if kernels.is_some() { "boot.kernels or boot.applications" } else { "boot.applications" };
            let message = format!(
                "The firmware started `{}` ({}), which policy {citation} does not list: if it is an update of yours, add it \
                 to {fields}",
                image.remark, image.digest
            );
            let rule = match kernels.is_some() && last == Some(image.digest) {
                true => BootRule::Kernel(image.digest),
                false => BootRule::Image(image.digest),
            };
            self.refuse_unlisted(rule, &image.remark, expected.as_str(), image.digest.to_string(), &message);
        }
        self.judge_order(facts, &is_kernel);
        if kernels.is_some() && !images.iter().any(|image| is_kernel(&image.digest)) {
            let message = format!(
                "None of the images that were started is a kernel of policy {citation}: add the kernel's Authenticode digest \
                 to boot.kernels if it is yours."
            );
            self.refuse("kernel", format!("a kernel of policy {citation}"), "another", message);
        }
    }

    /// A kernel is the last thing that is started: what PCR 4 has after it was appended, and what boot loaders say was
    /// said by one that the kernel did not start from.
    fn judge_order(&mut self, facts: &BootFacts, is_kernel: &dyn Fn(&Digest) -> bool) {
        let images = &facts.boot_applications;
        let Some(first) = images.iter().position(|image| is_kernel(&image.digest)) else { return };
        let (loaders, kernels) = images.split_at(first);
        let kernel = kernels.first().map(|kernel| kernel.digest);
        for image in kernels.iter().filter(|image| Some(image.digest) != kernel) {
            let message = format!(
                "`{}` ({}) was measured after the kernel had started, so that the boot that the log tells is not the one that \
                 happened: nothing starts after a kernel.",
                image.remark, image.digest
            );
            self.refuse(&image.remark, "nothing after the kernel", image.digest.to_string(), message);
        }
        let mut started: Vec<Digest> = loaders.iter().map(|image| image.digest).collect();
        started.dedup();
        let least = loaders_least(facts);
        if started.len() < least {
            let message = format!(
                "PCR 8 has commands of a boot loader, and PCR 4 has {} image(s) before the kernel where {least} would have had to \
                 start: whoever wrote the commands did not load the kernel.",
                started.len()
            );
            self.refuse(
                "boot loader",
                format!("{least} images before the kernel"),
                started.len().to_string(),
                message,
            );
        }
    }

    /// Secure Boot was on, and everything that it trusted an image by is known.
    pub(super) fn judge_signers(&mut self, facts: Option<&BootFacts>, boot: &BootSection) {
        let Some(allowed) = &boot.signers else { return };
        let citation = self.policy.citation();
        let expected = format!("a signer of policy {citation}");
        let missing = || {
            let message = format!(
                "The boot log does not show that Secure Boot checked who signed what was started, and policy {citation} \
                 lists signers: turn Secure Boot on in the firmware set-up."
            );
            refusal("signer", expected.as_str(), "unknown", message)
        };
        let Some(TrustedImages(facts)) = witness(facts, self.findings, missing) else { return };
        for event in &facts.unexplained_in_pcr7 {
            let message = format!(
                "Event {event} of the boot log changed PCR 7 and does not say by what Secure Boot trusted an image, and \
                 policy {citation} lists who it may trust."
            );
            self.refuse("signer", expected.as_str(), format!("event {event}"), message);
        }
        let is_known = |authority: &&Authority| {
            authority.is_setting() || signer(authority).is_some_and(|signer| allowed.contains(&signer))
        };
        for authority in facts.authorities.iter().filter(|authority| !is_known(authority)) {
            let (found, who) = named(authority);
            let message = format!(
                "Secure Boot trusted an image by {who}, from `{}`, which policy {citation} does not list: if it is to be \
                 trusted, add {found} to boot.signers",
                authority.variable
            );
            match signer(authority) {
                Some(digest) => {
                    let rule = BootRule::Signer(digest);
                    self.refuse_unlisted(rule, "signer", expected.as_str(), found, &message);
                }
                None => self.refuse("signer", expected.as_str(), found, message + "."),
            }
        }
    }
}

/// How many images start before a kernel at the least: what ran commands, and shim, which runs none and leaves its own marks,
/// so that something else has to come behind it.
pub(crate) fn loaders_least(facts: &BootFacts) -> usize {
    let has_commands = facts.has_loader_texts();
    let has_shim = facts.sbat_level.is_some() || !facts.mok.is_empty();
    usize::from(has_commands) + usize::from(has_commands && has_shim)
}

/// What Secure Boot trusted images by; `None` unless it was on and says so of every one.
pub(crate) fn signers_of(facts: &BootFacts) -> Option<Vec<Digest>> {
    let is_on = facts.secure_boot.as_ref().is_some_and(|variables| variables.is_enabled);
    let signers = facts.authorities.iter().filter(|authority| !authority.is_setting()).map(signer);
    let signers: Vec<Digest> = signers.collect::<Option<_>>()?;
    (is_on && facts.unexplained_in_pcr7.is_empty() && !signers.is_empty()).then_some(signers)
}

/// The certificate or image that an authority is.
fn signer(authority: &Authority) -> Option<Digest> {
    match &authority.signature {
        Some(SignatureKind::Certificate { sha256: digest, .. } | SignatureKind::ImageDigest(digest)) => {
            Some(*digest)
        }
        Some(SignatureKind::Other { .. }) | None => None,
    }
}

/// The digest to list, and what people call it.
fn named(authority: &Authority) -> (String, String) {
    match &authority.signature {
        Some(SignatureKind::Certificate { sha256, subject }) => {
            (sha256.to_string(), format!("the certificate `{subject}` ({sha256})"))
        }
        Some(SignatureKind::ImageDigest(digest)) => (digest.to_string(), format!("its digest {digest}")),
        Some(SignatureKind::Other { .. }) | None => {
            ("no certificate".to_owned(), "something that is no certificate".to_owned())
        }
    }
}
