//! Everything the server is made of, put together. Doors and chores hold all of it; each use case gets the parts that it
//! needs.

use std::path::Path;
use std::sync::{Arc, Mutex};

use assay_clock::Clock;
use assay_evidence::time::UnixTime;
use assay_identity::x509pop::Anchors;
use assay_identity::{Life, SpiffeId, TrustDomain};
use assay_telemetry::json_protocol::Nonces;
use rustls::ClientConfig;
use tokio::sync::{Semaphore, watch};

use crate::access::session::Sessions;
use crate::actor::Actor;
use crate::attest::Attesting;
use crate::attest::judge::Verifier;
use crate::attest::table::Registry;
use crate::clock;
use crate::concern::Concerns;
use crate::config::{Config, Spire};
use crate::continuity;
use crate::door::admission::EdgeAdmission;
use crate::door::console::{PAGES_TOLD_MAX, Public};
use crate::door::edge::announce::Announcer;
use crate::door::edge::session::Beat;
use crate::door::federation::web_roots;
use crate::door::forward::{Destination, DestinationError};
use crate::door::keylime::KeylimeDoors;
use crate::door::oidc::Oidc;
use crate::door::spire::SpireTls;
use crate::door::tls::DoorTls;
use crate::door::webhook::{Receiver, WebhookError};
use crate::enroll::Enrolling;
use crate::entry::Rules;
use crate::follow::Following;
use crate::grant::secret::Releasing;
use crate::grant::svid::Granting;
use crate::grant::telemetry::Collecting;
use crate::in_force::access::Access;
use crate::in_force::endorsers::EndorsersInForce;
use crate::in_force::entries::Entries;
use crate::in_force::federation::Federation;
use crate::in_force::ledger_head::LedgerHead;
use crate::in_force::manifest::ManifestInForce;
use crate::in_force::messages::Messages;
use crate::in_force::policies::Policies;
use crate::in_force::revocations::RevocationList;
use crate::in_force::secrets::Secrets;
use crate::keys::{
    self, AkAuthority, Authority, ClassicAuthority, JwtKey, KeysError, LedgerKey, OperatorToken, ResultKey,
    SecretKey, ServerCertificate, StatementKey,
};
use crate::metrics::Metrics;
use crate::newcomer::Newcomers;
use crate::placement::Placement;
use crate::policy::Planning;
use crate::policy::trial::Trying;
use crate::rarely::Rarely;
use crate::security::{Refused, Security};
use crate::spire::attest::Joining;
use crate::start::{StartError, load_signers};
use crate::store::{Store, StoreError, WithdrawOwn};

/// The parts, shared by every request and stream.
#[derive(Debug)]
pub(crate) struct Server {
    pub clock: Clock,
    pub config: Config,
    pub store: Store,
    pub authority: Arc<Authority>,
    pub revocations: Arc<RevocationList>,
    pub announcer: Announcer,
    pub policies: Arc<Policies>,
    pub endorsers: Arc<EndorsersInForce>,
    pub entries: Arc<Entries>,
    pub ledger_head: Arc<LedgerHead>,
    pub registry: Arc<Registry>,
    pub newcomers: Arc<Newcomers>,
    pub attesting: Attesting,
    pub granting: Granting,
    pub releasing: Releasing,
    pub placement: Arc<Placement>,
    pub metrics: Arc<Metrics>,
    pub concerns: Concerns,
    pub rarely: Rarely,
    pub security: Security,
    pub operator: OperatorToken,
    pub result_key: ResultKey,
    /// Whose tokens are good.
    pub access: Arc<Access>,
    /// Who is signed in.
    pub sessions: Sessions,
    /// The provider that people sign in with, where there is one.
    pub oidc: Option<Arc<Oidc>>,
    pub public: Public,
    pub messages: Messages,
    pub edge: EdgeAdmission,
    /// Nonces of the JSON protocol that are out. Locked for a moment at a time.
    pub json_nonces: Mutex<Nonces>,
    /// When challenges go out.
    pub beat: Beat,
    /// One policy is tried at a time.
    pub trials: Arc<Semaphore>,
    /// Pages that are told of changes.
    pub pages: Arc<Semaphore>,
    /// One piece of evidence is read aloud at a time.
    pub readings: Arc<Semaphore>,
    pub tls: DoorTls,
    /// What SPIRE's agents are shown, where they are let in.
    pub spire_tls: Option<SpireTls>,
    /// Other trust domains.
    pub federation: Arc<Federation>,
    /// How servers outside are known that show no SPIFFE ID.
    pub web_tls: Arc<ClientConfig>,
    /// By whose certificates nodes attest; none: they do not.
    pub x509pop_anchors: Anchors,
    /// What the doors for Keylime's agents remember, where they are open.
    pub keylime: Option<Arc<KeylimeDoors>>,
    /// Who is given accepted telemetry.
    pub destinations: Vec<Arc<Destination>>,
    pub receivers: Vec<Arc<Receiver>>,
    pub destination_names: Arc<[String]>,
    /// Changes once, when everything has to come to an end.
    pub shutdown: watch::Receiver<bool>,
}

impl Server {
    /// Opens the keys, and loads what is in force.
    pub(crate) async fn open(
        store: Store,
        config: Config,
        clock: Clock,
        shutdown: watch::Receiver<bool>,
    ) -> Result<Server, StartError> {
        let now = clock::now(&clock);
        continuity::check(&store, &config.data, &config.trust_domain).await?;
        let folder = config.data.join(keys::FOLDER);
        let authority = Arc::new(Authority::open(&folder, &config.trust_domain, now)?);
        keys::write_public(&config.data.join("bundle.pem"), authority.bundle().to_pem().as_bytes())?;
        let operator = OperatorToken::open(&config.data, &folder)?;
        let result_key = ResultKey::open(&folder)?;
        let ttl = config.crl_ttl_seconds;
        withdraw_own(&store, &config.trust_domain, now).await?;
        let classic = classic(&config, &folder, now)?;
        let ak = ak(&config, &folder, now)?;
        let beside = (classic.clone(), ak.as_ref().map(|(authority, _)| authority.clone()));
        let authorities = (authority.clone(), beside);
        let revocations = Arc::new(RevocationList::open(&store, authorities, ttl, now).await?);
        let certificate =
            ServerCertificate::issue(&authority, &store, &config.names, config.server_svid_ttl_seconds, now)
                .await?;
        let statements = StatementKey::issue(&authority, &store, config.server_svid_ttl_seconds, now).await?;
        let jwt_key = Arc::new(JwtKey::open(&folder, &config.trust_domain, config.jwt_issuer.clone())?);
        let ledger_head = ledger_head(&config, &store, &folder, now).await?;
        let ledger_key = ledger_head.verifier().to_string();
        let announcer =
            Announcer::new((&authority, &jwt_key), &revocations.current(), Arc::new(statements), ledger_key)?;
        let tls = DoorTls::new(revocations.trust(), &certificate, &clock)?;
        let spire_tls = spire_tls(&config, &authority, &store, &clock, now).await?;
        let x509pop_anchors = x509pop_anchors(&config)?;
        let federation = Arc::new(Federation::open(&store).await?);
        let web_tls = web_roots(&config)?;
        continuity::record(&store, &config.data, &config.trust_domain).await?;
        let (policies, endorsers) = in_force(&store, &config, now).await?;
        let destinations = destinations(&config)?;
        let receivers = receivers(&config)?;
        let (entries, metrics) =
            (Arc::new(Entries::open(&store).await?), Arc::new(Metrics::new(config.trust_api.is_some())));
        let registry = Arc::new(Registry::new(&config.limits));
        let newcomers = Arc::new(Newcomers {
            mode: config.enrollment,
            manifest: ManifestInForce::open(config.enrollment_manifest.clone())?,
            devices_max: config.limits.pending_devices_max,
        });
        let judges = (policies.clone(), endorsers.clone(), entries.clone());
        let attesting = attesting(&config, &store, judges, registry.clone(), metrics.clone());
        let granting = Granting {
            store: store.clone(),
            authority: authority.clone(),
            jwt_key,
            entries: entries.clone(),
            device_ttl_seconds: config.device_svid_ttl_seconds,
            classic,
            ak,
            keeps_certificates: config.trust_api.is_some(),
        };
        let access = Arc::new(Access::open(&store).await?);
        let secrets = Arc::new(Secrets::open(&store).await?);
        let key = Arc::new(SecretKey::open(&folder, secrets.count() > 0)?);
        let releasing = Releasing { store: store.clone(), secrets, key };
        Ok(Server {
            placement: Arc::new(Placement::new(store.clone(), registry.clone())),
            destination_names: destinations.iter().map(|one| one.name().to_owned()).collect(),
            destinations,
            receivers,
            edge: EdgeAdmission::new(&config.limits),
            json_nonces: Mutex::new(Nonces::new(
                config.json_protocol.as_ref().map_or(0, |json| json.nonces_max),
            )),
            beat: Beat::from(clock.instant()),
            trials: Arc::new(Semaphore::new(1)),
            pages: Arc::new(Semaphore::new(PAGES_TOLD_MAX)),
            readings: Arc::new(Semaphore::new(1)),
            sessions: Sessions::default(),
            oidc: config.oidc.as_ref().map(Oidc::load).transpose()?.map(Arc::new),
            access,
            public: Public::default(),
            messages: Messages::new(metrics.trust.clone(), now),
            concerns: Concerns::default(),
            rarely: Rarely::default(),
            security: Security::new(store.clone(), metrics.clone()),
            entries,
            ledger_head,
            registry,
            newcomers,
            attesting,
            granting,
            releasing,
            metrics,
            store,
            authority,
            revocations,
            announcer,
            policies,
            endorsers,
            operator,
            result_key,
            tls,
            spire_tls,
            x509pop_anchors,
            federation,
            web_tls,
            keylime: config.keylime.as_ref().map(|_| Arc::default()),
            shutdown,
            clock,
            config,
        })
    }

    /// What time it is.
    pub(crate) fn now(&self) -> UnixTime {
        clock::now(&self.clock)
    }

    /// Notes that somebody tried what they may not.
    pub(crate) fn refused(&self, refused: Refused) {
        self.security.note(refused, self.now());
    }

    /// The lives of the certificates that the server shows or signs with, by name.
    pub(crate) fn lives(&self) -> Vec<(&'static str, Life)> {
        let [root, issuing] = self.authority.lives();
        let own = [root, issuing, ("server", self.tls.life()), ("statements", self.announcer.key().life)];
        let spire = self.spire_tls.as_ref().map(|tls| ("spire", tls.life()));
        own.into_iter().chain(spire).collect()
    }

    /// What follows commits.
    pub(crate) fn following(&self) -> Following {
        Following {
            secrets: self.releasing.secrets.clone(),
            access: self.access.clone(),
            store: self.store.clone(),
            registry: self.registry.clone(),
            policies: self.policies.clone(),
            entries: self.entries.clone(),
            federation: self.federation.clone(),
            ledger_head: self.ledger_head.clone(),
            revocations: self.revocations.clone(),
            metrics: self.metrics.clone(),
            placement: self.placement.clone(),
            clock: self.clock.clone(),
        }
    }

    /// What taking in nodes needs that do not quote, where they are let in.
    pub(crate) fn joining(&self) -> Option<Joining<'_>> {
        let Spire { agent_ttl_seconds, agents_max, .. } = *self.config.spire.as_ref()?;
        let (store, granting) = (&self.store, &self.granting);
        Some(Joining { store, granting, agent_ttl_seconds, agents_max })
    }

    /// What entries may be about.
    pub(crate) fn entry_rules(&self) -> Rules<'_> {
        let Server { config, federation, .. } = self;
        Rules { trust_domain: &config.trust_domain, unquoted: config.spire.is_some(), federation }
    }

    /// What enrolling needs.
    pub(crate) fn enrolling(&self) -> Enrolling<'_> {
        let Server { store, policies, endorsers, newcomers, config, .. } = self;
        Enrolling { store, policies, endorsers, newcomers, trust_domain: &config.trust_domain }
    }

    /// What taking telemetry in needs.
    pub(crate) fn collecting(&self) -> Collecting<'_> {
        let device_bytes_max = self.config.telemetry_bytes_per_device_max;
        let destinations = &self.destination_names;
        Collecting { store: &self.store, policies: &self.policies, device_bytes_max, destinations }
    }

    /// What a change of the plan needs.
    pub(crate) fn planning(&self, by: Actor, now: UnixTime) -> Planning<'_> {
        Planning { store: &self.store, policies: &self.policies, trials: &self.trials, by, now }
    }

    /// What a trial needs.
    pub(crate) fn trying(&self) -> Trying {
        Trying {
            store: self.store.clone(),
            policies: self.policies.clone(),
            turns: self.trials.clone(),
            shutdown: self.shutdown.clone(),
        }
    }
}

/// What an earlier run signed for itself ends: nobody has its keys any more.
async fn withdraw_own(store: &Store, trust_domain: &TrustDomain, now: UnixTime) -> Result<(), StoreError> {
    let own = [
        SpiffeId::server(trust_domain),
        SpiffeId::spire_server(trust_domain),
        SpiffeId::statements(trust_domain),
    ];
    let spiffe_ids = own.iter().map(SpiffeId::to_string).collect();
    store.commit(WithdrawOwn { spiffe_ids, at: now }).await.map(drop)
}

/// Everybody who is configured to be given telemetry, each under a name of its own.
fn destinations(config: &Config) -> Result<Vec<Arc<Destination>>, DestinationError> {
    let mut destinations: Vec<Arc<Destination>> = Vec::new();
    for forward in &config.forward {
        let destination = Destination::load(forward)?;
        if destinations.iter().any(|other| other.name() == destination.name()) {
            return Err(DestinationError::Name { name: forward.name.clone() });
        }
        destinations.push(Arc::new(destination));
    }
    Ok(destinations)
}

/// Everybody who is configured to be told, each under a name of its own.
fn receivers(config: &Config) -> Result<Vec<Arc<Receiver>>, WebhookError> {
    let mut receivers: Vec<Arc<Receiver>> = Vec::new();
    for webhook in &config.webhook {
        let receiver = Receiver::load(webhook)?;
        if receivers.iter().any(|other| other.name() == receiver.name()) {
            return Err(WebhookError::Name { name: webhook.name.clone() });
        }
        receivers.push(Arc::new(receiver));
    }
    Ok(receivers)
}

async fn spire_tls(
    config: &Config,
    authority: &Authority,
    store: &Store,
    clock: &Clock,
    now: UnixTime,
) -> Result<Option<SpireTls>, StartError> {
    if config.spire.is_none() {
        return Ok(None);
    }
    let (names, ttl) = (&config.names, config.server_svid_ttl_seconds);
    let certificate = ServerCertificate::issue_for_spire(authority, store, names, ttl, now).await?;
    Ok(Some(SpireTls::new(authority, &certificate, clock)?))
}

/// Read once: who changes them means a restart.
fn x509pop_anchors(config: &Config) -> Result<Anchors, StartError> {
    let files = config.spire.iter().flat_map(|spire| &spire.x509pop_anchors);
    files.into_iter().try_fold(Anchors::default(), |anchors, path| {
        let pem = std::fs::read(path).map_err(|source| StartError::File { path: path.clone(), source })?;
        let read = Anchors::from_pem(&pem);
        read.map(|more| anchors.and(more))
            .map_err(|source| StartError::X509PopAnchor { path: path.clone(), source })
    })
}

async fn ledger_head(
    config: &Config,
    store: &Store,
    folder: &Path,
    now: UnixTime,
) -> Result<Arc<LedgerHead>, StartError> {
    let key = LedgerKey::open(&config.data, folder, &config.trust_domain)?;
    Ok(Arc::new(LedgerHead::open(store, key, &config.data, now).await?))
}

fn attesting(
    config: &Config,
    store: &Store,
    (policies, endorsers, entries): (Arc<Policies>, Arc<EndorsersInForce>, Arc<Entries>),
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
) -> Attesting {
    Attesting {
        store: store.clone(),
        policies,
        endorsers,
        entries,
        registry,
        verifier: Arc::new(Verifier::new(config.limits.verifications_max)),
        boot_logs: Arc::default(),
        metrics,
        evidence_bytes_max: (config.evidence_bytes_max, config.evidence_bytes_per_device_max),
    }
}

/// Who is judged by what, and who vouches for TPMs; what is missing for any device to be trusted is said.
async fn in_force(
    store: &Store,
    config: &Config,
    now: UnixTime,
) -> Result<(Arc<Policies>, Arc<EndorsersInForce>), StartError> {
    let policies = Policies::open(store, load_signers(&config.policy_signers)?).await?;
    if policies.current().plan.assignments().is_empty() {
        tracing::warn!("no policy is set, so no device will be trusted: assay policy set FILE");
    }
    let endorsers = EndorsersInForce::open(config, now)?;
    if endorsers.current().eks.is_empty() {
        tracing::warn!("ek_anchors names no certificate, so only devices that a policy lists can enroll");
    }
    Ok((Arc::new(policies), Arc::new(endorsers)))
}

/// What signs certificates of RSA keys, where that is on.
fn classic(
    config: &Config,
    folder: &Path,
    now: UnixTime,
) -> Result<Option<Arc<ClassicAuthority>>, KeysError> {
    let Some(api) = config.trust_api.as_ref().filter(|api| api.classic) else { return Ok(None) };
    let url = api.classic_crl_url.clone();
    Ok(Some(Arc::new(ClassicAuthority::open(folder, &config.trust_domain, url, now)?)))
}

/// What signs certificates of AKs, where that is on.
fn ak(config: &Config, folder: &Path, now: UnixTime) -> Result<Option<(Arc<AkAuthority>, u64)>, KeysError> {
    let Some(section) = &config.ak_certificates else { return Ok(None) };
    let authority = AkAuthority::open(folder, &config.trust_domain, section.crl_url.clone(), now)?;
    Ok(Some((Arc::new(authority), section.life_seconds)))
}
