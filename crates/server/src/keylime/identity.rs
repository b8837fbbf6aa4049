//! Whether a quote is that of an agent that is registered, for whoever asks.

use assay_evidence::request::Quote;
use assay_evidence::tpm::public_area::PublicArea;
use assay_evidence::tpm::quote::{self, verify_quote};
use assay_evidence::{Failure, HashAlgorithm};

use super::KeylimeAgent;
use crate::store::StoreError;

/// What is wrong with a quote as this agent's over a nonce, in a bank. That the agent is trusted is another question.
pub(crate) fn verify_identity(
    agent: &KeylimeAgent,
    quote: &Quote,
    (nonce, bank): (&[u8], HashAlgorithm),
) -> Result<Vec<Failure>, StoreError> {
    let ak = PublicArea::parse_tpm2b(&agent.record.ak_public)
        .map_err(|_| StoreError::Corrupt { column: "keylime_agents.ak_public" })?;
    let Quote { message, signature, pcrs } = quote;
    let quote = quote::Quote { label: "quote", message, signature, pcrs, nonce };
    let (_, mut failures) = verify_quote(&quote, &ak);
    let quoted = ak.scheme().map(|scheme| scheme.hash);
    if quoted != Some(bank) {
        let found = quoted.map_or("none", HashAlgorithm::name);
        failures.push(Failure::new(assay_evidence::Check::AlgorithmPolicy, "hash_alg", bank.name(), found));
    }
    Ok(failures)
}
