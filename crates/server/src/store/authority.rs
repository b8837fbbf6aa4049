//! By what the keys are known that the database was made with.

use super::sql::{Row, query};
use super::{Store, StoreError, Transaction, Unit};

/// The keys of a data folder that nothing can stand in for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityRecord {
    /// SHA-256 of the root's certificate, hex.
    pub root_sha256: String,
    /// SHA-256 of the issuing CA's public key, hex: its certificate is renewed, its key is not.
    pub issuing_spki: String,
    /// What verifies heads of the trail, as a C2SP verifier key.
    pub ledger_key: String,
}

/// Notes the keys of the first start, and no others ever after.
#[derive(Clone, Debug)]
pub struct RecordAuthority(
    /// The keys.
    pub AuthorityRecord,
);

impl Transaction for RecordAuthority {
    type Output = ();

    const SINGLE_STATEMENT: bool = true;

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        query(
            "INSERT INTO authority (id, root_sha256, issuing_spki, ledger_key) VALUES (1, $1, $2, $3)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(&self.0.root_sha256)
        .bind(&self.0.issuing_spki)
        .bind(&self.0.ledger_key)
        .execute(unit.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// The keys that the database was made with; `None` before the first start.
    pub(crate) async fn authority(&self) -> Result<Option<AuthorityRecord>, StoreError> {
        let row = query("SELECT root_sha256, issuing_spki, ledger_key FROM authority WHERE id = 1")
            .fetch_optional(&self.readers)
            .await?;
        row.map(|row: Row| {
            Ok(AuthorityRecord {
                root_sha256: row.try_get("root_sha256")?,
                issuing_spki: row.try_get("issuing_spki")?,
                ledger_key: row.try_get("ledger_key")?,
            })
        })
        .transpose()
    }
}
