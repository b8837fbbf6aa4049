//! Statements and rows: the only files that name the database library.
//!
//! The statements themselves stand beside their noun, in the subset that SQLite and PostgreSQL share ([`query`]), or once for
//! each where there is none ([`query_of`]). Which database it is, is known here and nowhere above: what differs in opening,
//! locking and failing is in [`sqlite`] and [`postgres`].

pub(in crate::store) mod postgres;
mod run;
pub(in crate::store) mod sqlite;
mod value;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sqlx::SqlSafeStr;

use super::StoreError;
pub use postgres::{DatabaseUrl, DatabaseUrlError};
use run::On;
pub(crate) use run::Row;
pub(in crate::store) use run::{query, query_of};

/// Where the data is.
#[derive(Clone, Debug)]
pub enum Database {
    /// A file of SQLite's.
    File(PathBuf),
    /// A database of a PostgreSQL server.
    Postgres(Box<DatabaseUrl>),
}

impl Database {
    /// Opens it to be written, making or upgrading its schema. One program at a time has it.
    pub(in crate::store) async fn open(&self) -> Result<Connection, StoreError> {
        match self {
            Database::File(file) => Ok(Connection::Sqlite(sqlite::open(file).await?)),
            Database::Postgres(url) => Ok(Connection::Postgres(postgres::open(url).await?)),
        }
    }

    /// Opens one to be written that is as this program has it.
    pub(in crate::store) async fn open_again(&self) -> Result<Connection, StoreError> {
        match self {
            Database::File(file) => Ok(Connection::Sqlite(sqlite::open_again(file).await?)),
            Database::Postgres(url) => Ok(Connection::Postgres(postgres::open_again(url).await?)),
        }
    }

    /// Opens an existing one to be read and nothing else.
    pub(in crate::store) async fn open_read_only(&self) -> Result<Connection, StoreError> {
        match self {
            Database::File(file) => Ok(Connection::Sqlite(sqlite::open_read_only(file).await?)),
            Database::Postgres(url) => Ok(Connection::Postgres(postgres::open_read_only(url).await?)),
        }
    }

    /// Those who read it beside the writer.
    pub(in crate::store) fn readers(&self) -> Result<Readers, StoreError> {
        match self {
            Database::File(file) => Ok(Readers::Sqlite(sqlite::readers(file))),
            Database::Postgres(url) => Ok(Readers::Postgres(postgres::readers(url)?)),
        }
    }

    /// A new one for a test: in the folder, or of PostgreSQL, where the tests were told to run on that.
    #[cfg(test)]
    pub(crate) fn for_test(folder: &Path) -> Database {
        match assay_testkit::postgres::test_database() {
            Some(url) => Database::Postgres(Box::new(url.parse().unwrap())),
            None => Database::File(folder.join(super::FILE_NAME)),
        }
    }

    /// The file, where it is one.
    pub(in crate::store) fn file(&self) -> Option<&Path> {
        match self {
            Database::File(file) => Some(file),
            Database::Postgres(_) => None,
        }
    }
}

impl From<&Path> for Database {
    fn from(file: &Path) -> Database {
        Database::File(file.to_owned())
    }
}

/// The writing connection, or one that reads.
#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(sqlx::SqliteConnection),
    Postgres(sqlx::PgConnection),
    /// One state of the database, for as long as it is read; of [`Readers::begin`].
    SqliteReading(sqlx::Transaction<'static, sqlx::Sqlite>),
    PostgresReading(sqlx::Transaction<'static, sqlx::Postgres>),
    /// None any more: nothing that goes there is answered.
    Lost,
}

impl Connection {
    /// How a transaction begins that writes.
    pub(in crate::store) fn begin(&self) -> &'static str {
        match self {
            // At once, so that it is never refused halfway.
            Connection::Sqlite(_) | Connection::SqliteReading(_) => "BEGIN IMMEDIATE",
            Connection::Postgres(_) | Connection::PostgresReading(_) | Connection::Lost => "BEGIN",
        }
    }

    /// Whether one statement that fails takes all of its transaction with it, unless a savepoint stands before it.
    pub(in crate::store) fn fails_as_a_whole(&self) -> bool {
        matches!(self, Connection::Postgres(_) | Connection::PostgresReading(_))
    }

    /// Runs a statement without parameters or answer.
    pub(in crate::store) async fn run(&mut self, statement: &'static str) -> Result<(), StoreError> {
        let statement = sqlx::raw_sql(statement.into_sql_str());
        match On::from(self) {
            On::Sqlite(connection) => statement.execute(connection).await.map(|_| ())?,
            On::Postgres(connection) => postgres::in_time(statement.execute(connection)).await.map(|_| ())?,
            On::SqliteReaders(_) | On::PostgresReaders(_) | On::Lost => return Err(postgres::not_connected()),
        }
        Ok(())
    }

    /// Closes it; SQLite leaves no write-ahead log behind then, and PostgreSQL no lock.
    pub(in crate::store) async fn close(self) -> Result<(), StoreError> {
        match self {
            Connection::Sqlite(connection) => Ok(sqlx::Connection::close(connection).await?),
            Connection::Postgres(connection) => Ok(sqlx::Connection::close(connection).await?),
            Connection::SqliteReading(reading) => Ok(reading.rollback().await?),
            Connection::PostgresReading(reading) => Ok(reading.rollback().await?),
            Connection::Lost => Ok(()),
        }
    }
}

/// A pool of connections that read.
#[derive(Clone, Debug)]
pub(in crate::store) enum Readers {
    Sqlite(sqlx::SqlitePool),
    Postgres(sqlx::PgPool),
}

impl Readers {
    /// One state of the database, for several statements.
    pub(in crate::store) async fn begin(&self) -> Result<Connection, StoreError> {
        match self {
            Readers::Sqlite(pool) => Ok(Connection::SqliteReading(pool.begin().await?)),
            Readers::Postgres(pool) => Ok(Connection::PostgresReading(pool.begin().await?)),
        }
    }

    pub(in crate::store) async fn close(&self) {
        match self {
            Readers::Sqlite(pool) => pool.close().await,
            Readers::Postgres(pool) => pool.close().await,
        }
    }
}

/// Writes to a database what a server would not.
#[cfg(test)]
pub(in crate::store) async fn tamper(database: &Database, sql: &'static str) {
    let mut connection = match database {
        Database::File(file) => {
            let options = sqlite::options(file).foreign_keys(false);
            Connection::Sqlite(sqlx::ConnectOptions::connect(&options).await.unwrap())
        }
        Database::Postgres(url) => {
            // Without what holds rows together.
            let options = url.options().unwrap().options([("session_replication_role", "replica")]);
            Connection::Postgres(sqlx::ConnectOptions::connect(&options).await.unwrap())
        }
    };
    connection.run(sql).await.unwrap();
    connection.close().await.unwrap();
}

/// What the database says no with.
pub(in crate::store) type DatabaseError = sqlx::Error;
/// Why a schema could not be brought up to date.
pub(in crate::store) type MigrateError = sqlx::migrate::MigrateError;

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        if sqlite::is_no_space(&error) {
            return StoreError::NoSpace(Some(Arc::new(error)));
        }
        postgres::refusal(error)
    }
}
