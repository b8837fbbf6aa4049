//! That whoever speaks for an agent has its AK now.

use assay_evidence::Failure;
use assay_evidence::tpm::certify::verify_possession;
use assay_evidence::tpm::public_area::PublicArea;

use super::KeylimeAgent;
use crate::store::StoreError;

/// What is wrong with this as the AK's certification of itself, made for this challenge.
pub(crate) fn possesses(
    agent: &KeylimeAgent,
    (message, signature): (&[u8], &[u8]),
    challenge: &[u8],
) -> Result<Vec<Failure>, StoreError> {
    let ak = PublicArea::parse_tpm2b(&agent.record.ak_public)
        .map_err(|_| StoreError::Corrupt { column: "keylime_agents.ak_public" })?;
    Ok(verify_possession(&ak, message, signature, challenge))
}
