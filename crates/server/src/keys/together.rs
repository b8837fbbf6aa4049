//! One signature for all statements that are ready at the same time.
//!
//! A signature costs nearly half of what verifying a quote does, and a busy server says something to hundreds of devices a
//! second. What is signed is the root of a tree over their statements (`assay_wire::together`): as good as a signature of
//! each, since nothing but what was signed leads to the root. Whoever is alone waits for nobody.

use std::sync::Arc;
use std::time::Duration;

use assay_identity::PrivateKey;
use assay_identity::key::KeyError;
use assay_telemetry::pae;
use assay_wire::binding::DEVICE_STATEMENTS_TYPE;
use assay_wire::together::Tree;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use super::KeysError;

/// The way to whoever signs; that ends with this.
#[derive(Debug)]
pub(super) struct Signing {
    queue: mpsc::Sender<Waiting>,
}

/// A statement, the signature that it shares, and what shows that it is for it.
#[derive(Debug)]
pub(crate) struct SignedTogether {
    /// What was signed.
    pub statement: Vec<u8>,
    /// ECDSA P-256, DER, over DSSE's pre-authentication encoding of the root.
    pub signature: Bytes,
    /// Which leaf it is, of how many.
    pub place: (u32, u32),
    /// The hashes beside it on the way to the root.
    pub path: Vec<u8>,
}

/// Whether a statement may wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// It grants or withdraws, or somebody waits for it.
    AtOnce,
    /// It says that nothing changed: a moment later is as well.
    WithOthers,
}

#[derive(Debug)]
struct Waiting {
    statement: Vec<u8>,
    urgency: Urgency,
    answer: oneshot::Sender<Result<SignedTogether, KeyError>>,
}

impl Signing {
    /// Starts to sign with a key.
    pub(super) fn start(key: Arc<PrivateKey>) -> Signing {
        Signing::every(EVERY, key)
    }

    fn every(every: Duration, key: Arc<PrivateKey>) -> Signing {
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        tokio::spawn(run(key, waiting, every));
        Signing { queue }
    }

    /// Waits until it is signed.
    pub(super) async fn sign(
        &self,
        statement: Vec<u8>,
        urgency: Urgency,
    ) -> Result<SignedTogether, KeysError> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { statement, urgency, answer };
        self.queue.send(waiting).await.map_err(|_| KeyError::Signing)?;
        Ok(answered.await.map_err(|_| KeyError::Signing)??)
    }
}

async fn run(key: Arc<PrivateKey>, mut waiting: mpsc::Receiver<Waiting>, every: Duration) {
    let mut batch = Vec::new();
    let mut next_at = Instant::now();
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        gather(&mut waiting, &mut batch, next_at).await;
        next_at = Instant::now() + every;
        sign(&key, &mut batch);
    }
}

/// Lets statements wait for others, once they come faster than that, unless one of them is urgent: it takes them along.
async fn gather(waiting: &mut mpsc::Receiver<Waiting>, batch: &mut Vec<Waiting>, until: Instant) {
    while batch.len() < BATCH_MAX && batch.iter().all(|one| one.urgency == Urgency::WithOthers) {
        let room = BATCH_MAX - batch.len();
        match timeout_at(until, waiting.recv_many(batch, room)).await {
            Ok(1..) => {}
            // It is time, or nobody is left who could send more.
            Err(_) | Ok(0) => return,
        }
    }
}

fn sign(key: &PrivateKey, batch: &mut Vec<Waiting>) {
    let Some(tree) = Tree::over(batch.iter().map(|one| one.statement.as_slice())) else { return };
    let signature = key.sign_message(&pae(DEVICE_STATEMENTS_TYPE, &tree.root())).map(Bytes::from);
    // Of a batch there are far fewer than can be counted so.
    let size = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    for ((index, place), one) in (0..).zip(0..size).zip(batch.drain(..)) {
        let Waiting { statement, answer, .. } = one;
        let signed = signature.clone().map(|signature| SignedTogether {
            statement,
            signature,
            place: (place, size),
            path: tree.path(index),
        });
        // A stream that ended needs no statement.
        answer.send(signed).ok();
    }
}

/// How often what may wait is signed. No device notices.
const EVERY: Duration = Duration::from_millis(5);
/// Statements of one signature; what leads to it has eight hashes then.
const BATCH_MAX: usize = 256;
/// Statements that wait; further ones wait before the queue.
const QUEUE_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use assay_telemetry::verify_device_signature;
    use assay_wire::together::root;

    fn verifies(key: &PrivateKey, signed: &SignedTogether) -> bool {
        let (index, size) = signed.place;
        root(&signed.statement, index, size, &signed.path).is_some_and(|root| {
            verify_device_signature(&key.spki(), DEVICE_STATEMENTS_TYPE, &root, &signed.signature).is_ok()
        })
    }

    /// Longer than any test: whoever waited for it would not be heard of.
    const NEVER: Duration = Duration::from_secs(24 * 3600);

    #[tokio::test]
    async fn what_is_ready_together_has_one_signature_and_each_verifies_by_itself() {
        let key = Arc::new(PrivateKey::generate().unwrap());
        let signing = Signing::every(NEVER, key.clone());
        let first = signing.sign(vec![7], Urgency::WithOthers).await.unwrap();
        assert_eq!((first.place, first.path.len()), ((0, 1), 0), "whoever is alone waits for nobody");
        assert!(verifies(&key, &first));

        let one = |number: u8, urgency| signing.sign(vec![number], urgency);
        let (a, b, c) =
            tokio::join!(one(1, Urgency::WithOthers), one(2, Urgency::WithOthers), one(3, Urgency::AtOnce));
        let together = [a.unwrap(), b.unwrap(), c.unwrap()];
        for (number, signed) in (1..).zip(&together) {
            assert_eq!((signed.statement.as_slice(), signed.place.1), ([number].as_slice(), 3));
            assert_eq!(signed.signature, together[0].signature);
            assert!(verifies(&key, signed));
        }
    }

    #[tokio::test]
    async fn what_may_wait_does_not_wait_for_ever() {
        let signing = Signing::every(Duration::from_millis(1), Arc::new(PrivateKey::generate().unwrap()));
        for _ in 0..3 {
            assert_eq!(signing.sign(vec![0], Urgency::WithOthers).await.unwrap().place, (0, 1));
        }
    }

    #[tokio::test]
    async fn no_more_are_signed_together_than_may_be() {
        let signing = Arc::new(Signing::every(NEVER, Arc::new(PrivateKey::generate().unwrap())));
        signing.sign(vec![0], Urgency::WithOthers).await.unwrap();
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..2 * BATCH_MAX {
            let signing = signing.clone();
            all.spawn(async move { signing.sign(vec![1], Urgency::WithOthers).await.unwrap().place.1 });
        }
        assert!(all.join_all().await.iter().all(|size| *size as usize == BATCH_MAX));
    }
}
