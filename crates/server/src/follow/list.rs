//! What fell goes on the revocation list, all of a batch with one signature.

use std::sync::Arc;

use assay_evidence::time::UnixTime;

use super::FollowError;
use crate::in_force::revocations::RevocationList;
use crate::store::{Committed, SvidRecord, Withdrawn};
use crate::thread::aside;

/// What has to be listed and is not yet.
#[derive(Debug, Default)]
pub(super) struct Fallen(Withdrawn);

impl Fallen {
    pub(super) fn add(&mut self, committed: &Committed) {
        let Withdrawn { serials, list_number } = &committed.withdrawn;
        self.0.serials.extend_from_slice(serials);
        self.0.list_number = self.0.list_number.max(*list_number);
    }

    /// Of what a device holds whose fall is not on record.
    pub(super) fn of_standing(held: Vec<SvidRecord>) -> Fallen {
        let standing = held.into_iter().filter(|svid| svid.withdrawn_at.is_none());
        let serials = standing.map(|svid| (svid.serial, svid.not_after)).collect();
        Fallen(Withdrawn { serials, list_number: None })
    }

    /// Signs a list with it. What was not signed is still to be listed.
    pub(super) async fn publish(
        &mut self,
        revocations: &Arc<RevocationList>,
        now: UnixTime,
    ) -> Result<(), FollowError> {
        if self.0.serials.is_empty() {
            return Ok(());
        }
        let (list, withdrawn) = (revocations.clone(), self.0.clone());
        // A long list takes a while to sign.
        aside(move || list.publish(&withdrawn, now)).await??;
        self.0 = Withdrawn::default();
        Ok(())
    }
}
