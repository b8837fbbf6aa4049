//! Who gets the next place where there are few: connections, streams, enrollments, bytes in memory.
//!
//! Everything scarce is counted against whoever asks for it: a [`Peer`], by its proven identity, else by its network.
//! [`Places`] shares places out so that nobody's many keep another's few out, and [`Quota`] does the same for bytes.
//! Keys, times and counts come in, admissions and refusals go out; what a refusal or an eviction means is the door's.

mod peer;
mod places;
mod quota;

pub use peer::{ADDRESS_HEADER, IDENTITY_HEADER, Peer, PeerError};
pub use places::{Admitted, Crowded, Place, Places, Room};
pub use quota::{Quota, Spent};
