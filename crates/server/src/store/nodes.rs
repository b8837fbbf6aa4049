//! Devices by their numbers, and the certificates that verify what they sign.

use assay_evidence::time::UnixTime;
use assay_identity::signed_message::NodeId;

use super::device::{DeviceRecord, device};
use super::sql::{Row, query};
use super::{Store, StoreError, Transaction, Unit, loaded, stored};

/// Keeps a node's newest certificate.
#[derive(Clone, Debug)]
pub struct KeepCertificate {
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
}

impl Transaction for KeepCertificate {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        query(
            "INSERT INTO node_certificates (device_id, serial, not_after, certificate, issued_at)
             VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (device_id) DO UPDATE SET serial = $2, not_after = $3, certificate = $4, issued_at = $5",
        )
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
        row.as_ref().map(device).transpose()
    }

    /// Devices with this number and above, in their order.
    pub async fn devices_from_node(
        &self,
        first: NodeId,
        limit: usize,
    ) -> Result<Vec<DeviceRecord>, StoreError> {
        let rows = query("SELECT * FROM devices WHERE node >= $1 ORDER BY node LIMIT $2")
            .bind(i64::from(first.get()))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.readers)
            .await?;
        rows.iter().map(device).collect()
    }

    /// The newest certificate that is kept of a device.
    pub async fn node_certificate(&self, device_id: &str) -> Result<Option<NodeCertificate>, StoreError> {
        let row = query("SELECT * FROM node_certificates WHERE device_id = $1")
            .bind(device_id)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(certificate).transpose()
    }

    /// Whether a certificate was withdrawn; one that is not on record was.
    pub async fn is_withdrawn(&self, serial: &str) -> Result<bool, StoreError> {
        let row = query("SELECT 1 FROM svids WHERE serial = $1 AND withdrawn_at = 0")
            .bind(serial)
            .fetch_optional(&self.readers)
            .await?;
        Ok(row.is_none())
    }
}

fn certificate(row: &Row) -> Result<NodeCertificate, StoreError> {
    let time =
        |column| -> Result<UnixTime, StoreError> { Ok(UnixTime(loaded(row.try_get(column)?, column)?)) };
    Ok(NodeCertificate {
        serial: row.try_get("serial")?,
        issued_at: time("issued_at")?,
        not_after: time("not_after")?,
        certificate: row.try_get("certificate")?,
    })
}
