//! Heads of the trail as they were signed.

use assay_evidence::time::UnixTime;

use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::Head;
use crate::store::sql::{Connection, query};

/// Keeps a signed head, the last one of its hour.
#[derive(Clone, Debug)]
pub struct RecordHead {
    /// When it was signed.
    pub at: UnixTime,
    /// Leaves that it is of.
    pub leaves: u64,
    /// The signed note.
    pub note: String,
}

impl Transaction for RecordHead {
    type Output = ();

    const SINGLE_STATEMENT: bool = true;

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        query(
            "INSERT INTO ledger_heads (hour, leaves, note) VALUES ($1, $2, $3)
             ON CONFLICT (hour) DO UPDATE SET leaves = $2, note = $3",
        )
        .bind(stored(self.at.0 / 3600))
        .bind(stored(self.leaves))
        .bind(&self.note)
        .execute(unit.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// How many heads were signed, one an hour.
    pub(crate) async fn signed_heads_count(&self) -> Result<u64, StoreError> {
        let row = query("SELECT COUNT(*) AS heads FROM ledger_heads").fetch_one(&self.readers).await?;
        loaded(row.try_get("heads")?, "ledger_heads")
    }

    /// The end of the trail as it is on disk.
    pub(crate) async fn trail_head(&self) -> Result<Head, StoreError> {
        let mut connection = self.readers.acquire().await?;
        super::audit::head(&mut connection).await
    }
}

/// Every signed head, oldest first.
pub(crate) async fn signed_heads(connection: &mut Connection) -> Result<Vec<(u64, String)>, StoreError> {
    let rows = query("SELECT leaves, note FROM ledger_heads ORDER BY leaves").fetch_all(connection).await?;
    rows.iter()
        .map(|row| Ok((loaded(row.try_get("leaves")?, "ledger_heads.leaves")?, row.try_get("note")?)))
        .collect()
}
