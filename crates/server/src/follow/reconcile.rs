//! Memory compared with the store, once everything that was committed is settled. What differs should not, so that it is
//! said aloud, counted and mended.

use super::{FollowError, Following};
use crate::store::Standing;

pub(super) async fn reconcile(
    following: &Following,
    settled: u64,
    standing: &Standing,
) -> Result<(), FollowError> {
    // Something was committed meanwhile: what the store has is not of the moment that memory is of.
    if standing.leaves != settled {
        return Ok(());
    }
    let Following { store, policies, entries, federation, secrets, access, .. } = following;
    let Following { revocations, registry, metrics, .. } = following;
    let mended = |what: &'static str| {
        metrics.mended();
        tracing::warn!(what, "memory was not as the store had it, and was mended");
    };
    if policies.current().version != standing.plan {
        policies.reload(store).await?;
        mended("plan");
    }
    if entries.count() != standing.entries {
        let changed = entries.reload(store).await?;
        changed.iter().for_each(|device| registry.wake_for_entries(device));
        mended("entries");
    }
    if u64::try_from(federation.all().len()).ok() != Some(standing.foreign_domains) {
        following.reload_federation().await?;
        mended("federation");
    }
    if secrets.count() != standing.secrets {
        secrets.reload(store).await?;
        registry.wake_for_secrets();
        mended("secrets");
    }
    if access.counts() != standing.access_tokens {
        access.reload(store).await?;
        mended("access tokens");
    }
    let now = following.now();
    if revocations.standing(now) < standing.withdrawn {
        revocations.reload(store, now).await?;
        mended("revocation list");
    }
    Ok(())
}
