//! Devices and what happens to their trust: one transaction per thing that can happen.
//!
//! Each names the trust-state version it was decided on. If that is no longer the device's, nothing is written and
//! the caller gets [`StoreError::Conflict`](super::StoreError::Conflict). A worse state withdraws the device's grants in the
//! same transaction.

mod appraise;
mod enroll;
mod fate;
mod label;
mod list;
mod name;
mod record;
mod replace;

pub(in crate::store) use appraise::renew_all;
pub use appraise::{LoseEntries, RecordAppraisal, Recorded, RenewTrust};
pub use enroll::EnrollDevice;
pub use fate::{
    ApproveDevice, Change, ExpireDevice, ExpireUnreadable, Moved, NoteUnanswered, ReadmitDevice, RevokeDevice,
};
pub use label::{LabelDevice, LabelledDevice};
pub use list::{Along, Candidate};
pub use name::RenameDevice;
pub use record::{DeviceRecord, IdentityRecord, TrustColumns};
pub(in crate::store) use record::{device, update_trust};
pub use replace::{ReplaceDevice, ReplacedDevice, StandingDevice};
