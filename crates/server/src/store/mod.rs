//! What the server remembers: devices and their trust, grants, policies, telemetry and the audit trail.
//!
//! A change of state is one [`Transaction`] with one name, applied by the one writer (`writer.rs`), which commits
//! what has queued up together. Reads go to a pool and never wait for a write. Each noun's SQL is in its own file;
//! what is read back is a record, never a proof. Start with `writer.rs`, then `device/`; statements go
//! through `sql/`, which alone names the database library.

mod access;
mod appraisals;
mod assignments;
mod audit;
mod authority;
mod blobs;
mod budget;
mod device;
mod entries;
mod evidence;
mod federation;
mod feed;
mod gateways;
mod heads;
mod history;
mod inventory;
mod jwt;
mod keylime;
mod nodes;
mod owed;
mod pending;
mod policies;
mod secrets;
mod security;
mod space;
mod spire;
mod sql;
mod svid;
mod task;
mod telemetry;
mod usage;
mod webhooks;
mod withdraw;
mod writer;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::outcome::{Kind, Outcome};
use thiserror::Error;

pub(crate) use self::sql::Connection;
pub use self::sql::{Database, DatabaseUrl, DatabaseUrlError};

pub use access::{AccessTokenRecord, CreateAccessToken, NoteSignIn, PersonRecord, RevokeAccessToken};
pub use appraisals::AppraisalRecord;
pub use assignments::{
    AbortRollout, FinishRollout, PlanRecord, PlanStep, RevisePolicies, SetPolicy, StartRollout,
    UnassignPolicy, WidenRollout,
};
pub(crate) use audit::{Standing, highest_named_leaf, leaf, trail};
pub use authority::{AuthorityRecord, RecordAuthority};
pub use blobs::{BlobHash, NewBlob, blob_hash};
pub use device::{
    Along, ApproveDevice, Candidate, Change, DeviceRecord, EnrollDevice, ExpireDevice, ExpireUnreadable,
    IdentityRecord, LabelDevice, LabelledDevice, LoseEntries, Moved, NoteUnanswered, ReadmitDevice,
    RecordAppraisal, Recorded, RenameDevice, RenewTrust, ReplaceDevice, ReplacedDevice, RevokeDevice,
    StandingDevice, TrustColumns,
};
pub use entries::{
    Applied, ApplyEntries, CreateEntry, EntryRecord, FederatedEntries, RemoveEntry, UpdateEntry, Updated,
};
pub use evidence::{
    BootRecord, EvidenceColumns, EvidenceRecord, KeepEvidence, Kept, NewBoot, NewEvidence, NewPart,
    PartedList, Place, ToldBoot, TriedBoot, TriedEvidence,
};
pub use federation::{ForeignDomainRecord, PutForeign, PutForeignDomain};
pub use feed::Committed;
pub(crate) use feed::Follower;
pub use gateways::RevokeGateway;
pub use heads::{RecordCheckpoint, RecordHead};
pub(crate) use heads::{checkpoints, signed_heads};
pub use history::{PruneHistory, Pruned};
pub use inventory::{AfterEnd, By, Issued};
pub use jwt::RecordJwt;
pub use keylime::{AddKeylimeAgent, BindKeylimeAgent, KeylimeAgentRecord, RemoveKeylimeAgent};
pub use nodes::{KeepCertificate, Node, NodeCertificate, NodeCounts, Profile};
pub use owed::Fall;
pub use pending::{NotePending, PendingRecord, SayOfPending, Word};
pub use policies::{NewPolicy, PolicyKey, PolicyRecord};
pub use secrets::{
    AssignSecret, AssignedTo, KeepSecrets, PutSecret, ReleaseRecord, ReleaseSecret, RevokeSecret, Said,
    SecretRecord,
};
pub use security::NoteSecurity;
pub(crate) use space::free_bytes;
pub use spire::{
    AttestSpireAgent, Attested, CreateJoinToken, FallSpireAgent, NoteSpireAgent, OwnSvid, PromoteSvid,
    RenewSpireAgent, SpireAgentFall, SpireAgentRecord, TokenHash,
};
pub use svid::{Carrier, RecordSvid, SvidRecord};
pub use task::{
    AcceptResult, AttemptRecord, EndAttempt, EndTask, ExtendLeases, PlaceTask, ResultRecord, SeenLog,
    SubmitTask, TakeBack, TaskRecord, TaskStatus, Then,
};
pub(crate) use telemetry::pack;
pub use telemetry::{
    AcceptTelemetry, AddTelemetryKey, Chain, Dropped, Forwarded, KeepDestinations, KeptBatch, KeyAdded,
    PositionRecord, Receipt, RefuseTelemetry, RemoveTelemetryKey, SealRun, TelemetryKey, TelemetryRecord,
    Why,
};
pub use usage::Storage;
pub use webhooks::{KeepWebhooks, Letter, Notified, Progress, SendAgain};
pub use withdraw::{LostEntry, RenumberRevocationList, ResumeLedger, WithdrawOwn, Withdrawn};
pub use writer::{Transaction, Unit};

/// The store: a door to the writer and a pool of readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    writer: writer::Door,
    feed: feed::Feed,
    readers: sql::Readers,
    shortage: space::Shortage,
    owed: Arc<owed::Owed>,
    file: Option<PathBuf>,
}

impl Store {
    /// Opens the database, making or upgrading it.
    pub async fn open(database: &Database) -> Result<Store, StoreError> {
        let owed = Arc::new(owed::Owed::default());
        let readers = database.readers()?;
        let (writer, feed, shortage) = writer::start(database, owed.clone()).await?;
        Ok(Store { writer, feed, readers, shortage, owed, file: database.file().map(Path::to_owned) })
    }

    /// The database to be read, by a store that writes nothing: whatever is handed to it finds it closed.
    pub(crate) fn open_to_read(database: &Database) -> Result<Store, StoreError> {
        let (writer, feed) = writer::closed();
        let (readers, file) = (database.readers()?, database.file().map(Path::to_owned));
        Ok(Store { writer, feed, readers, shortage: space::Shortage::default(), owed: Arc::default(), file })
    }

    /// Opens an existing database to be read and nothing else; what `ledger verify` uses beside a running server.
    pub(crate) async fn open_read_only(database: &Database) -> Result<Connection, StoreError> {
        database.open_read_only().await
    }

    /// Hands a transaction to the writer and waits until it is on disk or refused.
    pub async fn commit<T: Transaction>(&self, transaction: T) -> Result<T::Output, StoreError> {
        Ok(self.write(transaction).await?.0)
    }

    /// What takes something back is tried once more where the disk is full: the writer has given up the reserve meanwhile. A
    /// fall that there is no room for even then is in force all the same.
    async fn write<T: Transaction>(&self, transaction: T) -> Result<(T::Output, u64), StoreError> {
        if !transaction.uses_reserve() {
            return self.writer.commit(transaction).await;
        }
        let (fall, again) = (transaction.fall(), transaction.clone().lean());
        if let Some(fall) = fall.clone().filter(|fall| self.owed.has(fall.device_id())) {
            self.owed.push(fall)?;
            return Err(StoreError::Unrecorded);
        }
        match self.writer.commit(transaction).await {
            Err(StoreError::NoSpace(_)) => {}
            outcome => return outcome,
        }
        match (self.writer.commit(again).await, fall) {
            (Err(StoreError::NoSpace(_)), Some(fall)) => {
                self.owed.push(fall)?;
                Err(StoreError::Unrecorded)
            }
            (outcome, _) => outcome,
        }
    }

    /// Whether the disk is full, so that only what withdraws is written.
    pub(crate) fn is_short(&self) -> bool {
        self.shortage.is()
    }

    /// Extends what stands for a device; the same for whoever extends at the same time is one statement.
    pub async fn renew(&self, renewal: RenewTrust) -> Result<(), StoreError> {
        self.writer.renew(renewal).await
    }

    /// Hands a transaction to the writer, and waits until what follows from it is done: lists are signed, what is in force is loaded.
    pub async fn commit_and_follow<T: Transaction>(&self, transaction: T) -> Result<T::Output, StoreError> {
        let (output, leaves) = self.write(transaction).await?;
        self.feed.wait(leaves).await?;
        Ok(output)
    }

    /// Lets the writer finish what is queued and closes everything.
    pub async fn close(self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Why the store did not do it. Nothing was changed, unless it says so.
#[derive(Clone, Debug, Error)]
pub enum StoreError {
    /// The file is not there, not ours or not a database.
    #[error("the database {} cannot be opened", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: Arc<sql::DatabaseError>,
    },
    /// The schema could not be brought up to date.
    #[error("the database schema cannot be upgraded")]
    Migrate(#[source] Arc<sql::MigrateError>),
    /// The database at a URL said no to the connection.
    #[error("the database {url} cannot be opened")]
    OpenUrl {
        /// Where it is.
        url: String,
        /// Why.
        source: Arc<sql::DatabaseError>,
    },
    /// What a connection to it needs is not as it has to be.
    #[error(transparent)]
    Url(Arc<DatabaseUrlError>),
    /// It has texts in something else than UTF-8.
    #[error("the database has its texts in {encoding}: make one with ENCODING 'UTF8'")]
    Encoding {
        /// In what.
        encoding: String,
    },
    /// It follows another.
    #[error(
        "the database is a standby, which takes no writes: give the address of the primary, or promote it"
    )]
    Standby,
    /// Another server has it.
    #[error("another server writes this database, from {by}: two servers on one database are refused")]
    Taken {
        /// From where.
        by: String,
    },
    /// The connection to it is lost, or there was none. Nothing was done, and nothing is written until there is one.
    #[error("the database does not answer: nothing is recorded or granted until it does")]
    Unreachable(#[source] Arc<sql::DatabaseError>),
    /// It takes no writes now.
    #[error("the database takes no writes: it is read-only, or became a standby")]
    ReadOnly(#[source] Arc<sql::DatabaseError>),
    /// It has no connection left for us.
    #[error("the database has no connection left: raise its max_connections, or lower readers_max")]
    Crowded(#[source] Arc<sql::DatabaseError>),
    /// The database said no.
    #[error("the database failed")]
    Database(#[source] Arc<sql::DatabaseError>),
    /// The disk is full.
    #[error(
        "the disk is full, and only what withdraws is recorded until there is room: free some where the database is"
    )]
    NoSpace(#[source] Option<Arc<sql::DatabaseError>>),
    /// The disk is full, and a fall is in force all the same: unlike with every other error, it is done.
    #[error("it is in force and not on record: the disk is full. It is recorded first once there is room")]
    Unrecorded,
    /// A stored value is not what this program writes.
    #[error("{column} of a stored row is not readable")]
    Corrupt {
        /// Where.
        column: &'static str,
    },
    /// A value that cannot be written, and is not stored as an empty one.
    #[error("a record cannot be written as JSON")]
    Unwritable,
    /// What the decision was based on has changed meanwhile: load and decide again.
    #[error("the state has moved on")]
    Conflict,
    /// There is no such thing.
    #[error("there is no such {0}")]
    Unknown(&'static str),
    /// A bound of the store was reached.
    #[error("the limit of {limit} {noun} is reached")]
    Full {
        /// What there are too many of.
        noun: &'static str,
        /// How many there may be.
        limit: u64,
    },
    /// A device brings more than the trail takes of one.
    #[error("{noun} come too often: {at_once} at once are taken, and then one each {seconds} s")]
    TooOften {
        /// Of what.
        noun: &'static str,
        /// How many.
        at_once: u64,
        /// How long each further one takes.
        seconds: u64,
    },
    /// More writes are waiting than there may be.
    #[error("too many writes are waiting")]
    Busy,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// The transaction failed by a fault of ours.
    #[error("the server failed while it wrote this; its log says where")]
    Panicked,
    /// The writer failed beside it: unlike with every other error, it may have been done.
    #[error("the server failed while it wrote; whether this was done is in the trail")]
    Interrupted,
    /// It was done and is on record, unlike every other error says.
    #[error("it is done and on record, but what follows from it is not yet: the server's log says why")]
    Unsettled,
}

impl Outcome for StoreError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            StoreError::Conflict => (Kind::Overtaken, "conflict"),
            StoreError::Unknown(_) => (Kind::NotFound, "unknown"),
            StoreError::Full { .. } => (Kind::Exhausted, "full"),
            StoreError::TooOften { .. } => (Kind::Exhausted, "too-often"),
            StoreError::Busy => (Kind::Exhausted, "busy"),
            StoreError::Closed => (Kind::Unavailable, "store"),
            StoreError::NoSpace(_) => (Kind::Unavailable, "disk-full"),
            StoreError::Unreachable(_)
            | StoreError::ReadOnly(_)
            | StoreError::Crowded(_)
            | StoreError::Standby
            | StoreError::Taken { .. } => (Kind::Unavailable, "database"),
            StoreError::Unrecorded => (Kind::Unavailable, "unrecorded"),
            StoreError::Unsettled => (Kind::Fault, "unsettled"),
            StoreError::Open { .. }
            | StoreError::OpenUrl { .. }
            | StoreError::Url(_)
            | StoreError::Encoding { .. }
            | StoreError::Migrate(_)
            | StoreError::Database(_)
            | StoreError::Corrupt { .. }
            | StoreError::Unwritable
            | StoreError::Panicked
            | StoreError::Interrupted => (Kind::Fault, "store"),
        }
    }
}

/// SQLite and PostgreSQL know signed numbers only; ours all fit.
fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn loaded(number: i64, column: &'static str) -> Result<u64, StoreError> {
    u64::try_from(number).map_err(|_| StoreError::Corrupt { column })
}

/// The database's name in the data folder.
pub(crate) const FILE_NAME: &str = "assay.db";
