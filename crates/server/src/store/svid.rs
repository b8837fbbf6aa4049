//! Certificates the authority signed: recorded before signing.

use assay_evidence::time::UnixTime;
use assay_identity::crl::CRL_SERIALS_MAX;
use assay_identity::{Selector, SpiffeId};
use assay_trust::{Basis, TrustState};

use super::budget::Spending;
use super::nodes::Profile;
use super::withdraw::superseded;
use super::{Store, StoreError, Transaction, Unit, entries, gateways, loaded, stored};
use crate::audit::{Kind, Line};
use crate::store::sql::{Row, query};

/// A certificate as recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SvidRecord {
    /// Its serial number, hex.
    pub serial: String,
    /// Whom it names.
    pub spiffe_id: String,
    /// What carries it.
    pub carrier: Carrier,
    /// SHA-256 of the key it certifies, hex.
    pub spki_sha256: String,
    /// When it was recorded.
    pub issued_at: UnixTime,
    /// When it ends by itself.
    pub not_after: UnixTime,
    /// When it was withdrawn, if it was.
    pub withdrawn_at: Option<UnixTime>,
}

/// On whose account a certificate exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// A device's trust state, and for a workload the entry that entitles it.
    Device {
        /// The device.
        id: String,
        /// The version the decision was made on.
        state_version: u64,
        /// The entry, if it is a workload's.
        entry_id: Option<String>,
        /// The revision of the entry that the decision was made on; not kept, so 0 where this is read back.
        entry_revision: u64,
        /// What the state stands on; not kept here, so a quote where this is read back. It is on record.
        basis: Basis,
    },
    /// A device's trust state, for a certificate of its own beside its SVID.
    Node {
        /// Which.
        profile: Profile,
        /// The device.
        id: String,
        /// The version the decision was made on.
        state_version: u64,
    },
    /// An operator's word: gateways, and what the server signs for itself.
    Operator,
    /// The certificate that a gateway renews.
    Renewal {
        /// Its serial number, hex.
        serial: String,
    },
}

/// Records a certificate that is about to be signed; refuses if its trust state has moved on.
#[derive(Clone, Debug)]
pub struct RecordSvid {
    /// The certificate.
    pub svid: SvidRecord,
    /// Who asked: the device, or `operator`.
    pub actor: String,
}

impl Transaction for RecordSvid {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let RecordSvid { svid, actor } = self;
        let (device_id, state_version, entry_id) = match &svid.carrier {
            Carrier::Operator => ("", 0, ""),
            Carrier::Renewal { serial } => {
                gateways::renewable(unit, &svid.spiffe_id, serial, svid.issued_at).await?;
                ("", 0, "")
            }
            Carrier::Node { profile, id, state_version } => {
                carried(unit, id, *state_version, None).await?;
                bounded(unit, id, true, svid.issued_at).await?;
                listable(unit, false, svid.issued_at).await?;
                unit.spend(id, Spending::Certificates, svid.issued_at)?;
                (id.as_str(), *state_version, profile.entry())
            }
            Carrier::Device { id, state_version, entry_id, entry_revision, basis: _ } => {
                let entry = entry_id.as_deref().map(|entry| (entry, *entry_revision));
                carried(unit, id, *state_version, entry).await?;
                bounded(unit, id, entry_id.is_some(), svid.issued_at).await?;
                listable(unit, entry_id.is_some(), svid.issued_at).await?;
                unit.spend(id, Spending::Certificates, svid.issued_at)?;
                (id.as_str(), *state_version, entry_id.as_deref().unwrap_or(""))
            }
        };
        let mut detail = serde_json::json!({
            "serial": svid.serial, "key": svid.spki_sha256, "entry": entry_id,
            "state_version": state_version, "not_after": svid.not_after,
        });
        if let Carrier::Device { basis, .. } = &svid.carrier {
            told(&mut detail, *basis);
        }
        let leaf = unit
            .audit(Line {
                kind: Kind::SvidIssued,
                at: svid.issued_at,
                actor,
                subject: svid.spiffe_id.clone(),
                detail: detail.to_string(),
            })
            .await?;
        query(
            "INSERT INTO svids (serial, spiffe_id, device_id, entry_id, spki_sha256, state_version, issued_at,
                 not_after, withdrawn_at, leaf)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)",
        )
        .bind(&svid.serial)
        .bind(&svid.spiffe_id)
        .bind(device_id)
        .bind(entry_id)
        .bind(&svid.spki_sha256)
        .bind(stored(state_version))
        .bind(stored(svid.issued_at.0))
        .bind(stored(svid.not_after.0))
        .bind(stored(leaf.index))
        .execute(unit.connection())
        .await?;
        match &svid.carrier {
            Carrier::Operator | Carrier::Renewal { .. } => Ok(()),
            // Of each device and entry the last one stands beside the new one, so that peers have time.
            Carrier::Device { .. } | Carrier::Node { .. } => {
                superseded(unit, device_id, entry_id, svid.issued_at).await.map(drop)
            }
        }
    }
}

impl Store {
    /// A device's certificates that have not ended, newest first, withdrawn ones too.
    pub async fn svids_of_device(
        &self,
        device_id: &str,
        now: UnixTime,
        limit: u32,
    ) -> Result<Vec<SvidRecord>, StoreError> {
        let rows =
            query("SELECT * FROM svids WHERE device_id = $1 AND not_after > $2 ORDER BY leaf DESC LIMIT $3")
                .bind(device_id)
                .bind(stored(now.0))
                .bind(i64::from(limit))
                .fetch_all(&self.readers)
                .await?;
        rows.iter().map(svid).collect()
    }

    /// The device that carries, or last carried, a certificate with this SPIFFE ID which has not ended.
    pub async fn carrier_of(&self, spiffe_id: &str, now: UnixTime) -> Result<Option<String>, StoreError> {
        let row = query(
            "SELECT device_id FROM svids WHERE spiffe_id = $1 AND not_after > $2 AND device_id <> ''
             ORDER BY withdrawn_at = 0 DESC, leaf DESC LIMIT 1",
        )
        .bind(spiffe_id)
        .bind(stored(now.0))
        .fetch_optional(&self.readers)
        .await?;
        row.map(|row| row.try_get("device_id")).transpose()
    }

    /// Every certificate a revocation list made now has to name, and the list's current number.
    pub async fn withdrawn_svids(&self, now: UnixTime) -> Result<(Vec<SvidRecord>, u64), StoreError> {
        let mut reading = self.readers.begin().await?;
        let row = query("SELECT number FROM revocation_list WHERE id = 1").fetch_one(&mut reading).await?;
        let rows = query("SELECT * FROM svids WHERE withdrawn_at > 0 AND not_after > $1")
            .bind(stored(now.0))
            .fetch_all(&mut reading)
            .await?;
        let number = loaded(row.try_get("number")?, "revocation_list.number")?;
        Ok((rows.iter().map(svid).collect::<Result<_, _>>()?, number))
    }
}

/// Refuses unless the device's state and the entry are still those that the grant was decided on.
pub(super) async fn carried(
    unit: &mut Unit,
    id: &str,
    version: u64,
    entry: Option<(&str, u64)>,
) -> Result<(), StoreError> {
    let device = query(
        "SELECT trust FROM devices WHERE id = $1 AND state_version = $2 AND status = 'trusted'
             UNION ALL
             SELECT trust FROM spire_agents WHERE id = $1 AND state_version = $2 AND status = 'trusted'",
    )
    .bind(id)
    .bind(stored(version))
    .fetch_optional(unit.connection())
    .await?
    .ok_or(StoreError::Conflict)?;
    let Some((entry_id, revision)) = entry else { return Ok(()) };
    let entry = query("SELECT selectors FROM entries WHERE id = $1 AND revision = $2")
        .bind(entry_id)
        .bind(stored(revision))
        .fetch_optional(unit.connection())
        .await?
        .ok_or(StoreError::Conflict)?;
    let selectors = entries::selectors(&entry)?;
    if selectors.iter().any(Selector::is_condition) && !fulfils(id, device.try_get("trust")?, &selectors)? {
        return Err(StoreError::Conflict);
    }
    Ok(())
}

/// Puts it on record where a grant stands on less than a quote.
pub(super) fn told(detail: &mut serde_json::Value, basis: Basis) {
    if let Some(detail) = detail.as_object_mut().filter(|_| !basis.is_quote()) {
        detail.insert("basis".to_owned(), basis.name().into());
    }
}

/// Whether what an entry asks of a device holds by its state as stored.
fn fulfils(id: &str, trust: &str, selectors: &[Selector]) -> Result<bool, StoreError> {
    let corrupt = |column| StoreError::Corrupt { column };
    let id = SpiffeId::parse(id).map_err(|_| corrupt("devices.id"))?;
    let record = serde_json::from_str(trust).map_err(|_| corrupt("devices.trust"))?;
    let state = TrustState::from_record(id, record).map_err(|_| corrupt("devices.trust"))?;
    Ok(state.unmet(selectors).is_none())
}

/// Refuses more certificates of one device than may not have ended, withdrawn or not: each has a place on the revocation
/// list for as long as it lasts, and what one device is given must not fill the list for all.
async fn bounded(unit: &mut Unit, id: &str, is_workload: bool, at: UnixTime) -> Result<(), StoreError> {
    let row = query(
        "SELECT COUNT(*) AS standing FROM svids WHERE device_id = $1 AND not_after > $2 AND (entry_id <> '') = $3",
    )
    .bind(id)
    .bind(stored(at.0))
    .bind(is_workload)
    .fetch_one(unit.connection())
    .await?;
    let limit = if is_workload { WORKLOAD_SVIDS_PER_DEVICE_MAX } else { DEVICE_SVIDS_MAX };
    match loaded(row.try_get("standing")?, "count")? >= limit {
        true => Err(StoreError::Full { noun: "certificates of this device that have not ended", limit }),
        false => Ok(()),
    }
}

/// How many certificates there are that have not ended, of everybody: counted now and then, and in between only upwards.
#[derive(Debug, Default)]
pub(super) struct Standing {
    count: u64,
    count_again_at: Option<UnixTime>,
}

/// Refuses to issue what a revocation list could not name if everything fell at once: a list that nobody can read withdraws
/// nothing. The last part is for devices alone, so that those with many workloads do not keep others out.
async fn listable(unit: &mut Unit, is_workload: bool, at: UnixTime) -> Result<(), StoreError> {
    if unit.standing().count_again_at.is_none_or(|again_at| again_at <= at) {
        let row = query("SELECT COUNT(*) AS standing FROM svids WHERE not_after > $1")
            .bind(stored(at.0))
            .fetch_one(unit.connection())
            .await?;
        let count = loaded(row.try_get("standing")?, "count")?;
        if count > WORKLOAD_SVIDS_MAX {
            tracing::error!(
                count,
                at_most = SVIDS_MAX,
                "certificates are refused, as a revocation list could not name more: shorten their life, or end what asks \
                 for many"
            );
        }
        *unit.standing() = Standing { count, count_again_at: Some(at.plus(COUNT_EVERY_SECONDS)) };
    }
    let limit = if is_workload { WORKLOAD_SVIDS_MAX } else { SVIDS_MAX };
    let standing = unit.standing();
    if standing.count >= limit {
        let noun = "certificates of all devices that have not ended, as many as a revocation list can name,";
        return Err(StoreError::Full { noun, limit });
    }
    standing.count = standing.count.saturating_add(1);
    Ok(())
}

/// A sixteenth is left for what ended a moment ago and stays listed for clocks that are behind.
const SVIDS_MAX: u64 = CRL_SERIALS_MAX as u64 / 16 * 15;
const WORKLOAD_SVIDS_MAX: u64 = CRL_SERIALS_MAX as u64 / 4 * 3;
/// Counting takes some milliseconds; a second's certificates are few beside what is left.
const COUNT_EVERY_SECONDS: u64 = 10;

/// Of which a list names hundreds of devices' that ask for all they may at once.
const WORKLOAD_SVIDS_PER_DEVICE_MAX: u64 = 512;
/// A device's own: renewed at half of their life, and when its state rises.
const DEVICE_SVIDS_MAX: u64 = 128;

pub(super) fn svid(row: &Row) -> Result<SvidRecord, StoreError> {
    let time =
        |column| -> Result<UnixTime, StoreError> { Ok(UnixTime(loaded(row.try_get(column)?, column)?)) };
    let device_id: String = row.try_get("device_id")?;
    let entry_id: String = row.try_get("entry_id")?;
    let version =
        || -> Result<u64, StoreError> { loaded(row.try_get("state_version")?, "svids.state_version") };
    let carrier = match device_id.is_empty() {
        true => Carrier::Operator,
        false => match Profile::of_entry(&entry_id) {
            Some(profile) => Carrier::Node { profile, id: device_id, state_version: version()? },
            None => Carrier::Device {
                id: device_id,
                state_version: version()?,
                entry_id: Some(entry_id).filter(|id| !id.is_empty()),
                entry_revision: 0,
                basis: Basis::default(),
            },
        },
    };
    Ok(SvidRecord {
        serial: row.try_get("serial")?,
        spiffe_id: row.try_get("spiffe_id")?,
        carrier,
        spki_sha256: row.try_get("spki_sha256")?,
        issued_at: time("issued_at")?,
        not_after: time("not_after")?,
        withdrawn_at: Some(time("withdrawn_at")?).filter(|at| at.0 > 0),
    })
}
