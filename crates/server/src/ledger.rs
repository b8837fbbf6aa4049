//! `assay ledger verify`: checks the audit trail of a data folder from the file alone, beside a running server or not.

use std::path::Path;

use thiserror::Error;
use tokio_stream::StreamExt;

use crate::audit::{ChainError, Head};
use crate::store::{self, Store, StoreError};

/// Reads every leaf in order, checks the chain, and checks that every row that names a leaf still has it.
pub async fn verify(data: &Path) -> Result<Head, LedgerError> {
    let mut connection = Store::open_read_only(&data.join(store::FILE_NAME)).await?;
    let named = store::highest_named_leaf(&mut connection).await?;
    let mut head = Head::EMPTY;
    {
        let mut trail = store::trail(&mut connection);
        while let Some(row) = trail.next().await {
            let row = row.map_err(StoreError::from)?;
            head = head.follow(&store::leaf(&row)?)?;
        }
    }
    // Rows are read before the trail: a running server only adds to it, so a leaf named then must be there now.
    match named {
        Some(named) if named >= head.leaves => Err(LedgerError::CutOff { leaves: head.leaves, named }),
        _ => Ok(head),
    }
}

/// Why a trail does not verify.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// It could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A leaf is missing or altered.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// Its end is gone.
    #[error("the trail ends after {leaves} leaves, but leaf {named} is named elsewhere: its end was cut off")]
    CutOff {
        /// Leaves that are there.
        leaves: u64,
        /// A leaf that should be.
        named: u64,
    },
}
