//! Secrets: which the device may have, which were asked for, and what came, still sealed to the TPM.
//!
//! Nothing here can read one: whoever puts it where programs find it has the TPM open it there.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_clock::Backoff;
use assay_identity::hpke::Sealed;
use assay_identity::secret::{SECRETS_PER_DEVICE_MAX, SecretName};

/// A secret that the device may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// What it is called.
    pub name: SecretName,
    /// Which version of it.
    pub version: u64,
    /// It, once it has come.
    pub sealed: Option<Arc<SealedSecret>>,
}

/// A secret as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedSecret {
    /// It.
    pub sealed: Sealed,
    /// What it was sealed for.
    pub info: Vec<u8>,
    /// Whether it is a program that is to be run.
    pub autorun: bool,
}

/// What the server says to a request.
#[derive(Clone, Debug)]
pub struct SecretAnswer {
    /// Which secret.
    pub name: String,
    /// Which version of it.
    pub version: u64,
    /// It; `None`: it was denied.
    pub secret: Option<SealedSecret>,
    /// Why it was.
    pub denied: String,
}

/// What is asked for, and when again.
#[derive(Debug, Default)]
pub(super) struct SecretRequests {
    /// Whether this device has a place for them at all.
    pub takes: bool,
    later: HashMap<SecretName, (u64, SystemTime, Backoff)>,
}

impl SecretRequests {
    /// What was asked is not answered any more.
    pub(super) fn forget(&mut self) {
        self.later.clear();
    }

    /// Which to ask for now: those that have not come.
    pub(super) fn due(&mut self, secrets: &[Secret], now: SystemTime) -> Vec<(SecretName, u64)> {
        self.later.retain(|name, _| secrets.iter().any(|secret| secret.name == *name));
        let missing = secrets.iter().filter(|secret| self.takes && secret.sealed.is_none());
        let due: Vec<_> = missing
            .filter(|Secret { name, version, .. }| {
                self.later.get(name).is_none_or(|(asked, later, _)| asked != version || *later <= now)
            })
            .take(ASKED_AT_ONCE)
            .map(|secret| (secret.name.clone(), secret.version))
            .collect();
        for (name, version) in &due {
            let fresh = (*version, now, AGAIN);
            let (asked, later, backoff) = self.later.entry(name.clone()).or_insert(fresh);
            if asked != version {
                (*asked, *backoff) = (*version, AGAIN);
            }
            *later = now + backoff.wait();
        }
        due
    }
}

/// What the server names, with what is there of it already. What it names that cannot be a secret is none.
pub(super) fn named(named: impl IntoIterator<Item = (String, u64)>, before: &[Secret]) -> Vec<Secret> {
    let secret = |(name, version): (String, u64)| {
        let Ok(name) = name.parse::<SecretName>() else {
            tracing::error!(name, "the server grants a secret by a name that is none");
            return None;
        };
        let is_it = |old: &&Secret| old.name == name && old.version == version;
        let sealed = before.iter().find(is_it).and_then(|old| old.sealed.clone());
        Some(Secret { name, version, sealed })
    };
    named.into_iter().take(SECRETS_PER_DEVICE_MAX).filter_map(secret).collect()
}

/// The TPM certifies and opens them one after the other.
const ASKED_AT_ONCE: usize = 8;
/// After a request that was not answered, or denied.
const AGAIN: Backoff = Backoff::between(Duration::from_secs(10), Duration::from_secs(600));

#[cfg(test)]
mod tests {
    use super::*;

    fn refs(names: &[(&str, u64)]) -> Vec<(String, u64)> {
        names.iter().map(|(name, version)| ((*name).to_owned(), *version)).collect()
    }

    #[test]
    fn what_has_come_stays_until_its_version_is_another_and_bad_names_are_nothing() {
        let mut first = named(refs(&[("a", 1), ("b", 1), ("../c", 1), ("", 1)]), &[]);
        assert_eq!(first.len(), 2);
        let sealed = Sealed { encapsulated: vec![4; 65], ciphertext: vec![1; 20] };
        let came = Arc::new(SealedSecret { sealed, info: Vec::new(), autorun: false });
        first.iter_mut().for_each(|secret| secret.sealed = Some(came.clone()));
        let next = named(refs(&[("a", 1), ("b", 2), ("d", 1)]), &first);
        let has: Vec<_> = next.iter().map(|secret| (secret.name.as_str(), secret.sealed.is_some())).collect();
        assert_eq!(has, [("a", true), ("b", false), ("d", false)]);
    }

    #[test]
    fn a_missing_secret_is_asked_for_once_and_again_after_a_while() {
        let secrets = named(refs(&[("a", 1)]), &[]);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut requests = SecretRequests::default();
        assert!(
            requests.due(&secrets, at(0)).is_empty(),
            "a device that has no place for them asks for none"
        );
        requests.takes = true;
        let asks =
            |requests: &mut SecretRequests, secrets: &[Secret], now| requests.due(secrets, at(now)).len();
        assert_eq!(asks(&mut requests, &secrets, 0), 1);
        assert_eq!(asks(&mut requests, &secrets, 1), 0);
        assert_eq!(asks(&mut requests, &secrets, 30), 1);
        // Another version is another secret.
        assert_eq!(asks(&mut requests, &named(refs(&[("a", 2)]), &secrets), 31), 1);
        requests.forget();
        assert_eq!(asks(&mut requests, &secrets, 32), 1);
    }
}
