//! What a caller is told: the complete state at once, and again after every change.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use assay_identity::TrustDomain;
use assay_wire::workload::{X509BundlesResponse, X509svid, X509svidResponse};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::holding::{Entry, Holding, Svid, Workload};
use crate::workload::Caller;

/// What to say now.
pub(super) enum Answer<T> {
    /// The state.
    State(T),
    /// There will be something in a moment: the SVID is on its way.
    Wait,
    /// Nothing, and why; this ends the stream.
    Refused(Status),
}

/// The answers of `tell` as a stream: the first at once, another whenever it differs, until one is a refusal. `tell`
/// hears which of the workloads are the caller's.
pub(super) fn messages<T: PartialEq + Clone + Send + Sync + 'static>(
    mut holding: watch::Receiver<Holding>,
    caller: Caller,
    tell: impl Fn(&Holding, &[usize]) -> Answer<T> + Send + Sync + 'static,
) -> ReceiverStream<Result<T, Status>> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut last = None;
        loop {
            let next = next(&mut holding, &caller, &tell, last.as_ref(), &sender);
            let told = match last {
                Some(_) => next.await,
                None => timeout(FIRST_WITHIN, next).await.unwrap_or_default(),
            };
            let ends = match told {
                Some(Ok(state)) => {
                    last = Some(state.clone());
                    sender.send(Ok(state)).await.is_err()
                }
                Some(Err(status)) => {
                    let _ = sender.send(Err(status)).await;
                    true
                }
                None => {
                    let _ = sender.try_send(Err(nothing_yet(&holding.borrow())));
                    true
                }
            };
            if ends {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

/// What is to be told next, once it is another than the last; `None`: nobody is left to tell, or nothing will change any more.
async fn next<T: PartialEq>(
    holding: &mut watch::Receiver<Holding>,
    caller: &Caller,
    tell: &impl Fn(&Holding, &[usize]) -> Answer<T>,
    last: Option<&T>,
    sender: &mpsc::Sender<Result<T, Status>>,
) -> Option<Result<T, Status>> {
    loop {
        let now = holding.borrow_and_update().clone();
        let answer = match entitled(&now, caller).await {
            Ok(mine) => tell(&now, &mine),
            Err(status) => Answer::Refused(status),
        };
        match answer {
            Answer::State(state) if last == Some(&state) => {}
            Answer::State(state) => return Some(Ok(state)),
            Answer::Wait => {}
            Answer::Refused(status) => return Some(Err(status)),
        }
        tokio::select! {
            changed = holding.changed() => changed.ok()?,
            () = sender.closed() => return None,
        }
    }
}

/// What is told whose SVID did not come: where the device's clock is off, none holds on it.
pub(in crate::door) fn nothing_yet(holding: &Holding) -> Status {
    let why = holding.clock.as_deref().unwrap_or("try again");
    Status::unavailable(format!("no identity yet: {why}"))
}

/// The workloads that are the caller's; a caller without any gets nothing, not even a bundle.
pub(in crate::door) async fn entitled(holding: &Holding, caller: &Caller) -> Result<Vec<usize>, Status> {
    if !holding.ready {
        return Err(Status::unavailable("the agent has not heard from its server yet"));
    }
    // Why is for operators: a workload need not learn what else runs on the device.
    if holding.withdrawn.is_some() {
        return Err(Status::permission_denied("identities withdrawn: the device is not trusted now"));
    }
    let entries: Arc<[Arc<Entry>]> =
        holding.workloads.iter().map(|workload| workload.entry.clone()).collect();
    match caller.entries(entries).await {
        Ok(mine) if mine.is_empty() => {
            Err(Status::permission_denied("no identity issued: no entry's selectors hold for this process"))
        }
        Ok(mine) => Ok(mine),
        Err(error) => {
            tracing::warn!(%error, "caller could not be attested");
            Err(Status::unavailable("the caller could not be attested"))
        }
    }
}

/// The X.509-SVIDs of a caller.
pub(super) fn x509_svids(holding: &Holding, mine: &[usize]) -> Answer<X509svidResponse> {
    let workloads = mine.iter().filter_map(|index| holding.workloads.get(*index));
    let svids: Vec<X509svid> = workloads
        .filter_map(|workload| Some(x509_svid(workload, workload.svid.as_ref()?, &holding.bundle)))
        .collect();
    if svids.is_empty() {
        return Answer::Wait;
    }
    let foreign = holding.foreign_of(mine);
    let federated_bundles =
        foreign.map(|foreign| (foreign.trust_domain.id().to_string(), foreign.bundle.clone())).collect();
    Answer::State(X509svidResponse { svids, crl: crl(holding), federated_bundles })
}

/// The bundles a caller verifies others with.
pub(super) fn x509_bundles(
    holding: &Holding,
    mine: &[usize],
    trust_domain: &TrustDomain,
) -> Answer<X509BundlesResponse> {
    let mut bundles = HashMap::from([(trust_domain.id().to_string(), holding.bundle.clone())]);
    for foreign in holding.foreign_of(mine) {
        bundles.insert(foreign.trust_domain.id().to_string(), foreign.bundle.clone());
    }
    Answer::State(X509BundlesResponse { crl: crl(holding), bundles })
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
