//! A boot's IMA list, put together from the parts it is kept in.

use assay_evidence::ima::LIST_BYTES_MAX;

use super::super::{StoreError, blobs, loaded};
use crate::store::sql::Row;

/// A list, as far as it could be read.
#[derive(Debug, Default)]
pub struct PartedList {
    bytes: Vec<u8>,
    /// Where each part ends: entries, bytes.
    ends: Vec<(u64, usize)>,
    error: Option<StoreError>,
}

impl PartedList {
    /// Appends the part in a row, which has to begin where the list ends. Nothing is read past an error.
    pub(super) fn append(&mut self, row: &Row) {
        if self.error.is_none() {
            self.error = self.try_append(row).err();
        }
    }

    fn try_append(&mut self, row: &Row) -> Result<(), StoreError> {
        let entries = self.ends.last().map_or(0, |(entries, _)| *entries);
        if loaded(row.try_get("from_entry")?, "ima_parts.from_entry")? != entries {
            return Err(StoreError::Corrupt { column: "ima_parts.from_entry" });
        }
        let room = LIST_BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend(blobs::unpacked(row, room)?);
        self.ends.push((loaded(row.try_get("to_entry")?, "ima_parts.to_entry")?, self.bytes.len()));
        Ok(())
    }

    /// Bytes of the first `entries` entries, which have to end with a part.
    pub fn end(&self, entries: u64) -> Result<usize, StoreError> {
        match (self.ends.iter().find(|(to_entry, _)| *to_entry == entries), &self.error) {
            (Some((_, end)), _) => Ok(*end),
            (None, Some(error)) => Err(error.clone()),
            (None, None) => Err(StoreError::Corrupt { column: "ima_parts.to_entry" }),
        }
    }

    /// The bytes, which leaves the list without.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}
