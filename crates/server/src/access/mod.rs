//! What people and programs prove themselves by: access tokens ([`token`]), and sessions of those who signed in ([`session`]).
//!
//! Doors make a [`Principal`](crate::principal::Principal) of what they are shown. The first token of all, which is in a file of the
//! data folder, ends once somebody else is an admin: from then on it is worth something at the operator's socket alone.

pub(crate) mod session;
pub(crate) mod token;
