//! SQLite: opening a file, its schema, and how it is tuned.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::error::DatabaseError;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteError, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{ConnectOptions, SqlSafeStr, SqliteConnection, SqlitePool};

use crate::store::StoreError;

/// Opens a database to be written, making or upgrading it.
pub(in crate::store) async fn open(file: &Path) -> Result<SqliteConnection, StoreError> {
    let opening = |source| StoreError::Open { path: file.to_owned(), source: Arc::new(source) };
    let mut connection = options(file).create_if_missing(true).connect().await.map_err(opening)?;
    migrations().run(&mut connection).await.map_err(|source| StoreError::Migrate(Arc::new(source)))?;
    Ok(connection)
}

/// Opens a database to be written that is as this program has it.
pub(in crate::store) async fn open_again(file: &Path) -> Result<SqliteConnection, StoreError> {
    let opening = |source| StoreError::Open { path: file.to_owned(), source: Arc::new(source) };
    options(file).connect().await.map_err(opening)
}

/// Opens an existing database to be read and nothing else.
pub(in crate::store) async fn open_read_only(file: &Path) -> Result<SqliteConnection, StoreError> {
    let opening = |source| StoreError::Open { path: file.to_owned(), source: Arc::new(source) };
    options_read_only(file).connect().await.map_err(opening)
}

/// Those who read it beside the writer.
pub(in crate::store) fn readers(file: &Path) -> SqlitePool {
    SqlitePoolOptions::new()
        .min_connections(0)
        .max_connections(READERS_MAX)
        .acquire_timeout(READ_WAIT_MAX)
        .connect_lazy_with(options_read_only(file))
}

pub(in crate::store) fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .journal_mode(SqliteJournalMode::Wal)
        // A grant or a revocation that was answered survives a power cut; group commit pays for it.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("cache_size", "-4096")
        .disable_statement_logging()
}

/// Whether SQLite had no room for what was to be written.
pub(in crate::store) fn is_no_space(error: &sqlx::Error) -> bool {
    let sqlite = error.as_database_error().and_then(|error| error.try_downcast_ref::<SqliteError>());
    let code = sqlite.and_then(DatabaseError::code);
    code.is_some_and(|code| NO_SPACE.contains(&code.as_ref()))
}

/// SQLITE_FULL, SQLITE_IOERR_WRITE (a quota) and SQLITE_IOERR_SHMSIZE.
const NO_SPACE: [&str; 3] = ["13", "778", "4874"];

fn options_read_only(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .read_only(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("cache_size", "-1024")
        .disable_statement_logging()
}

pub(in crate::store) fn migrations() -> Migrator {
    let numbered = MIGRATIONS.iter().zip(1..);
    let migrations = numbered.map(|((name, sql), number)| {
        Migration::new(number, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// The schema's steps in order; a step that was released never changes.
const MIGRATIONS: [(&str, &str); 32] = [
    ("spine", include_str!("../../../../../migrations/sqlite/0001_spine.sql")),
    ("trust vector", include_str!("../../../../../migrations/sqlite/0002_trust_vector.sql")),
    ("evidence", include_str!("../../../../../migrations/sqlite/0003_evidence.sql")),
    ("assignments", include_str!("../../../../../migrations/sqlite/0004_assignments.sql")),
    ("policy envelopes", include_str!("../../../../../migrations/sqlite/0005_policy_envelopes.sql")),
    ("device identity", include_str!("../../../../../migrations/sqlite/0006_device_identity.sql")),
    ("withdrawn by", include_str!("../../../../../migrations/sqlite/0007_withdrawn_by.sql")),
    ("ledger heads", include_str!("../../../../../migrations/sqlite/0008_ledger_heads.sql")),
    ("device usage", include_str!("../../../../../migrations/sqlite/0009_device_usage.sql")),
    ("authority", include_str!("../../../../../migrations/sqlite/0010_authority.sql")),
    ("names", include_str!("../../../../../migrations/sqlite/0011_names.sql")),
    ("pending", include_str!("../../../../../migrations/sqlite/0012_pending.sql")),
    ("entries by identity", include_str!("../../../../../migrations/sqlite/0013_entries_by_identity.sql")),
    ("telemetry runs", include_str!("../../../../../migrations/sqlite/0014_telemetry_runs.sql")),
    ("entry revisions", include_str!("../../../../../migrations/sqlite/0015_entry_revisions.sql")),
    ("nodes", include_str!("../../../../../migrations/sqlite/0016_nodes.sql")),
    ("telemetry outbox", include_str!("../../../../../migrations/sqlite/0017_telemetry_outbox.sql")),
    ("security", include_str!("../../../../../migrations/sqlite/0018_security.sql")),
    ("node speakers", include_str!("../../../../../migrations/sqlite/0019_node_speakers.sql")),
    ("json telemetry", include_str!("../../../../../migrations/sqlite/0020_json_telemetry.sql")),
    ("classic", include_str!("../../../../../migrations/sqlite/0021_classic.sql")),
    ("webhooks", include_str!("../../../../../migrations/sqlite/0022_webhooks.sql")),
    ("spire", include_str!("../../../../../migrations/sqlite/0023_spire.sql")),
    ("keylime", include_str!("../../../../../migrations/sqlite/0024_keylime.sql")),
    ("secrets", include_str!("../../../../../migrations/sqlite/0025_secrets.sql")),
    ("keylime tenants", include_str!("../../../../../migrations/sqlite/0026_keylime_tenants.sql")),
    ("tasks", include_str!("../../../../../migrations/sqlite/0027_tasks.sql")),
    ("access", include_str!("../../../../../migrations/sqlite/0028_access.sql")),
    ("federation", include_str!("../../../../../migrations/sqlite/0029_federation.sql")),
    ("ledger tiles", include_str!("../../../../../migrations/sqlite/0030_ledger_tiles.sql")),
    (
        "certificate inventory",
        include_str!("../../../../../migrations/sqlite/0031_certificate_inventory.sql"),
    ),
    ("ak certificates", include_str!("../../../../../migrations/sqlite/0032_ak_certificates.sql")),
];

/// Connections that read; each has a thread and a cache of 1 MiB.
const READERS_MAX: u32 = 4;

/// How long a read waits for a connection before it is refused.
const READ_WAIT_MAX: Duration = Duration::from_secs(5);
