//! Contents by their SHA-256: each is kept once, packed, for as long as a row names it.

use aws_lc_rs::digest::{SHA256, digest};
use lz4_flex::block;

use super::{Store, StoreError, Unit, loaded, stored};
use crate::store::sql::{Row, query};

/// The name of a content: its SHA-256.
pub type BlobHash = [u8; 32];

/// A content to be named by a row.
#[derive(Clone, Debug)]
pub struct NewBlob {
    hash: BlobHash,
    bytes: u64,
    /// `None`: it was seen to be there.
    packed: Option<Vec<u8>>,
    /// Whether what is there may be damaged.
    repairs: bool,
}

impl NewBlob {
    /// A content that another row names already.
    pub fn known(hash: BlobHash) -> NewBlob {
        NewBlob { hash, bytes: 0, packed: None, repairs: false }
    }

    /// Its name.
    pub fn hash(&self) -> BlobHash {
        self.hash
    }

    /// Bytes of the content.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What it adds, unless it is there meanwhile.
    pub(super) fn stored(&self) -> u64 {
        self.packed.as_ref().map_or(0, |packed| length(packed))
    }
}

impl Store {
    /// Makes a content ready to be kept. One of some size that is there already is not packed again, unless what is
    /// there may be damaged.
    pub async fn new_blob(&self, content: &[u8], repairs: bool) -> Result<NewBlob, StoreError> {
        let hash = blob_hash(content);
        let is_there = !repairs && content.len() >= LOOKED_UP_BYTES_MIN && self.has_blob(&hash).await?;
        let packed = (!is_there).then(|| block::compress(content));
        Ok(NewBlob { hash, bytes: length(content), packed, repairs })
    }

    async fn has_blob(&self, hash: &BlobHash) -> Result<bool, StoreError> {
        let row = query("SELECT 1 FROM blobs WHERE hash = $1")
            .bind(hash.as_slice())
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.is_some())
    }

    /// A content of at most `bytes_max` bytes, exactly as it was kept.
    pub async fn blob(&self, hash: &BlobHash, bytes_max: usize) -> Result<Vec<u8>, StoreError> {
        let row = query(
            "SELECT blobs.hash, bytes, content FROM blobs JOIN blob_contents ON blob_contents.hash = blobs.hash
             WHERE blobs.hash = $1",
        )
        .bind(hash.as_slice())
        .fetch_optional(&self.readers)
        .await?;
        unpacked(&row.ok_or(StoreError::Corrupt { column: "blobs.hash" })?, bytes_max)
    }
}

/// The content in a row with its `hash`, `bytes` and `content`. Disks err and people edit: what does not hash to its
/// name is not what was kept.
pub(super) fn unpacked(row: &Row, bytes_max: usize) -> Result<Vec<u8>, StoreError> {
    let corrupt = |column| StoreError::Corrupt { column };
    let bytes = usize::try_from(loaded(row.try_get("bytes")?, "blobs.bytes")?).unwrap_or(usize::MAX);
    if bytes > bytes_max {
        return Err(corrupt("blobs.bytes"));
    }
    let content =
        block::decompress(row.try_get("content")?, bytes).map_err(|_| corrupt("blob_contents.content"))?;
    if blob_hash(&content).as_slice() != row.try_get::<&[u8]>("hash")? {
        return Err(corrupt("blob_contents.content"));
    }
    Ok(content)
}

/// Names a content once more, adding it if need be; returns how many bytes that takes. One that was seen to be there
/// and is gone is a conflict: pack it.
pub(super) async fn hold(unit: &mut Unit, blob: &NewBlob) -> Result<u64, StoreError> {
    let held = query("UPDATE blobs SET users = users + 1 WHERE hash = $1")
        .bind(blob.hash.as_slice())
        .execute(unit.connection())
        .await?;
    let is_there = held.rows_affected() == 1;
    if is_there && !blob.repairs {
        return Ok(0);
    }
    let packed = blob.packed.as_deref().ok_or(StoreError::Conflict)?;
    query(
        "INSERT INTO blobs (hash, users, bytes, stored) VALUES ($1, 1, $2, $3)
         ON CONFLICT (hash) DO UPDATE SET bytes = $2, stored = $3",
    )
    .bind(blob.hash.as_slice())
    .bind(stored(blob.bytes))
    .bind(stored(length(packed)))
    .execute(unit.connection())
    .await?;
    query(
        "INSERT INTO blob_contents (hash, content) VALUES ($1, $2) ON CONFLICT (hash) DO UPDATE SET content = $2",
    )
    .bind(blob.hash.as_slice())
    .bind(packed)
    .execute(unit.connection())
    .await?;
    Ok(if is_there { 0 } else { length(packed) })
}

/// Names a content once less.
pub(super) async fn release(unit: &mut Unit, hash: &[u8]) -> Result<(), StoreError> {
    query("UPDATE blobs SET users = users - 1 WHERE hash = $1").bind(hash).execute(unit.connection()).await?;
    Ok(())
}

/// Removes the contents that no row names any more; returns how many bytes that frees.
pub(super) async fn sweep(unit: &mut Unit) -> Result<u64, StoreError> {
    let row = query("SELECT CAST(COALESCE(SUM(stored), 0) AS BIGINT) AS freed FROM blobs WHERE users = 0")
        .fetch_one(unit.connection())
        .await?;
    for statement in [
        "DELETE FROM blob_contents WHERE hash IN (SELECT hash FROM blobs WHERE users = 0)",
        "DELETE FROM blobs WHERE users = 0",
    ] {
        query(statement).execute(unit.connection()).await?;
    }
    loaded(row.try_get("freed")?, "blobs.stored")
}

/// The name of a content.
pub fn blob_hash(content: &[u8]) -> BlobHash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, content).as_ref());
    hash
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// Below this, packing costs less than looking.
const LOOKED_UP_BYTES_MIN: usize = 16 << 10;
