//! A statement, run on whichever database is there, and the rows that it answers.

use std::borrow::Cow;
use std::pin::Pin;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Decode, Postgres, Row as _, Sqlite, Type};
use tokio_stream::{Stream, StreamExt};

use super::postgres::{in_time, not_connected};
use super::value::Value;
use super::{Connection, Readers, StoreError};

/// A statement, and what is bound to it.
pub(in crate::store) struct Query<'q> {
    sqlite: &'static str,
    postgres: &'static str,
    is_kept: bool,
    values: Vec<Value<'q>>,
}

/// A statement of ours that both databases read.
pub(in crate::store) fn query<'q>(statement: &'static str) -> Query<'q> {
    query_of(statement, statement)
}

/// A statement that each database has its own words for.
pub(in crate::store) fn query_of<'q>(sqlite: &'static str, postgres: &'static str) -> Query<'q> {
    Query { sqlite, postgres, is_kept: true, values: Vec::new() }
}

/// Runs the statement on what `$on` is: `$run` of the library's query, and where it runs.
macro_rules! on_each {
    ($on:expr, $query:ident, $run:ident) => {
        match $on.into() {
            On::Sqlite(connection) => Either::Sqlite($query.sqlite().$run(connection).await?),
            On::SqliteReaders(pool) => Either::Sqlite($query.sqlite().$run(pool).await?),
            On::Postgres(connection) => Either::Postgres(in_time($query.postgres().$run(connection)).await?),
            On::PostgresReaders(pool) => Either::Postgres(in_time($query.postgres().$run(pool)).await?),
            On::Lost => return Err(not_connected()),
        }
    };
}

impl<'q> Query<'q> {
    /// Prepares it for this once, so that nothing of what is bound to it stays behind.
    pub(in crate::store) fn once(self) -> Query<'q> {
        Query { is_kept: false, ..self }
    }

    /// Binds the next parameter.
    pub(in crate::store) fn bind(mut self, value: impl Into<Value<'q>>) -> Query<'q> {
        self.values.push(value.into());
        self
    }

    /// Runs it; how many rows it changed is in the answer.
    pub(in crate::store) async fn execute<'e>(self, on: impl Into<On<'e>>) -> Result<Done, StoreError> {
        Ok(Done(match on_each!(on, self, execute) {
            Either::Sqlite(done) => done.rows_affected(),
            Either::Postgres(done) => done.rows_affected(),
        }))
    }

    /// Every row.
    pub(in crate::store) async fn fetch_all<'e>(self, on: impl Into<On<'e>>) -> Result<Vec<Row>, StoreError> {
        Ok(match on_each!(on, self, fetch_all) {
            Either::Sqlite(rows) => rows.into_iter().map(Row::Sqlite).collect(),
            Either::Postgres(rows) => rows.into_iter().map(Row::Postgres).collect(),
        })
    }

    /// The row, if there is one.
    pub(in crate::store) async fn fetch_optional<'e>(
        self,
        on: impl Into<On<'e>>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(match on_each!(on, self, fetch_optional) {
            Either::Sqlite(row) => row.map(Row::Sqlite),
            Either::Postgres(row) => row.map(Row::Postgres),
        })
    }

    /// The row, which has to be there.
    pub(in crate::store) async fn fetch_one<'e>(self, on: impl Into<On<'e>>) -> Result<Row, StoreError> {
        Ok(match on_each!(on, self, fetch_one) {
            Either::Sqlite(row) => Row::Sqlite(row),
            Either::Postgres(row) => Row::Postgres(row),
        })
    }

    /// Row by row, for what does not fit in memory.
    pub(in crate::store) fn fetch<'e>(
        self,
        on: &'e mut Connection,
    ) -> Pin<Box<dyn Stream<Item = Result<Row, StoreError>> + Send + 'e>>
    where
        'q: 'e,
    {
        match on.into() {
            On::Sqlite(connection) => {
                Box::pin(self.sqlite().fetch(connection).map(|row| Ok(Row::Sqlite(row?))))
            }
            On::SqliteReaders(pool) => Box::pin(self.sqlite().fetch(pool).map(|row| Ok(Row::Sqlite(row?)))),
            On::Postgres(connection) => {
                Box::pin(self.postgres().fetch(connection).map(|row| Ok(Row::Postgres(row?))))
            }
            On::PostgresReaders(pool) => {
                Box::pin(self.postgres().fetch(pool).map(|row| Ok(Row::Postgres(row?))))
            }
            On::Lost => Box::pin(tokio_stream::once(Err(not_connected()))),
        }
    }

    fn sqlite(self) -> sqlx::query::Query<'q, Sqlite, SqliteArguments> {
        let query = sqlx::query(self.sqlite).persistent(self.is_kept);
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Number(number) => query.bind(number),
            Value::Truth(truth) => query.bind(truth),
            Value::Text(Some(Cow::Borrowed(text))) => query.bind(text),
            Value::Text(text) => query.bind(text.map(Cow::into_owned)),
            Value::Bytes(Cow::Borrowed(bytes)) => query.bind(bytes),
            Value::Bytes(Cow::Owned(bytes)) => query.bind(bytes),
        })
    }

    fn postgres(self) -> sqlx::query::Query<'q, Postgres, PgArguments> {
        #[cfg(test)]
        super::tests::note(self.postgres);
        let query = sqlx::query(self.postgres).persistent(self.is_kept);
        self.values.into_iter().fold(query, |query, value| match value {
            Value::Number(number) => query.bind(number),
            Value::Truth(truth) => query.bind(truth),
            Value::Text(text) => query.bind(text),
            Value::Bytes(Cow::Borrowed(bytes)) => query.bind(bytes),
            Value::Bytes(Cow::Owned(bytes)) => query.bind(bytes),
        })
    }
}

/// Where a statement goes.
pub(in crate::store) enum On<'e> {
    Sqlite(&'e mut sqlx::SqliteConnection),
    SqliteReaders(&'e sqlx::SqlitePool),
    Postgres(&'e mut sqlx::PgConnection),
    PostgresReaders(&'e sqlx::PgPool),
    Lost,
}

impl<'e> From<&'e mut Connection> for On<'e> {
    fn from(connection: &'e mut Connection) -> On<'e> {
        match connection {
            Connection::Sqlite(connection) => On::Sqlite(connection),
            Connection::Postgres(connection) => On::Postgres(connection),
            Connection::SqliteReading(reading) => On::Sqlite(reading),
            Connection::PostgresReading(reading) => On::Postgres(reading),
            Connection::Lost => On::Lost,
        }
    }
}

impl<'e> From<&'e Readers> for On<'e> {
    fn from(readers: &'e Readers) -> On<'e> {
        match readers {
            Readers::Sqlite(pool) => On::SqliteReaders(pool),
            Readers::Postgres(pool) => On::PostgresReaders(pool),
        }
    }
}

/// What one of the databases answers.
enum Either<S, P> {
    Sqlite(S),
    Postgres(P),
}

/// What a statement did.
pub(in crate::store) struct Done(u64);

impl Done {
    pub(in crate::store) fn rows_affected(&self) -> u64 {
        self.0
    }
}

/// A row of an answer.
#[derive(Debug)]
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

impl Row {
    /// The value of a column.
    pub(in crate::store) fn try_get<'r, T>(&'r self, column: &str) -> Result<T, StoreError>
    where
        T: Decode<'r, Sqlite> + Type<Sqlite> + Decode<'r, Postgres> + Type<Postgres>,
    {
        Ok(match self {
            Row::Sqlite(row) => row.try_get(column)?,
            Row::Postgres(row) => row.try_get(column)?,
        })
    }
}
