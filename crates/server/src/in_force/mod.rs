//! What is held in memory of what is in the store or in files: who is judged by what, who vouches, which entries and
//! withdrawals stand. Above the store, below the use cases.

pub(crate) mod access;
pub(crate) mod boot_logs;
pub(crate) mod endorsers;
pub(crate) mod entries;
pub(crate) mod federation;
pub(crate) mod ledger_head;
pub(crate) mod ledger_tree;
pub(crate) mod manifest;
pub(crate) mod messages;
pub(crate) mod policies;
pub(crate) mod revocations;
pub(crate) mod secrets;
