//! PostgreSQL: connections, the schema, the lock that makes one server its writer, and what its refusals mean.
//!
//! The lock is an advisory one of the session that writes. So it is had for as long as that connection is, and what is written
//! without it is nothing: the connection's end ends its transaction. A pooler that shares sessions between transactions breaks
//! this and may not stand in between.

mod passfile;
mod url;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection, PgPool, Row as _, SqlSafeStr};
use tokio::time::timeout;

use crate::store::StoreError;
pub use url::{DatabaseUrl, DatabaseUrlError};

/// Opens a database to be written, making or upgrading its schema; nobody else is its writer then.
pub(super) async fn open(url: &DatabaseUrl) -> Result<PgConnection, StoreError> {
    let mut connection = open_again(url).await?;
    migrations().run(&mut connection).await.map_err(|source| StoreError::Migrate(Arc::new(source)))?;
    Ok(connection)
}

/// Opens a database to be written that is as this program has it.
pub(super) async fn open_again(url: &DatabaseUrl) -> Result<PgConnection, StoreError> {
    let options = url.options()?.options([
        ("default_transaction_isolation", "read committed"),
        ("statement_timeout", STATEMENT_TIMEOUT),
        ("lock_timeout", LOCK_TIMEOUT),
    ]);
    let mut connection = connect(url, &options).await?;
    look_at(&mut connection).await?;
    take(&mut connection).await?;
    Ok(connection)
}

/// Opens an existing database to be read and nothing else.
pub(super) async fn open_read_only(url: &DatabaseUrl) -> Result<PgConnection, StoreError> {
    connect(url, &reading(url)?).await
}

/// Those who read it beside the writer.
pub(super) fn readers(url: &DatabaseUrl) -> Result<PgPool, StoreError> {
    let pool = PgPoolOptions::new()
        .min_connections(0)
        .max_connections(url.readers_max())
        .acquire_timeout(url.connect_timeout());
    Ok(pool.connect_lazy_with(reading(url)?))
}

/// Waits for an answer no longer than the server may think about it: one that is not there any more does not say so.
pub(super) async fn in_time<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    match timeout(ANSWER_WITHIN, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())),
    }
}

/// What is said of a statement on a connection that is lost.
pub(super) fn not_connected() -> StoreError {
    StoreError::Unreachable(Arc::new(sqlx::Error::Io(io::ErrorKind::NotConnected.into())))
}

/// What the database said no with, by what has to be done about it.
///
/// Codes: PostgreSQL, appendix A.
pub(super) fn refusal(error: sqlx::Error) -> StoreError {
    let code = code(&error).unwrap_or_default();
    let is_ours = error.as_database_error().is_none_or(|error| !is_postgres(error));
    let error = Arc::new(error);
    match (&*error, code.as_str()) {
        (
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut,
            _,
        ) => StoreError::Unreachable(error),
        _ if is_ours => StoreError::Database(error),
        // disk_full
        (_, "53100") => StoreError::NoSpace(Some(error)),
        // read_only_sql_transaction
        (_, "25006") => StoreError::ReadOnly(error),
        // too_many_connections
        (_, "53300") => StoreError::Crowded(error),
        // serialization_failure, deadlock_detected: whoever decided decides again.
        (_, "40001" | "40P01" | LOCK_NOT_AVAILABLE) => StoreError::Conflict,
        // admin_shutdown, crash_shutdown, cannot_connect_now, idle_session_timeout
        (_, "57P01" | "57P02" | "57P03" | "57P05") => StoreError::Unreachable(error),
        (_, code) if code.starts_with("08") => StoreError::Unreachable(error),
        _ => StoreError::Database(error),
    }
}

pub(in crate::store) fn migrations() -> Migrator {
    let numbered = MIGRATIONS.iter().zip(1..);
    let migrations = numbered.map(|((name, sql), number)| {
        Migration::new(number, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

fn is_of_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => false,
    }
}

fn is_postgres(error: &dyn sqlx::error::DatabaseError) -> bool {
    error.try_downcast_ref::<sqlx::postgres::PgDatabaseError>().is_some()
}

fn reading(url: &DatabaseUrl) -> Result<PgConnectOptions, StoreError> {
    Ok(url.options()?.options([
        // What is read in one transaction is of one moment, as it is with SQLite.
        ("default_transaction_isolation", "repeatable read"),
        ("default_transaction_read_only", "on"),
        ("statement_timeout", STATEMENT_TIMEOUT),
    ]))
}

async fn connect(url: &DatabaseUrl, options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let connected =
        timeout(url.connect_timeout(), options.clone().disable_statement_logging().connect()).await;
    let connected = connected.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())));
    connected.map_err(|error| match refusal(error) {
        StoreError::Database(source) => StoreError::OpenUrl { url: url.to_string(), source },
        // Somebody answers who is not believed.
        StoreError::Unreachable(source) if is_of_tls(&source) => {
            StoreError::OpenUrl { url: url.to_string(), source }
        }
        other => other,
    })
}

/// What has to be so of a database, whoever made it.
async fn look_at(connection: &mut PgConnection) -> Result<(), StoreError> {
    let asked = "SELECT current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync,
         current_setting('synchronous_commit') AS synchronous_commit, pg_is_in_recovery() AS is_standby";
    let row = in_time(sqlx::query(asked).fetch_one(&mut *connection)).await?;
    let encoding: String = row.try_get("encoding")?;
    if encoding != "UTF8" {
        return Err(StoreError::Encoding { encoding });
    }
    if row.try_get("is_standby")? {
        return Err(StoreError::Standby);
    }
    if row.try_get::<String, _>("fsync")? == "off" {
        tracing::warn!("the database's server has fsync off: a crash of its machine loses what was answered");
    }
    // A grant or a revocation that was answered survives a power cut. What waits for standbys as well stays as it is.
    if matches!(row.try_get("synchronous_commit")?, "off" | "local") {
        in_time(sqlx::query("SET synchronous_commit = on").execute(connection)).await?;
    }
    Ok(())
}

/// Becomes the database's one writer. A server that just ended may still have it for a moment, also where it is this one by a
/// connection that broke: then what that one was doing is done, or is not, once the lock is had.
async fn take(connection: &mut PgConnection) -> Result<(), StoreError> {
    // It waits for no longer than for any lock.
    let taking = sqlx::query("SELECT pg_advisory_lock($1, hashtext(current_schema()))").bind(LOCK);
    match in_time(taking.execute(&mut *connection)).await {
        Ok(_) => Ok(()),
        Err(error) if code(&error).as_deref() == Some(LOCK_NOT_AVAILABLE) => {
            Err(StoreError::Taken { by: holder(connection).await? })
        }
        Err(error) => Err(error.into()),
    }
}

/// Who has the lock, as far as the database tells.
async fn holder(connection: &mut PgConnection) -> Result<String, StoreError> {
    let asked = "SELECT COALESCE(host(client_addr), 'its own machine') AS address, activity.pid AS pid
         FROM pg_locks AS lock JOIN pg_stat_activity AS activity ON activity.pid = lock.pid
         WHERE locktype = 'advisory' AND lock.granted AND classid::bigint = $1
             AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1";
    let row = in_time(sqlx::query(asked).bind(i64::from(LOCK)).fetch_optional(connection)).await?;
    let Some(row) = row else { return Ok("somewhere".to_owned()) };
    let (address, pid): (String, i32) = (row.try_get("address")?, row.try_get("pid")?);
    Ok(format!("{address}, by the backend {pid}"))
}

/// The schema's steps in order; a step that was released never changes.
const MIGRATIONS: [(&str, &str); 1] =
    [("schema", include_str!("../../../../../../migrations/postgres/0001_schema.sql"))];

/// The class of our advisory lock, "ASSY"; the other half is the schema's name, so that two may live in one database.
const LOCK: i32 = 0x4153_5359;

/// What a statement may take, as the database counts it.
const STATEMENT_TIMEOUT: &str = "30s";
/// What the writer waits for a lock: for that of the last writer, which may take that long to be gone, and for others that only
/// somebody at a prompt can have.
const LOCK_TIMEOUT: &str = "5s";
const LOCK_NOT_AVAILABLE: &str = "55P03";
/// The same as this program counts it.
const ANSWER_WITHIN: Duration = Duration::from_secs(35);
