//! Heads of the trail as they were signed.

use assay_evidence::time::UnixTime;

use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::{Hash, Head};
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

/// Keeps a signed checkpoint, the last one of its hour, with the tiles that became whole.
#[derive(Clone, Debug)]
pub struct RecordCheckpoint {
    /// When it was signed.
    pub at: UnixTime,
    /// Leaves that it is of.
    pub leaves: u64,
    /// The signed note.
    pub note: String,
    /// Numbers and roots of tiles.
    pub tiles: Vec<(u64, Hash)>,
}

impl Transaction for RecordCheckpoint {
    type Output = ();

    fn uses_reserve(&self) -> bool {
        true
    }

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        for (number, root) in &self.tiles {
            query(
                "INSERT INTO ledger_tiles (number, root) VALUES ($1, $2) ON CONFLICT (number) DO UPDATE SET root = $2",
            )
            .bind(stored(*number))
            .bind(root.as_slice())
            .execute(unit.connection())
            .await?;
        }
        query(
            "INSERT INTO ledger_checkpoints (hour, leaves, note) VALUES ($1, $2, $3)
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
    /// The checkpoint that was signed last.
    pub(crate) async fn last_checkpoint(&self) -> Result<Option<String>, StoreError> {
        let row = query("SELECT note FROM ledger_checkpoints ORDER BY leaves DESC LIMIT 1")
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row| row.try_get("note")).transpose()
    }

    /// The roots of whole tiles, from the first on without a gap.
    pub(crate) async fn ledger_tiles(&self) -> Result<Vec<Hash>, StoreError> {
        let rows =
            query("SELECT number, root FROM ledger_tiles ORDER BY number").fetch_all(&self.readers).await?;
        let mut tiles = Vec::with_capacity(rows.len());
        for row in &rows {
            let root: &[u8] = row.try_get("root")?;
            let number: u64 = loaded(row.try_get("number")?, "ledger_tiles.number")?;
            match root.try_into() {
                Ok(root) if number == tiles.len() as u64 => tiles.push(root),
                _ => break,
            }
        }
        Ok(tiles)
    }

    /// How many heads were signed, one an hour.
    pub(crate) async fn signed_heads_count(&self) -> Result<u64, StoreError> {
        let row = query("SELECT COUNT(*) AS heads FROM ledger_heads").fetch_one(&self.readers).await?;
        loaded(row.try_get("heads")?, "ledger_heads")
    }

    /// The end of the trail as it is on disk.
    pub(crate) async fn trail_head(&self) -> Result<Head, StoreError> {
        let mut connection = self.readers.begin().await?;
        super::audit::head(&mut connection).await
    }
}

/// Every signed checkpoint, oldest first.
pub(crate) async fn checkpoints(connection: &mut Connection) -> Result<Vec<String>, StoreError> {
    let rows = query("SELECT note FROM ledger_checkpoints ORDER BY leaves").fetch_all(connection).await?;
    rows.iter().map(|row| row.try_get("note")).collect()
}

/// Every signed head, oldest first.
pub(crate) async fn signed_heads(connection: &mut Connection) -> Result<Vec<(u64, String)>, StoreError> {
    let rows = query("SELECT leaves, note FROM ledger_heads ORDER BY leaves").fetch_all(connection).await?;
    rows.iter()
        .map(|row| Ok((loaded(row.try_get("leaves")?, "ledger_heads.leaves")?, row.try_get("note")?)))
        .collect()
}
