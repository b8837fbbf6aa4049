//! Statements and rows: the only files that name the database library.
//!
//! The statements themselves stand beside their noun, in the subset that SQLite and PostgreSQL share; what differs is in
//! [`sqlite`].

pub(in crate::store) mod sqlite;

use std::sync::Arc;

use sqlx::sqlite::{Sqlite, SqliteArguments, SqliteQueryResult, SqliteRow};
use sqlx::{Decode, Encode, Executor, Row as _, SqlSafeStr, Type};
use tokio_stream::{Stream, StreamExt};

use super::StoreError;
pub(super) use sqlite::{close, open, open_again, open_read_only, readers};

/// The writing connection, or one that reads.
pub(crate) type Connection = sqlx::sqlite::SqliteConnection;
/// A pool of connections that read.
pub(in crate::store) type Readers = sqlx::sqlite::SqlitePool;
/// What the database says no with.
pub(in crate::store) type DatabaseError = sqlx::Error;
/// Why a schema could not be brought up to date.
pub(in crate::store) type MigrateError = sqlx::migrate::MigrateError;

/// A statement, and what is bound to it.
pub(in crate::store) struct Query<'q>(sqlx::query::Query<'q, Sqlite, SqliteArguments>);

/// A statement of ours.
pub(in crate::store) fn query<'q>(statement: &'static str) -> Query<'q> {
    Query(sqlx::query(statement))
}

/// A statement without parameters or answer.
pub(in crate::store) async fn run(
    connection: &mut Connection,
    statement: &'static str,
) -> Result<(), StoreError> {
    sqlx::raw_sql(statement.into_sql_str()).execute(connection).await?;
    Ok(())
}

impl<'q> Query<'q> {
    /// Prepares it for this once, so that nothing of what is bound to it stays behind.
    pub(in crate::store) fn once(self) -> Query<'q> {
        Query(self.0.persistent(false))
    }

    /// Binds the next parameter.
    pub(in crate::store) fn bind<T: 'q + Encode<'q, Sqlite> + Type<Sqlite>>(self, value: T) -> Query<'q> {
        Query(self.0.bind(value))
    }

    /// Runs it; how many rows it changed is in the answer.
    pub(in crate::store) async fn execute<'e, E>(self, on: E) -> Result<SqliteQueryResult, StoreError>
    where
        E: Executor<'e, Database = Sqlite>,
        'q: 'e,
    {
        Ok(self.0.execute(on).await?)
    }

    /// Every row.
    pub(in crate::store) async fn fetch_all<'e, E>(self, on: E) -> Result<Vec<Row>, StoreError>
    where
        E: Executor<'e, Database = Sqlite>,
        'q: 'e,
    {
        Ok(self.0.fetch_all(on).await?.into_iter().map(Row).collect())
    }

    /// The row, if there is one.
    pub(in crate::store) async fn fetch_optional<'e, E>(self, on: E) -> Result<Option<Row>, StoreError>
    where
        E: Executor<'e, Database = Sqlite>,
        'q: 'e,
    {
        Ok(self.0.fetch_optional(on).await?.map(Row))
    }

    /// The row, which has to be there.
    pub(in crate::store) async fn fetch_one<'e, E>(self, on: E) -> Result<Row, StoreError>
    where
        E: Executor<'e, Database = Sqlite>,
        'q: 'e,
    {
        Ok(Row(self.0.fetch_one(on).await?))
    }

    /// Row by row, for what does not fit in memory.
    pub(in crate::store) fn fetch<'e>(
        self,
        on: &'e mut Connection,
    ) -> impl Stream<Item = Result<Row, StoreError>> + Unpin + 'e
    where
        'q: 'e,
    {
        self.0.fetch(on).map(|row| Ok(Row(row?)))
    }
}

/// A row of an answer.
#[derive(Debug)]
pub(crate) struct Row(SqliteRow);

impl Row {
    /// The value of a column.
    pub(in crate::store) fn try_get<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(
        &'r self,
        column: &str,
    ) -> Result<T, StoreError> {
        Ok(self.0.try_get(column)?)
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        match sqlite::is_no_space(&error) {
            true => StoreError::NoSpace(Some(Arc::new(error))),
            false => StoreError::Database(Arc::new(error)),
        }
    }
}
