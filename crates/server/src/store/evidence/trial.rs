//! What a policy is tried on: the last evidence of each device, and every result recorded since some time.
//!
//! In the order of devices, in batches; what the boots of a batch have in common is one read each.

use std::collections::HashMap;

use assay_evidence::time::UnixTime;

use super::super::{Store, StoreError, blobs, loaded, stored};
use super::list::PartedList;
use super::{EvidenceRecord, columns, evidence, tables};

/// A piece of evidence to try a policy on.
#[derive(Clone, Debug)]
pub struct TriedEvidence {
    /// It.
    pub record: EvidenceRecord,
    /// What people call the device.
    pub device_name: String,
    /// Its labels, as they are written.
    pub device_labels: String,
    /// The tier of the result it led to, or of the one that stood when it came.
    pub tier: String,
    /// Whether it is the device's last.
    pub is_last: bool,
}

/// What the evidence of a boot has in common. What of it cannot be read is not there.
#[derive(Debug, Default)]
pub struct TriedBoot {
    /// The EK certificate and its intermediates.
    pub endorsement: Option<Vec<u8>>,
    /// The attested IMA list, if there is one.
    pub list: Option<PartedList>,
}

/// The place of a piece of evidence in the order of a trial: its device, and its id.
pub type Place = (String, u64);

impl Store {
    /// How many pieces of evidence there are to try a policy on.
    pub async fn count_to_try(&self, since: UnixTime) -> Result<u64, StoreError> {
        let row = query(concat!("SELECT COUNT(*) AS pieces ", tables!(), "WHERE ", wanted!()))
            .bind(stored(since.0))
            .fetch_one(&self.readers)
            .await?;
        loaded(row.try_get("pieces")?, "count")
    }

    /// The labels of each device of which no evidence is kept.
    pub async fn labels_of_untried(&self) -> Result<Vec<String>, StoreError> {
        let rows = query(
            "SELECT labels FROM devices WHERE status <> 'revoked'
                 AND NOT EXISTS (SELECT 1 FROM evidence WHERE evidence.device_id = devices.id)",
        )
        .fetch_all(&self.readers)
        .await?;
        rows.iter().map(|row| row.try_get("labels")).collect()
    }

    /// The next pieces behind a place, at most `limit`.
    pub async fn to_try(
        &self,
        since: UnixTime,
        after: &Place,
        limit: u32,
    ) -> Result<Vec<TriedEvidence>, StoreError> {
        let rows = query(concat!(
            columns!(),
            ", devices.name AS device_name, devices.labels AS device_labels,
             COALESCE((SELECT tier FROM appraisals WHERE appraisals.leaf = evidence.leaf),
                 (SELECT tier FROM appraisals WHERE appraisals.device_id = evidence.device_id
                  ORDER BY leaf DESC LIMIT 1), 'none') AS tier,
             CASE WHEN ",
            is_last!(),
            " THEN CAST(1 AS BIGINT) ELSE 0 END AS is_last ",
            tables!(),
            "WHERE ",
            wanted!(),
            " AND (evidence.device_id, evidence.id) > ($2, $3) ORDER BY evidence.device_id, evidence.id LIMIT $4"
        ))
        .bind(stored(since.0))
        .bind(&after.0)
        .bind(stored(after.1))
        .bind(i64::from(limit))
        .fetch_all(&self.readers)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(TriedEvidence {
                    record: evidence(row)?,
                    device_name: row.try_get("device_name")?,
                    device_labels: row.try_get("device_labels")?,
                    tier: row.try_get("tier")?,
                    is_last: row.try_get::<i64>("is_last")? != 0,
                })
            })
            .collect()
    }

    /// The boots of the pieces behind one place, up to and with another.
    pub async fn boots_to_try(
        &self,
        since: UnixTime,
        after: &Place,
        to: &Place,
    ) -> Result<HashMap<u64, TriedBoot>, StoreError> {
        let mut boots: HashMap<u64, TriedBoot> = HashMap::new();
        let endorsements = concat!(
            "SELECT boots.id AS boot, blobs.hash, bytes, content FROM boots JOIN blobs ON blobs.hash = boots.endorsement
             JOIN blob_contents ON blob_contents.hash = blobs.hash WHERE boots.id IN (",
            boots_between!(),
            ")"
        );
        let parts = concat!(
            "SELECT boot, from_entry, to_entry, blobs.hash, bytes, content FROM ima_parts
             JOIN blobs ON blobs.hash = ima_parts.blob JOIN blob_contents ON blob_contents.hash = blobs.hash
             JOIN boots ON boots.id = ima_parts.boot WHERE boot IN (",
            boots_between!(),
            ") ORDER BY boot, from_entry"
        );
        let rows = async |statement: &'static str| {
            query(statement)
                .bind(stored(since.0))
                .bind(&after.0)
                .bind(stored(after.1))
                .bind(&to.0)
                .bind(stored(to.1))
                .fetch_all(&self.readers)
                .await
        };
        for row in rows(endorsements).await? {
            let boot = boots.entry(loaded(row.try_get("boot")?, "boots.id")?).or_default();
            boot.endorsement = blobs::unpacked(&row, ENDORSEMENT_BYTES_MAX).ok();
        }
        for row in rows(parts).await? {
            let boot = boots.entry(loaded(row.try_get("boot")?, "ima_parts.boot")?).or_default();
            boot.list.get_or_insert_default().append(&row);
        }
        Ok(boots)
    }
}

/// No later evidence of the device is kept.
macro_rules! is_last {
    () => {
        "NOT EXISTS (SELECT 1 FROM evidence AS newer
             WHERE newer.device_id = evidence.device_id AND newer.id > evidence.id)"
    };
}

/// What a policy is tried on, with $1 for the time.
macro_rules! wanted {
    () => {
        concat!(
            "devices.status <> 'revoked' AND ((evidence.leaf >= 0 AND evidence.at >= $1) OR ",
            is_last!(),
            ")"
        )
    };
}

macro_rules! boots_between {
    () => {
        concat!(
            "SELECT evidence.boot ",
            tables!(),
            "WHERE ",
            wanted!(),
            " AND (evidence.device_id, evidence.id) > ($2, $3) AND (evidence.device_id, evidence.id) <= ($4, $5)"
        )
    };
}
use crate::store::sql::query;
use {boots_between, is_last, wanted};

/// A certificate and its intermediates have some thousand bytes.
const ENDORSEMENT_BYTES_MAX: usize = 1 << 20;
