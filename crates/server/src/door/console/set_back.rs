//! A server that finds an older copy of its database: to the operator on this machine it answers what can be read there, so
//! that it can be decided whether to go on from it, and everything else it refuses with what to decide.
//!
//! It records nothing, so it signs nothing: it has no certificate to show, no revocation list, no word for any device, and so no
//! door but the operator's socket. Once it is decided (`ledger resume`, or another copy), it starts as ever.

use std::sync::Arc;
use std::time::Duration;

use assay_clock::Clock;
use assay_trust::labels::Selector;
use assay_wire::console::device::{Device, Devices};
use assay_wire::console::record::Leaves;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::watch;

use super::access::{show_the_first_token, shows_token};
use super::parameters::Asked;
use super::records::{Range, leaves};
use crate::attest::table::Registry;
use crate::clock;
use crate::config::Config;
use crate::continuity;
use crate::door::{local, plain};
use crate::fleet::Which;
use crate::keys::{self, KeysError, OperatorToken};
use crate::outcome::{Kind, Refusal};
use crate::store::{DeviceRecord, Store};

/// What there is to be read, and why there is nothing else.
struct SetBack {
    store: Store,
    operator: OperatorToken,
    registry: Registry,
    clock: Clock,
    sentence: String,
}

/// Serves until it is decided, or for ever.
pub(crate) async fn serve(
    listener: UnixListener,
    store: Store,
    config: Config,
    sentence: String,
) -> Result<(), KeysError> {
    tracing::error!("nothing but reading is served, on {} alone: {sentence}", local::SOCKET);
    let set_back = SetBack {
        store: store.clone(),
        operator: OperatorToken::open(&config.data, &config.data.join(keys::FOLDER))?,
        registry: Registry::new(&config.limits),
        clock: Clock::system(),
        sentence,
    };
    // Dropped with this, which ends it.
    let (_stop, stopped) = watch::channel(false);
    let clock = set_back.clock.clone();
    tokio::select! {
        () = plain::serve(listener, router(Arc::new(set_back)), stopped) => {}
        () = decided(store.clone(), config, clock) => tracing::warn!("it is decided: the server starts"),
    }
    store.close().await;
    Ok(())
}

/// Completes when database and signed head belong together, and nobody else has the folder.
async fn decided(store: Store, config: Config, clock: Clock) {
    loop {
        clock.sleep(LOOK_EVERY).await;
        if continuity::check(&store, &config.data, &config.trust_domain).await.is_ok()
            && keys::take_data_folder(&config.data).is_ok()
        {
            return;
        }
    }
}

fn router(set_back: Arc<SetBack>) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/v1/devices", get(devices))
        .route("/v1/audit", get(audit))
        .fallback(undecided)
        .layer(middleware::from_fn_with_state(set_back.clone(), operator))
        .with_state(set_back)
}

async fn operator(
    State(set_back): State<Arc<SetBack>>,
    request: Request,
    next: Next,
) -> Result<Response, Refusal> {
    match shows_token(&set_back.operator, request.headers()) {
        true => Ok(next.run(request).await),
        false => Err(show_the_first_token()),
    }
}

async fn undecided(State(set_back): State<Arc<SetBack>>) -> Refusal {
    Refusal::new(Kind::Unavailable, CODE, set_back.sentence.clone())
}

async fn health(State(set_back): State<Arc<SetBack>>) -> Json<Value> {
    Json(json!({
        "status": CODE, "version": env!("CARGO_PKG_VERSION"), "concerns": [CODE], "sentences": [set_back.sentence],
    }))
}

/// The devices as this copy has them.
async fn devices(
    State(set_back): State<Arc<SetBack>>,
    Asked(which): Asked<Which>,
) -> Result<Json<Devices>, Refusal> {
    let SetBack { store, registry, clock, .. } = &*set_back;
    let page =
        which.filter(DEVICES_DEFAULT, Selector::default())?.page(store, registry, clock::now(clock)).await?;
    let device = |record: DeviceRecord| Device {
        id: record.id,
        name: record.name,
        status: record.trust.status,
        tier: record.trust.tier,
        evidence_at: Some(record.trust.evidence_at).filter(|at| at.0 > 0),
        valid_until: Some(record.trust.valid_until).filter(|at| at.0 > 0),
        enrolled_at: Some(record.enrolled_at),
        reason: "as of the older copy".to_owned(),
        ..Device::default()
    };
    Ok(Json(Devices { devices: page.devices.into_iter().map(device).collect(), next: page.next }))
}

/// The trail as this copy has it.
async fn audit(
    State(set_back): State<Arc<SetBack>>,
    Asked(range): Asked<Range>,
) -> Result<Json<Leaves>, Refusal> {
    leaves(&set_back.store, &range).await.map(Json)
}

const CODE: &str = "set-back";
const LOOK_EVERY: Duration = Duration::from_secs(1);
const DEVICES_DEFAULT: usize = 500;
