//! How many connections there may be, of everyone and of each user, so that no user keeps another out.
//!
//! Each connection costs two descriptors: its own and the peer's pidfd. What the agent needs itself is left out of the
//! count, so that attestation and telemetry go on whatever happens at the socket.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The counters of one socket.
#[derive(Debug)]
pub(super) struct Admission {
    bounds: Bounds,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    total: usize,
    by_user: HashMap<u32, usize>,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    total: usize,
    /// Of users that no entry names. The rest is for those that one does: a user can have as many further user numbers
    /// as `/etc/subuid` gives.
    strangers: usize,
    of_a_user: usize,
}

/// Room for one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    admission: Arc<Admission>,
    user: u32,
}

impl Admission {
    /// As many as this process's descriptors allow, beside what the agent needs for itself.
    pub(super) fn new() -> Arc<Self> {
        let bounds = Bounds::within(raise_descriptors());
        tracing::debug!(?bounds, "local connections");
        Self::with(bounds)
    }

    fn with(bounds: Bounds) -> Arc<Self> {
        Arc::new(Admission { bounds, open: Mutex::default() })
    }

    /// Room for one more connection of a user, if there is any.
    pub(super) fn admit(self: &Arc<Self>, user: u32, is_named: bool) -> Option<Permit> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_all = if is_named { self.bounds.total } else { self.bounds.strangers };
        let of_user = open.by_user.get(&user).copied().unwrap_or(0);
        if open.total >= of_all || of_user >= self.bounds.of_a_user {
            return None;
        }
        open.total += 1;
        open.by_user.insert(user, of_user + 1);
        Some(Permit { admission: self.clone(), user })
    }
}

impl Bounds {
    fn within(descriptors: u64) -> Self {
        let left = descriptors.saturating_sub(DESCRIPTORS_RESERVED) / DESCRIPTORS_PER_CONNECTION;
        let total = usize::try_from(left).unwrap_or(usize::MAX).clamp(CONNECTIONS_MIN, CONNECTIONS_MAX);
        Bounds { total, strangers: total / 2, of_a_user: (total / 4).min(CONNECTIONS_PER_USER_MAX) }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut open = self.admission.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.total = open.total.saturating_sub(1);
        match open.by_user.get_mut(&self.user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(open.by_user.remove(&self.user)),
        }
    }
}

/// Takes as many descriptors as the system lets this process have, and returns how many.
fn raise_descriptors() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // A kernel that does not let us leaves the number we have.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// TPM, logs, upstream connection, state files, the runtime's own; some two dozen in use.
const DESCRIPTORS_RESERVED: u64 = 256;
const DESCRIPTORS_PER_CONNECTION: u64 = 2;
/// A device runs some dozens of workloads, each with one connection or two.
const CONNECTIONS_MAX: usize = 1024;
/// With fewer descriptors than that nothing of the agent would work.
const CONNECTIONS_MIN: usize = 16;
/// All workloads of one service user.
const CONNECTIONS_PER_USER_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_9_connections_are_counted_by_user_and_leave_descriptors() {
        let bounds = Bounds::within(1024);
        assert_eq!(bounds, Bounds { total: 384, strangers: 192, of_a_user: 96 });
        assert!(
            u64::try_from(bounds.total).unwrap() * DESCRIPTORS_PER_CONNECTION <= 1024 - DESCRIPTORS_RESERVED
        );
        assert_eq!(Bounds::within(u64::MAX).total, CONNECTIONS_MAX);
        assert_eq!(Bounds::within(0).total, CONNECTIONS_MIN);
    }

    #[test]
    fn finding_9_no_user_keeps_another_out() {
        let admission = Admission::with(Bounds { total: 6, strangers: 4, of_a_user: 2 });
        let one = |user, is_named| admission.admit(user, is_named);
        let mut held = vec![one(1, false), one(1, false)];
        assert!(held.iter().all(Option::is_some));
        assert!(one(1, false).is_none(), "a user has no more than its own");
        held.extend([one(2, false), one(3, false)]);
        assert!(held.iter().all(Option::is_some));
        assert!(one(4, false).is_none(), "strangers take no more than theirs, however many they are");
        held.extend([one(5, true), one(5, true)]);
        assert!(held.iter().all(Option::is_some));
        assert!(one(6, true).is_none());
        held.clear();
        assert!(admission.open.lock().unwrap().by_user.is_empty());
        assert!(one(1, false).is_some());
    }
}
