//! What an operator has to do something about: found by looking now and then, said once when it is new and again for as
//! long as it lasts, and shown wherever health is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use assay_evidence::time::UnixTime;
use assay_identity::{Life, Moment, Stage};

use crate::clock::certificate_time;
use crate::parts::Server;
use crate::store::{StoreError, free_bytes};

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Concern {
    /// A certificate of ours that should have been renewed.
    Certificate {
        /// Whose.
        name: String,
        /// When it ends, or ended.
        life: Life,
        stage: Stage,
    },
    /// There is no room on the disk, or hardly any.
    Disk {
        /// Whether only what withdraws is recorded.
        is_full: bool,
        /// Falls that are in force and not on record.
        unrecorded: usize,
        left_bytes: u64,
    },
}

impl Concern {
    /// Every code there is.
    pub(crate) const CODES: [&'static str; 2] = ["certificate", "disk"];

    /// Whether it need not be said anew: bytes come and go.
    fn is_as(&self, other: &Concern) -> bool {
        match (self, other) {
            (
                Concern::Disk { is_full, unrecorded, .. },
                Concern::Disk { is_full: other_is_full, unrecorded: others_unrecorded, .. },
            ) => is_full == other_is_full && unrecorded == others_unrecorded,
            (one, other) => one == other,
        }
    }

    /// What programs go by.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Concern::Certificate { .. } => "certificate",
            Concern::Disk { .. } => "disk",
        }
    }
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Concern::Disk { is_full: false, left_bytes, .. } => write!(
                f,
                "the data folder's file system has {} MiB left: free some, or move the folder to a larger one",
                left_bytes >> 20
            ),
            Concern::Disk { is_full: true, unrecorded, .. } => {
                f.write_str(
                    "the disk is full: only what withdraws is recorded, and nothing is issued; free some of the data folder's \
                     file system",
                )?;
                match unrecorded {
                    0 => Ok(()),
                    count => write!(
                        f,
                        ". {count} devices have fallen and it is not on record: do not stop the server before"
                    ),
                }
            }
            Concern::Certificate { name, life, stage } => {
                let ends = if *stage == Stage::Ended { "ended" } else { "ends" };
                write!(
                    f,
                    "the certificate of {name} {ends} at {} and was not renewed",
                    Moment(life.until())
                )?;
                match name.strip_prefix(GATEWAY) {
                    Some(name) => write!(
                        f,
                        ": look whether the gateway runs; assay gateway enroll --name {name} repairs it"
                    ),
                    None if name == "root" => {
                        f.write_str(": a trust domain outlives its root only under a new one")
                    }
                    None => f.write_str(": the log says why"),
                }
            }
        }
    }
}

/// What is wrong now.
#[derive(Debug, Default)]
pub(crate) struct Concerns(Mutex<Found>);

#[derive(Debug, Default)]
struct Found {
    certificates: Vec<Concern>,
    disk: Vec<Concern>,
}

impl Concerns {
    /// What was wrong at the last look.
    pub(crate) fn current(&self) -> Vec<Concern> {
        let Found { certificates, disk } = &*self.lock();
        disk.iter().chain(certificates).cloned().collect()
    }

    /// Looks at certificates again.
    pub(crate) async fn look(&self, server: &Server, now: UnixTime) -> Result<(), StoreError> {
        let lives = lives(server, now).await?;
        server.metrics.certificates(&lives);
        let found = lives.into_iter().filter_map(|(name, life)| certificate(name, life, now)).collect();
        replace(&mut self.lock().certificates, found);
        server.metrics.concerns(&self.current());
        Ok(())
    }

    /// Looks at the disk again.
    pub(crate) fn look_at_disk(&self, server: &Server) {
        let left = free_bytes(&server.config.data);
        server.metrics.disk_free(left.unwrap_or(0));
        let (is_full, unrecorded) = (server.store.is_short(), server.store.fallen().len());
        let left_bytes = left.unwrap_or(u64::MAX);
        let is_one = is_full || unrecorded > 0 || left_bytes < LEFT_MIN;
        let found = is_one.then_some(Concern::Disk { is_full, unrecorded, left_bytes });
        replace(&mut self.lock().disk, found.into_iter().collect());
        server.metrics.concerns(&self.current());
    }

    /// Says again what is still wrong.
    pub(crate) fn remind(&self) {
        self.current().iter().for_each(say);
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is new is said.
fn replace(current: &mut Vec<Concern>, found: Vec<Concern>) {
    found.iter().filter(|concern| !current.iter().any(|one| one.is_as(concern))).for_each(say);
    *current = found;
}

fn say(concern: &Concern) {
    tracing::warn!(concern = concern.code(), "{concern}");
}

fn certificate(name: String, life: Life, now: UnixTime) -> Option<Concern> {
    let stage = life.stage(certificate_time(now));
    (stage >= Stage::Late).then_some(Concern::Certificate { name, life, stage })
}

/// The server's own certificates, and the newest of each gateway that was not revoked.
async fn lives(server: &Server, now: UnixTime) -> Result<Vec<(String, Life)>, StoreError> {
    let own = server.lives().into_iter().map(|(name, life)| (name.to_owned(), life));
    let path = format!("{}/assay/gateway/", server.config.trust_domain.id());
    let recently = UnixTime(now.0.saturating_sub(ENDED_SHOWN_SECONDS));
    let mut gateways = BTreeMap::new();
    for svid in server.store.svids_under(&path, recently, GATEWAYS_MAX).await? {
        // Newest first: a gateway is what its last certificate is.
        let name = svid.spiffe_id.strip_prefix(&path).unwrap_or_default().to_owned();
        gateways.entry(name).or_insert(svid);
    }
    let standing = gateways.into_iter().filter(|(_, svid)| svid.withdrawn_at.is_none());
    let gateways = standing
        .map(|(name, svid)| (format!("{GATEWAY}{name}"), Life::between(svid.issued_at.0, svid.not_after.0)));
    Ok(own.chain(gateways).collect())
}

const GATEWAY: &str = "gateway ";
/// A gateway that ended longer ago was given up.
const ENDED_SHOWN_SECONDS: u64 = 7 * 24 * 3600;
const GATEWAYS_MAX: u32 = 1000;
/// The reserve, and as much again.
const LEFT_MIN: u64 = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_1_a_certificate_is_a_concern_from_two_thirds_and_says_what_to_do() {
        let life = Life::between(0, 300);
        let at = |now| certificate("gateway edge-1".to_owned(), life, UnixTime(now));
        assert_eq!(at(199), None);
        let said = at(200).unwrap().to_string();
        assert!(
            said.contains("ends at 1970-01-01T00:05:00Z") && said.contains("enroll --name edge-1"),
            "{said}"
        );
        assert!(at(300).unwrap().to_string().contains("ended at"));
    }
}
