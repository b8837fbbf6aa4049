//! Evidence as it was judged, so that it can be judged again: written with the result it led to, read back as
//! records.
//!
//! Of each boot the IMA list is kept in parts that only ever grow ([`NewPart`]); a piece of evidence says how much of
//! it was its own. Evidence is the first thing to go when room is short, and nothing else fails for want of it.

mod list;
mod room;
mod trial;

#[cfg(test)]
mod tests;

use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::BootCounters;

use super::blobs::{self, BlobHash, NewBlob};
use super::device::{RenewTrust, update_trust};
use super::{Store, StoreError, Transaction, Unit, loaded, stored, usage};
pub use list::PartedList;
use room::{Usage, make_room, remove_failed, row_bytes};
pub(super) use room::{is_over, remove_older, remove_oldest};
pub use trial::{Place, TriedBoot, TriedEvidence};

/// A piece of evidence to be kept.
#[derive(Clone, Debug)]
pub struct NewEvidence {
    /// What it belongs to.
    pub boot: ToldBoot,
    /// What it adds to the boot's list.
    pub part: Option<NewPart>,
    /// The boot log that was judged or known.
    pub boot_log: Option<NewBlob>,
    /// What of its IMA list is not in the boot's.
    pub ima_rest: Option<NewBlob>,
    /// The rest.
    pub judged: EvidenceColumns,
    /// How many bytes all evidence may take.
    pub bytes_max: u64,
    /// How many of them the device's may take.
    pub device_bytes_max: u64,
}

/// The boot that evidence is of.
#[derive(Clone, Debug)]
pub enum ToldBoot {
    /// One that nothing is kept of.
    New(NewBoot),
    /// One that is kept, with so many entries.
    Known {
        /// Its first evidence.
        id: u64,
        /// Attested entries when this was decided.
        entries: u64,
    },
}

/// What a device tells of a boot, once.
#[derive(Clone, Debug)]
pub struct NewBoot {
    /// TPM2B_PUBLIC of the AK.
    pub ak_public: Vec<u8>,
    /// What the device showed of its EK and identity.
    pub endorsement: NewBlob,
    /// Who was trusted to vouch for that, and what they had revoked.
    pub anchors: NewBlob,
    /// Whether its list is in the ASCII form.
    pub ima_ascii: bool,
}

/// Attested entries, from where the boot's list ends.
#[derive(Clone, Debug)]
pub struct NewPart {
    /// Where it ends then.
    pub to_entry: u64,
    /// The entries.
    pub blob: NewBlob,
}

/// What evidence was judged with, beside its logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceColumns {
    /// When.
    pub at: UnixTime,
    /// The policy; 0: there was none.
    pub policy_revision: u64,
    /// The counters expected then.
    pub last_counters: Option<BootCounters>,
    /// The nonce.
    pub nonce: Vec<u8>,
    /// Message, signature and PCR values, as received (protobuf).
    pub quote: Vec<u8>,
    /// Whether the boot log was judged with the rest, and not known.
    pub boot_log_judged: bool,
    /// IMA entries that were known to be good; `None`: nothing was known of the boot.
    pub known_entries: Option<u64>,
    /// The first entry of its own list.
    pub ima_from: u64,
    /// From there to here, its list is the boot's.
    pub ima_shared: u64,
    /// Whether the rest of its list is in the ASCII form.
    pub ima_ascii: bool,
    /// Entries since boot that the quote attests; `None`: it did not verify.
    pub attested: Option<u64>,
    /// The evidence that says what was known; `None`: this one does.
    pub basis: Option<u64>,
}

/// A piece of evidence as kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EvidenceRecord {
    /// Counts all evidence that was ever kept.
    pub id: u64,
    /// Whose.
    pub device_id: String,
    /// The boot it is of.
    pub boot: u64,
    /// The result recorded with it.
    pub leaf: Option<u64>,
    /// The boot log that was judged or known.
    pub boot_log: Option<BlobHash>,
    /// What of its IMA list is not in the boot's.
    pub ima_rest: Option<BlobHash>,
    /// The rest.
    pub judged: EvidenceColumns,
    /// What was told of the boot.
    pub told: BootRecord,
}

/// What a device told of a boot, as kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootRecord {
    /// TPM2B_PUBLIC of the AK.
    pub ak_public: Vec<u8>,
    /// The EK certificate and its intermediates.
    pub endorsement: BlobHash,
    /// Who was trusted to vouch for TPMs.
    pub anchors: BlobHash,
    /// Whether its list is in the ASCII form.
    pub ima_ascii: bool,
    /// Attested entries so far.
    pub ima_entries: u64,
    /// Bytes of these.
    pub ima_bytes: u64,
}

/// Where evidence was put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The evidence.
    pub id: u64,
    /// Its boot.
    pub boot: u64,
}

/// Extends what stands, with new evidence that led to the same result.
#[derive(Clone, Debug)]
pub struct KeepEvidence {
    /// The device's new times.
    pub renew: RenewTrust,
    /// The evidence.
    pub evidence: NewEvidence,
}

impl Transaction for KeepEvidence {
    type Output = Option<Kept>;

    async fn apply(self, unit: &mut Unit) -> Result<Option<Kept>, StoreError> {
        let device_id = self.renew.device_id.clone();
        let RenewTrust { trust, .. } = &self.renew;
        update_trust(unit, &device_id, trust.version, trust).await?;
        insert(unit, &device_id, None, self.evidence).await
    }
}

impl Store {
    /// The evidence that a recorded result was made of, if it is kept.
    pub async fn evidence_of_result(&self, leaf: u64) -> Result<Option<EvidenceRecord>, StoreError> {
        let row =
            query(concat!(columns!(), " ", tables!(), "WHERE evidence.leaf = $1 AND evidence.leaf >= 0"))
                .bind(stored(leaf))
                .fetch_optional(&self.readers)
                .await?;
        row.as_ref().map(evidence).transpose()
    }

    /// A piece of evidence, if it is kept.
    pub async fn evidence(&self, id: u64) -> Result<Option<EvidenceRecord>, StoreError> {
        let row = query(concat!(columns!(), " ", tables!(), "WHERE evidence.id = $1"))
            .bind(stored(id))
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(evidence).transpose()
    }

    /// The last evidence of a device that verified, if it is kept.
    pub async fn last_verified_evidence(
        &self,
        device_id: &str,
    ) -> Result<Option<EvidenceRecord>, StoreError> {
        let row = query(concat!(
            columns!(),
            " ",
            tables!(),
            "WHERE evidence.device_id = $1 AND evidence.attested >= 0 ORDER BY evidence.id DESC LIMIT 1"
        ))
        .bind(device_id)
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(evidence).transpose()
    }

    /// The last evidence of a device while its result was affirming, if it is kept.
    pub async fn last_good_evidence(&self, device_id: &str) -> Result<Option<EvidenceRecord>, StoreError> {
        // From an affirming result on, until another is recorded, all evidence leads to that result.
        let row = query(concat!(
            columns!(),
            " ",
            tables!(),
            "JOIN (SELECT MAX(result.id) AS id FROM evidence AS result
                   JOIN appraisals ON appraisals.leaf = result.leaf
                   WHERE result.device_id = $1 AND result.leaf >= 0 AND appraisals.tier = 'affirming') AS good
                 ON evidence.id >= good.id
             WHERE evidence.device_id = $1 AND evidence.attested >= 0
                 AND NOT EXISTS (SELECT 1 FROM evidence AS result WHERE result.device_id = $1
                     AND result.leaf >= 0 AND result.id > good.id AND result.id <= evidence.id)
             ORDER BY evidence.id DESC LIMIT 1"
        ))
        .bind(device_id)
        .fetch_optional(&self.readers)
        .await?;
        row.as_ref().map(evidence).transpose()
    }

    /// The first `entries` entries of a boot's IMA list.
    pub async fn ima_list(&self, boot: u64, entries: u64) -> Result<Vec<u8>, StoreError> {
        let rows = query(
            "SELECT from_entry, to_entry, blobs.hash, bytes, content FROM ima_parts
             JOIN blobs ON blobs.hash = ima_parts.blob JOIN blob_contents ON blob_contents.hash = blobs.hash
             WHERE boot = $1 AND to_entry <= $2 ORDER BY from_entry",
        )
        .bind(stored(boot))
        .bind(stored(entries))
        .fetch_all(&self.readers)
        .await?;
        let mut list = PartedList::default();
        rows.iter().for_each(|row| list.append(row));
        let end = list.end(entries)?;
        let mut bytes = list.take_bytes();
        bytes.truncate(end);
        Ok(bytes)
    }
}

/// Keeps a piece of evidence with the result `leaf`. `None`: there is no room for it, or what it builds on is gone or
/// has grown meanwhile; nothing was changed then.
pub(super) async fn insert(
    unit: &mut Unit,
    device_id: &str,
    leaf: Option<u64>,
    new: NewEvidence,
) -> Result<Option<Kept>, StoreError> {
    let Some(usage) = make_room(unit, device_id, &new).await? else { return Ok(None) };
    if !builds_on_what_is(unit, device_id, &new).await? {
        return Ok(None);
    }
    let id = usage.next_id;
    let mut added = row_bytes(&new.judged);
    let boot = match &new.boot {
        ToldBoot::Known { id, .. } => *id,
        ToldBoot::New(boot) => {
            added = added.saturating_add(insert_boot(unit, id, device_id, boot).await?);
            id
        }
    };
    for blob in [&new.boot_log, &new.ima_rest].into_iter().flatten() {
        added = added.saturating_add(blobs::hold(unit, blob).await?);
    }
    if let Some(part) = &new.part {
        added = added.saturating_add(blobs::hold(unit, &part.blob).await?);
        append_part(unit, boot, new.boot.entries(), part).await?;
    }
    insert_row(unit, Kept { id, boot }, device_id, leaf, &new, added).await?;
    let more =
        usage::Change { evidence_bytes: usage::signed(added), evidence_rows: 1, ..usage::Change::default() };
    usage::change(unit, device_id, more).await?;
    Usage { next_id: id.saturating_add(1), bytes: usage.bytes.saturating_add(added) }.write(unit).await?;
    if new.judged.attested.is_none() {
        remove_failed(unit, device_id).await?;
    }
    Ok(Some(Kept { id, boot }))
}

impl ToldBoot {
    fn entries(&self) -> u64 {
        match self {
            ToldBoot::New(_) => 0,
            ToldBoot::Known { entries, .. } => *entries,
        }
    }
}

/// Whether the boot has grown no further, and the basis is there.
async fn builds_on_what_is(unit: &mut Unit, device_id: &str, new: &NewEvidence) -> Result<bool, StoreError> {
    if let ToldBoot::Known { id, entries } = &new.boot {
        let known = query("SELECT 1 FROM boots WHERE id = $1 AND device_id = $2 AND ima_entries = $3")
            .bind(stored(*id))
            .bind(device_id)
            .bind(stored(*entries))
            .fetch_optional(unit.connection())
            .await?;
        if known.is_none() {
            return Ok(false);
        }
    }
    let Some(basis) = new.judged.basis else { return Ok(true) };
    let basis = query("SELECT 1 FROM evidence WHERE id = $1 AND device_id = $2")
        .bind(stored(basis))
        .bind(device_id)
        .fetch_optional(unit.connection())
        .await?;
    Ok(basis.is_some())
}

async fn insert_boot(unit: &mut Unit, id: u64, device_id: &str, boot: &NewBoot) -> Result<u64, StoreError> {
    let added = blobs::hold(unit, &boot.endorsement).await?;
    let added = added.saturating_add(blobs::hold(unit, &boot.anchors).await?);
    query(
        "INSERT INTO boots (id, device_id, ak_public, endorsement, anchors, ima_ascii, ima_entries, ima_bytes)
         VALUES ($1, $2, $3, $4, $5, $6, 0, 0)",
    )
    .bind(stored(id))
    .bind(device_id)
    .bind(&boot.ak_public)
    .bind(boot.endorsement.hash().as_slice())
    .bind(boot.anchors.hash().as_slice())
    .bind(i64::from(boot.ima_ascii))
    .execute(unit.connection())
    .await?;
    Ok(added)
}

async fn append_part(unit: &mut Unit, boot: u64, from_entry: u64, part: &NewPart) -> Result<(), StoreError> {
    query("INSERT INTO ima_parts (boot, from_entry, to_entry, blob) VALUES ($1, $2, $3, $4)")
        .bind(stored(boot))
        .bind(stored(from_entry))
        .bind(stored(part.to_entry))
        .bind(part.blob.hash().as_slice())
        .execute(unit.connection())
        .await?;
    query("UPDATE boots SET ima_entries = $2, ima_bytes = ima_bytes + $3 WHERE id = $1")
        .bind(stored(boot))
        .bind(stored(part.to_entry))
        .bind(stored(part.blob.bytes()))
        .execute(unit.connection())
        .await?;
    Ok(())
}

async fn insert_row(
    unit: &mut Unit,
    kept: Kept,
    device_id: &str,
    leaf: Option<u64>,
    new: &NewEvidence,
    bytes: u64,
) -> Result<(), StoreError> {
    let judged = &new.judged;
    let hash = |blob: &Option<NewBlob>| blob.as_ref().map(|blob| blob.hash().to_vec()).unwrap_or_default();
    query(
        "INSERT INTO evidence (id, device_id, boot, leaf, at, policy_revision, last_reset_count, last_restart_count, nonce, quote,
             boot_log, boot_log_judged, known_entries, ima_from, ima_shared, ima_rest, ima_ascii, attested, basis, bytes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
    )
    .bind(stored(kept.id))
    .bind(device_id)
    .bind(stored(kept.boot))
    .bind(leaf.map_or(-1, stored))
    .bind(stored(judged.at.0))
    .bind(stored(judged.policy_revision))
    .bind(judged.last_counters.map_or(-1, |last| i64::from(last.reset_count)))
    .bind(judged.last_counters.map_or(-1, |last| i64::from(last.restart_count)))
    .bind(&judged.nonce)
    .bind(&judged.quote)
    .bind(hash(&new.boot_log))
    .bind(i64::from(judged.boot_log_judged))
    .bind(judged.known_entries.map_or(-1, stored))
    .bind(stored(judged.ima_from))
    .bind(stored(judged.ima_shared))
    .bind(hash(&new.ima_rest))
    .bind(i64::from(judged.ima_ascii))
    .bind(judged.attested.map_or(-1, stored))
    .bind(judged.basis.map_or(0, stored))
    .bind(stored(bytes))
    .execute(unit.connection())
    .await?;
    Ok(())
}

/// Every column of a piece of evidence and of its boot.
macro_rules! columns {
    () => {
        "SELECT evidence.*, boots.ak_public, boots.endorsement, boots.anchors, boots.ima_ascii AS boot_ascii,
             boots.ima_entries, boots.ima_bytes"
    };
}

/// Where these are.
macro_rules! tables {
    () => {
        "FROM evidence JOIN boots ON boots.id = evidence.boot JOIN devices ON devices.id = evidence.device_id "
    };
}
use crate::store::sql::{Row, query};
use {columns, tables};

fn evidence(row: &Row) -> Result<EvidenceRecord, StoreError> {
    let number = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, column) };
    // What was not there is stored as -1.
    let optional =
        |column| -> Result<Option<u64>, StoreError> { Ok(u64::try_from(row.try_get::<i64>(column)?).ok()) };
    let flag = |column| -> Result<bool, StoreError> { Ok(row.try_get::<i64>(column)? != 0) };
    let blob = |column| -> Result<Option<BlobHash>, StoreError> {
        match row.try_get::<&[u8]>(column)? {
            [] => Ok(None),
            hash => hash.try_into().map(Some).map_err(|_| StoreError::Corrupt { column }),
        }
    };
    let there = |column| blob(column)?.ok_or(StoreError::Corrupt { column });
    Ok(EvidenceRecord {
        id: number("id")?,
        device_id: row.try_get("device_id")?,
        boot: number("boot")?,
        leaf: optional("leaf")?,
        boot_log: blob("boot_log")?,
        ima_rest: blob("ima_rest")?,
        judged: EvidenceColumns {
            at: UnixTime(number("at")?),
            policy_revision: number("policy_revision")?,
            last_counters: counters(optional("last_reset_count")?, optional("last_restart_count")?),
            nonce: row.try_get("nonce")?,
            quote: row.try_get("quote")?,
            boot_log_judged: flag("boot_log_judged")?,
            known_entries: optional("known_entries")?,
            ima_from: number("ima_from")?,
            ima_shared: number("ima_shared")?,
            ima_ascii: flag("ima_ascii")?,
            attested: optional("attested")?,
            basis: optional("basis")?.filter(|basis| *basis > 0),
        },
        told: BootRecord {
            ak_public: row.try_get("ak_public")?,
            endorsement: there("endorsement")?,
            anchors: there("anchors")?,
            ima_ascii: flag("boot_ascii")?,
            ima_entries: number("ima_entries")?,
            ima_bytes: number("ima_bytes")?,
        },
    })
}

fn counters(resets: Option<u64>, restarts: Option<u64>) -> Option<BootCounters> {
    let [reset_count, restart_count] = [resets?, restarts?].map(|count| u32::try_from(count).ok());
    Some(BootCounters { reset_count: reset_count?, restart_count: restart_count? })
}
