//! Everything the server is made of, put together. Doors and chores hold all of it; each use case gets the parts that it
//! needs.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use crate::attest::judge::Verifier;
use crate::attest::table::Registry;
use crate::clock;
use crate::config::Config;
use crate::door::console::SignIns;
use crate::door::tls::DoorTls;
use crate::in_force::boot_logs::BootLogs;
use crate::in_force::endorsers::EndorsersInForce;
use crate::in_force::entries::Entries;
use crate::in_force::policies::Policies;
use crate::in_force::revocations::RevocationList;
use crate::keys::{self, Authority, OperatorToken, ResultKey, ServerCertificate};
use crate::metrics::Metrics;
use crate::start::{StartError, load_signers};
use crate::store::Store;

/// The parts, shared by every request and stream.
#[derive(Debug)]
pub(crate) struct Server {
    pub config: Config,
    pub store: Store,
    pub authority: Arc<Authority>,
    pub revocations: RevocationList,
    pub policies: Policies,
    pub endorsers: EndorsersInForce,
    pub entries: Entries,
    pub registry: Arc<Registry>,
    pub verifier: Verifier,
    pub boot_logs: Arc<BootLogs>,
    pub metrics: Metrics,
    pub operator: OperatorToken,
    pub result_key: ResultKey,
    pub sign_ins: SignIns,
    pub enrollments: Arc<Semaphore>,
    /// One policy is tried at a time.
    pub trials: Arc<Semaphore>,
    pub tls: DoorTls,
    /// Changes once, when everything has to come to an end.
    pub shutdown: watch::Receiver<bool>,
}

impl Server {
    /// Opens the store and the keys, and loads what is in force.
    pub(crate) async fn open(config: Config, shutdown: watch::Receiver<bool>) -> Result<Server, StartError> {
        let now = clock::now();
        let folder = config.data.join("keys");
        let store = Store::open(&config.database()).await?;
        let authority = Arc::new(Authority::open(&folder, &config.trust_domain, now)?);
        keys::write_public(&config.data.join("bundle.pem"), authority.bundle().to_pem().as_bytes())?;
        let operator = OperatorToken::open(&config.data, &folder)?;
        let result_key = ResultKey::open(&folder)?;
        let revocations =
            RevocationList::open(&store, authority.clone(), config.crl_ttl_seconds, now).await?;
        let certificate =
            ServerCertificate::issue(&authority, &store, &config.names, config.server_svid_ttl_seconds, now)
                .await?;
        let tls = DoorTls::new(revocations.trust(), &certificate)?;
        let policies = Policies::open(&store, load_signers(&config.policy_signers)?).await?;
        if policies.current().plan.assignments().is_empty() {
            tracing::warn!("no policy is set, so no device will be trusted: assay policy set FILE");
        }
        let endorsers = EndorsersInForce::open(&config)?;
        if endorsers.current().eks.is_empty() {
            tracing::warn!("ek_anchors names no certificate, so only devices that a policy lists can enroll");
        }
        let limits = &config.limits;
        Ok(Server {
            entries: Entries::open(&store, &config.trust_domain).await?,
            registry: Arc::new(Registry::new(limits)),
            verifier: Verifier::new(limits.verifications_max),
            boot_logs: Arc::default(),
            enrollments: Arc::new(Semaphore::new(limits.enrollments_max)),
            trials: Arc::new(Semaphore::new(1)),
            metrics: Metrics::new(),
            sign_ins: SignIns::default(),
            store,
            authority,
            revocations,
            policies,
            endorsers,
            operator,
            result_key,
            tls,
            shutdown,
            config,
        })
    }
}
