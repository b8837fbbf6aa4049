//! Widening the policies of a device's assignment by what an operator accepts; part of an approval.

use std::collections::HashMap;

use assay_evidence::Digest;
use assay_trust::Policy;
use assay_trust::assignment::Assignment;
use assay_trust::policy::{Acceptable, AcceptedBoot};

use super::{Planning, PolicyChangeError, Submitted};
use crate::device::Device;
use crate::in_force::policies::PlanInForce;
use crate::store::RevisePolicies;
use crate::thread::aside;

/// What an operator accepts of one result.
#[derive(Clone, Debug)]
pub(crate) struct Accepted {
    /// Name and version of the policy that it was refused by.
    pub policy: String,
    /// Files.
    pub files: Vec<RefusedFile>,
    /// What was refused of the boot.
    pub boot: Vec<Acceptable>,
}

/// A file that a policy refused.
#[derive(Clone, Debug)]
pub(crate) struct RefusedFile {
    /// Its path.
    pub path: Vec<u8>,
    /// What was measured of it.
    pub digest: Digest,
}

impl Planning<'_> {
    /// The policies of the device's assignment with the files and the boot in them, those of a roll-out as well: what an
    /// operator accepts stays accepted when it ends. `None` where that changes nothing.
    pub(crate) async fn widened(
        &self,
        device: &Device,
        in_force: &PlanInForce,
        accepted: &Accepted,
    ) -> Result<Option<RevisePolicies>, PolicyChangeError> {
        let Some(assigned) = in_force.plan.of(&device.labels).filter(|_| !accepted.is_nothing()) else {
            return Ok(None);
        };
        let mut publisher = self.publisher(&assigned.name).await?;
        let (mut revised, mut published) = (HashMap::new(), Vec::new());
        let boot = self.accepted_boot(assigned, in_force, accepted).await?;
        for revision in assigned.revisions() {
            let (text, files) = (self.store.policy(revision).await?.text, accepted.files.clone());
            let boot = boot.clone();
            if let Some(policy) = aside(move || widen(&text, &files, boot.as_ref())).await?? {
                if self.policies.is_signing_required() {
                    return Err(PolicyChangeError::SignatureRequired { policy: assigned.name.clone() });
                }
                let next = publisher.publish(Submitted::of_server(policy)).await?;
                revised.insert(revision, next.record.revision);
                published.push(next);
            }
        }
        if published.is_empty() {
            return Ok(None);
        }
        let revise = |revision| revised.get(&revision).copied().unwrap_or(revision);
        let plan = in_force.plan.revise(&assigned.selector, revise)?;
        let step = in_force.step(plan.assigned(&assigned.selector)?, self.by.name(), self.now);
        self.policies.expect(&published);
        Ok(Some(RevisePolicies { step, policies: published.into_iter().map(|one| one.record).collect() }))
    }

    /// The boot as a whole, from the policy that refused it, which has to be in force for the device still.
    async fn accepted_boot(
        &self,
        assigned: &Assignment,
        in_force: &PlanInForce,
        accepted: &Accepted,
    ) -> Result<Option<AcceptedBoot>, PolicyChangeError> {
        if accepted.boot.is_empty() {
            return Ok(None);
        }
        let judged = assigned.revisions().find(|revision| in_force.citation(*revision) == accepted.policy);
        let judged =
            judged.ok_or_else(|| PolicyChangeError::OtherPolicy { judged: accepted.policy.clone() })?;
        let (text, rules) = (self.store.policy(judged).await?.text, accepted.boot.clone());
        let boot = aside(move || -> Result<_, PolicyChangeError> {
            Ok(Policy::from_toml(&text)?.accepted_boot(&rules)?)
        });
        boot.await?.map(Some)
    }
}

impl Accepted {
    fn is_nothing(&self) -> bool {
        self.files.is_empty() && self.boot.is_empty()
    }
}

/// The policy with the files and the boot in it; `None` if that is the same.
fn widen(
    text: &str,
    files: &[RefusedFile],
    boot: Option<&AcceptedBoot>,
) -> Result<Option<Policy>, PolicyChangeError> {
    let before = Policy::from_toml(text)?;
    let mut policy = before.clone();
    // A policy that does not judge files accepts these as well, and must not begin to.
    if policy.ima.is_some() {
        files.iter().for_each(|file| policy.allow_file(&file.path, file.digest));
    }
    if let Some(boot) = boot {
        policy.accept_boot(boot);
    }
    Ok(Some(policy).filter(|policy| *policy != before))
}
