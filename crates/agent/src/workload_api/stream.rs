//! What a caller is told: the complete state at once, and again after every change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use assay_identity::TrustDomain;
use assay_wire::workload::{X509BundlesResponse, X509svid, X509svidResponse};
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::selectors::Caller;
use crate::holding::{Holding, Svid, Workload};

/// What to say now.
pub(super) enum Answer<T> {
    /// The state.
    State(T),
    /// There will be something in a moment: the SVID is on its way.
    Wait,
    /// Nothing, and why; this ends the stream.
    Refused(Status),
}

/// The answers of `answer` as a stream: the first at once, another whenever it differs, until one is a refusal.
pub(super) fn messages<T: PartialEq + Clone + Send + 'static>(
    mut holding: watch::Receiver<Holding>,
    answer: impl Fn(&Holding) -> Answer<T> + Send + Sync + 'static,
) -> ReceiverStream<Result<T, Status>> {
    let (sender, receiver) = mpsc::channel(1);
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        let mut last = None;
        loop {
            let now = holding.borrow_and_update().clone();
            let answer = answer.clone();
            // Hashing a caller's program takes a while.
            let Ok(answer) = spawn_blocking(move || answer(&now)).await else { return };
            match answer {
                Answer::State(state) if last.as_ref() == Some(&state) => {}
                Answer::State(state) => {
                    last = Some(state.clone());
                    if sender.send(Ok(state)).await.is_err() {
                        return;
                    }
                }
                Answer::Wait => {}
                Answer::Refused(status) => {
                    let _ = sender.send(Err(status)).await;
                    return;
                }
            }
            let changed = async {
                tokio::select! {
                    changed = holding.changed() => changed.is_ok(),
                    () = sender.closed() => false,
                }
            };
            let go_on = match last {
                Some(_) => changed.await,
                None => timeout(FIRST_WITHIN, changed).await.unwrap_or_default(),
            };
            if !go_on {
                let _ = sender.try_send(Err(Status::unavailable("no identity yet; try again")));
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// The X.509-SVIDs of a caller.
pub(super) fn x509_svids(holding: &Holding, caller: &Caller) -> Answer<X509svidResponse> {
    let workloads = match entitled(holding, caller) {
        Ok(workloads) => workloads,
        Err(status) => return Answer::Refused(status),
    };
    let svids: Vec<X509svid> = workloads
        .iter()
        .filter_map(|workload| Some(x509_svid(workload, workload.svid.as_ref()?, &holding.bundle)))
        .collect();
    if svids.is_empty() {
        return Answer::Wait;
    }
    Answer::State(X509svidResponse { svids, crl: crl(holding), federated_bundles: HashMap::new() })
}

/// The bundles a caller verifies others with.
pub(super) fn x509_bundles(
    holding: &Holding,
    caller: &Caller,
    trust_domain: &TrustDomain,
) -> Answer<X509BundlesResponse> {
    match entitled(holding, caller) {
        Err(status) => Answer::Refused(status),
        Ok(_) => {
            let bundles = HashMap::from([(trust_domain.id().to_string(), holding.bundle.clone())]);
            Answer::State(X509BundlesResponse { crl: crl(holding), bundles })
        }
    }
}

/// The workloads that are the caller's; a caller without any gets nothing, not even a bundle.
fn entitled<'a>(holding: &'a Holding, caller: &Caller) -> Result<Vec<&'a Workload>, Status> {
    if !holding.ready {
        return Err(Status::unavailable("the agent has not heard from its server yet"));
    }
    // Why is for operators: a workload need not learn what else runs on the device.
    if holding.withdrawn.is_some() {
        return Err(Status::permission_denied("identities withdrawn: the device is not trusted now"));
    }
    let workloads: Vec<_> = holding.workloads.iter().filter(|workload| caller.has(&workload.entry)).collect();
    match workloads.is_empty() {
        true => {
            Err(Status::permission_denied("no identity issued: no entry's selectors hold for this process"))
        }
        false => Ok(workloads),
    }
}

fn x509_svid(workload: &Workload, svid: &Svid, bundle: &[u8]) -> X509svid {
    X509svid {
        spiffe_id: workload.entry.spiffe_id.clone(),
        x509_svid: svid.chain.concat(),
        x509_svid_key: svid.key.clone(),
        bundle: bundle.to_vec(),
        hint: workload.entry.hint.clone(),
    }
}

fn crl(holding: &Holding) -> Vec<Vec<u8>> {
    Some(holding.crl.clone()).filter(|crl| !crl.is_empty()).into_iter().collect()
}

/// A caller waits this long for an SVID that is being signed.
const FIRST_WITHIN: Duration = Duration::from_secs(10);
