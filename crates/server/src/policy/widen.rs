//! Widening the policies of a device's assignment by files that an operator accepts; part of an approval.

use std::collections::HashMap;

use assay_evidence::Digest;
use assay_trust::Policy;

use super::{Planning, PolicyChangeError, Submitted};
use crate::device::Device;
use crate::in_force::policies::PlanInForce;
use crate::store::RevisePolicies;
use crate::thread::aside;

/// A file that a policy refused.
#[derive(Clone, Debug)]
pub(crate) struct RefusedFile {
    /// Its path.
    pub path: Vec<u8>,
    /// What was measured of it.
    pub digest: Digest,
}

impl Planning<'_> {
    /// The policies of the device's assignment with the files in them, those of a roll-out as well: what an operator
    /// accepts stays accepted when it ends. `None` where that changes nothing.
    pub(crate) async fn widened(
        &self,
        device: &Device,
        in_force: &PlanInForce,
        files: &[RefusedFile],
    ) -> Result<Option<RevisePolicies>, PolicyChangeError> {
        let Some(assigned) = in_force.plan.of(&device.labels).filter(|_| !files.is_empty()) else {
            return Ok(None);
        };
        let mut publisher = self.publisher(&assigned.name).await?;
        let (mut revised, mut published) = (HashMap::new(), Vec::new());
        for revision in assigned.revisions() {
            let (text, files) = (self.store.policy(revision).await?.text, files.to_vec());
            if let Some(policy) = aside(move || widen(&text, &files)).await?? {
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
        let step = in_force.step(plan.assigned(&assigned.selector)?, self.by, self.now);
        self.policies.expect(&published);
        Ok(Some(RevisePolicies { step, policies: published.into_iter().map(|one| one.record).collect() }))
    }
}

/// The policy with the files in it; `None` if that is the same.
fn widen(text: &str, files: &[RefusedFile]) -> Result<Option<Policy>, PolicyChangeError> {
    let before = Policy::from_toml(text)?;
    let mut policy = before.clone();
    // A policy that does not judge files accepts these as well, and must not begin to.
    if policy.ima.is_some() {
        files.iter().for_each(|file| policy.allow_file(&file.path, file.digest));
    }
    Ok(Some(policy).filter(|policy| *policy != before))
}
