//! Nodes that attest as SPIRE's agents do, and the tokens by which some of them join.

mod agent;
mod token;

pub use agent::{
    AttestSpireAgent, Attested, FallSpireAgent, NoteSpireAgent, OwnSvid, PromoteSvid, RenewSpireAgent,
    SpireAgentFall, SpireAgentRecord,
};
pub use token::{CreateJoinToken, TokenHash};
