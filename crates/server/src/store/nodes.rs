//! Devices by their numbers, and the certificates that verify what they sign.

use assay_evidence::time::UnixTime;
use assay_identity::signed_message::NodeId;

use super::device::{DeviceRecord, device};
use super::sql::{Row, query};
use super::{Store, StoreError, Transaction, Unit, loaded, stored};

/// Which kind of certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// The device's SVID.
    Svid,
    /// Of the classic root.
    Classic,
    /// Of its AK, of the root for such.
    Ak,
}

impl Profile {
    /// What stands in an entry's place of one of these; entries' names are hex.
    pub(super) fn entry(self) -> &'static str {
        match self {
            Profile::Svid => "",
            Profile::Classic => "classic",
            Profile::Ak => "ak",
        }
    }

    /// What it is called to people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Profile::Svid => "device",
            Profile::Classic => "classic",
            Profile::Ak => "ak",
        }
    }

    /// The same the other way round, of those that the device's own SVID is not among.
    pub(super) fn of_entry(entry: &str) -> Option<Profile> {
        [Profile::Classic, Profile::Ak].into_iter().find(|profile| profile.entry() == entry)
    }
}

/// Keeps a node's newest certificate.
#[derive(Clone, Debug)]
pub struct KeepCertificate {
    /// Of which kind.
    pub profile: Profile,
    /// Whose.
    pub device_id: String,
    /// Its serial number, hex.
    pub serial: String,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When it ends.
    pub not_after: UnixTime,
    /// DER.
    pub certificate: Vec<u8>,
}

/// A node's newest certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// Its serial number, hex.
    pub serial: String,
    /// When it was issued.
    pub issued_at: UnixTime,
    /// When it ends.
    pub not_after: UnixTime,
    /// DER.
    pub certificate: Vec<u8>,
    /// Whether it was withdrawn; one that is not on record was.
    pub is_withdrawn: bool,
}

impl NodeCertificate {
    /// Whether it has neither ended nor been withdrawn.
    pub(crate) fn stands_at(&self, now: UnixTime) -> bool {
        !self.is_withdrawn && self.not_after > now
    }
}

/// A device by its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// The device.
    pub device: DeviceRecord,
    /// Its newest certificate, if one is kept.
    pub certificate: Option<NodeCertificate>,
    /// When its newest classic certificate was issued and ends, if it has one.
    pub classic: Option<(UnixTime, UnixTime)>,
}

/// The fleet in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeCounts {
    /// Devices with a number.
    pub nodes: u64,
    /// Of how many a certificate is kept.
    pub certificates: u64,
    /// Trusted and fresh, with a certificate that stands.
    pub verified: u64,
}

/// A kind of certificate of one device, and whether it was withdrawn.
macro_rules! kept {
    ($table:literal) => {
        concat!(
            "SELECT kept.serial AS kept_serial, kept.issued_at AS kept_issued_at, kept.not_after AS kept_not_after,
                 kept.certificate AS kept_certificate, svids.withdrawn_at AS kept_withdrawn_at FROM ",
            $table,
            " AS kept LEFT JOIN svids ON svids.serial = kept.serial WHERE kept.device_id = $1"
        )
    };
}

/// Each device with the certificate that is kept of it, in one question.
macro_rules! nodes {
    () => {
        "SELECT devices.*, kept.serial AS kept_serial, kept.issued_at AS kept_issued_at,
             kept.not_after AS kept_not_after, kept.certificate AS kept_certificate,
             svids.withdrawn_at AS kept_withdrawn_at, classic.not_after AS classic_not_after,
             classic.issued_at AS classic_issued_at
         FROM devices LEFT JOIN node_certificates AS kept ON kept.device_id = devices.id
             LEFT JOIN svids ON svids.serial = kept.serial
             LEFT JOIN classic_certificates AS classic ON classic.device_id = devices.id "
    };
}
impl Transaction for KeepCertificate {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        query(match self.profile {
            Profile::Svid => {
                "INSERT INTO node_certificates (device_id, serial, not_after, certificate, issued_at)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (device_id) DO UPDATE SET serial = $2, not_after = $3, certificate = $4, issued_at = $5"
            }
            Profile::Ak => {
                "INSERT INTO ak_certificates (device_id, serial, not_after, certificate, issued_at)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (device_id) DO UPDATE SET serial = $2, not_after = $3, certificate = $4, issued_at = $5"
            }
            Profile::Classic => {
                "INSERT INTO classic_certificates (device_id, serial, not_after, certificate, issued_at)
                 VALUES ($1, $2, $3, $4, $5)
                 ON CONFLICT (device_id) DO UPDATE SET serial = $2, not_after = $3, certificate = $4, issued_at = $5"
            }
        })
        .bind(&self.device_id)
        .bind(&self.serial)
        .bind(stored(self.not_after.0))
        .bind(&self.certificate)
        .bind(stored(self.issued_at.0))
        .execute(unit.connection())
        .await?;
        Ok(())
    }
}

impl Store {
    /// The device with this number.
    pub async fn device_of_node(&self, node: NodeId) -> Result<Option<DeviceRecord>, StoreError> {
        let row = query("SELECT * FROM devices WHERE node = $1")
            .bind(i64::from(node.get()))
            .fetch_optional(&self.readers)
            .await?;
        let record = row.as_ref().map(device).transpose()?;
        Ok(record.map(|record| self.owed.over(record)))
    }

    /// Devices with this number and above, in their order, each with the newest certificate that is kept of it.
    pub async fn nodes_from(&self, first: NodeId, limit: usize) -> Result<Vec<Node>, StoreError> {
        let rows = query(concat!(nodes!(), "WHERE devices.node >= $1 ORDER BY devices.node LIMIT $2"))
            .bind(i64::from(first.get()))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(|row| self.node(row)).collect()
    }

    /// So many nodes, those first that stand worst.
    pub async fn worst_nodes(&self, limit: usize) -> Result<Vec<Node>, StoreError> {
        let worst = concat!(
            nodes!(),
            "WHERE devices.node IS NOT NULL
             ORDER BY CASE devices.status WHEN 'suspect' THEN 0 WHEN 'expired' THEN 1 WHEN 'trusted' THEN 3 ELSE 2 END,
                 devices.node LIMIT $1"
        );
        let rows =
            query(worst).bind(i64::try_from(limit).unwrap_or(i64::MAX)).fetch_all(&self.readers).await?;
        rows.iter().map(|row| self.node(row)).collect()
    }

    /// How many nodes there are, of how many a certificate is kept, and how many are verified.
    pub async fn node_counts(&self, now: UnixTime) -> Result<NodeCounts, StoreError> {
        let row = query(
            "SELECT COUNT(devices.node) AS nodes, COUNT(kept.serial) AS certificates,
                 COUNT(CASE WHEN devices.status = 'trusted' AND devices.valid_until > $1 AND kept.not_after > $1
                     AND svids.withdrawn_at = 0 THEN 1 END) AS verified
             FROM devices LEFT JOIN node_certificates AS kept ON kept.device_id = devices.id
                 LEFT JOIN svids ON svids.serial = kept.serial",
        )
        .bind(stored(now.0))
        .fetch_one(&self.readers)
        .await?;
        let count = |column| -> Result<u64, StoreError> { loaded(row.try_get(column)?, "count") };
        Ok(NodeCounts {
            nodes: count("nodes")?,
            certificates: count("certificates")?,
            verified: count("verified")?,
        })
    }

    /// The newest certificate of a kind that is kept of a device.
    pub async fn node_certificate(
        &self,
        device_id: &str,
        profile: Profile,
    ) -> Result<Option<NodeCertificate>, StoreError> {
        let row = query(match profile {
            Profile::Svid => kept!("node_certificates"),
            Profile::Classic => kept!("classic_certificates"),
            Profile::Ak => kept!("ak_certificates"),
        })
        .bind(device_id)
        .fetch_optional(&self.readers)
        .await?;
        Ok(row.as_ref().map(certificate).transpose()?.flatten())
    }

    fn node(&self, row: &Row) -> Result<Node, StoreError> {
        let time = |column| -> Result<Option<UnixTime>, StoreError> {
            let at: Option<i64> = row.try_get(column)?;
            at.map(|at| Ok(UnixTime(loaded(at, column)?))).transpose()
        };
        let classic = time("classic_issued_at")?.zip(time("classic_not_after")?);
        Ok(Node { device: self.owed.over(device(row)?), certificate: certificate(row)?, classic })
    }
}

fn certificate(row: &Row) -> Result<Option<NodeCertificate>, StoreError> {
    let Some(serial) = row.try_get("kept_serial")? else { return Ok(None) };
    let time =
        |column| -> Result<UnixTime, StoreError> { Ok(UnixTime(loaded(row.try_get(column)?, column)?)) };
    let withdrawn_at: Option<i64> = row.try_get("kept_withdrawn_at")?;
    Ok(Some(NodeCertificate {
        serial,
        issued_at: time("kept_issued_at")?,
        not_after: time("kept_not_after")?,
        certificate: row.try_get("kept_certificate")?,
        is_withdrawn: withdrawn_at != Some(0),
    }))
}
