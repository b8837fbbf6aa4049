//! Join tokens: an operator makes one, and whoever shows it first joins under its name.

use assay_evidence::time::UnixTime;
use assay_identity::selector::Written;
use assay_identity::{SpiffeId, TrustDomain};
use data_encoding::HEXLOWER;

use super::SpireError;
use crate::actor::Actor;
use crate::entry::{NewEntry, Rules};
use crate::keys::random;
use crate::outcome::Refusal;
use crate::store::{CreateJoinToken, Store, TokenHash};

/// What an operator asks for.
#[derive(Clone, Debug)]
pub(crate) struct NewToken {
    /// How long it may be shown.
    pub ttl_seconds: u64,
    /// The token, if the operator chose it.
    pub token: Option<String>,
    /// A name that the node gets beside its own.
    pub alias: Option<SpiffeId>,
}

/// The ID of a node that joins by a token.
pub(super) fn node(trust_domain: &TrustDomain, token: &str) -> Result<SpiffeId, SpireError> {
    if token.contains('/') || token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(SpireError::Malformed("a join token is one segment of a path"));
    }
    trust_domain.with_path(&format!("/spire/agent/join_token/{token}")).map_err(SpireError::NotAToken)
}

/// Makes a token; it, and until when it may be shown.
pub(crate) async fn create(
    store: &Store,
    rules: Rules<'_>,
    new: NewToken,
    by: Actor,
    now: UnixTime,
) -> Result<(String, UnixTime), Refusal> {
    if !(1..=TTL_SECONDS_MAX).contains(&new.ttl_seconds) {
        return Err(SpireError::Ttl { max: TTL_SECONDS_MAX }.into());
    }
    let token = match new.token {
        Some(token) => token,
        None => uuid(random().map_err(SpireError::from)?),
    };
    let parent = node(rules.trust_domain, &token)?;
    let alias = new.alias.map(|alias| alias_entry(alias, parent).record(rules, now)).transpose();
    let alias = alias.map_err(Refusal::from)?;
    let expires_at = now.plus(new.ttl_seconds);
    let (hash, actor) = (TokenHash::of(&token), by.name().to_owned());
    let create = CreateJoinToken { hash, expires_at, alias, at: now, actor };
    if !store.commit_and_follow(create).await? {
        return Err(SpireError::TokenExists.into());
    }
    tracing::info!(until = %expires_at, %by, "a join token was made");
    Ok((token, expires_at))
}

/// The entry by which a node is known under another name.
fn alias_entry(spiffe_id: SpiffeId, parent: SpiffeId) -> NewEntry {
    let selector = Written { kind: "spiffe_id".to_owned(), value: parent.to_string() };
    NewEntry { unquoted: true, ..NewEntry::of(spiffe_id, parent, vec![selector]) }
}

/// RFC 9562, version 4: what people expect a token to look like.
fn uuid(mut bytes: [u8; 16]) -> String {
    let [_, _, _, _, _, _, version, _, variant, ..] = &mut bytes;
    *version = (*version & 0x0f) | 0x40;
    *variant = (*variant & 0x3f) | 0x80;
    let hex = HEXLOWER.encode(&bytes);
    let part = |range: std::ops::Range<usize>| hex.get(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

/// A month: a machine on its way.
const TTL_SECONDS_MAX: u64 = 30 * 24 * 3600;
const TOKEN_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_looks_like_one_and_is_one_segment() {
        let token = uuid([0xff; 16]);
        assert_eq!(token, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        let domain = TrustDomain::parse("td").unwrap();
        let id = node(&domain, &token).unwrap();
        assert_eq!(id.as_str(), format!("spiffe://td/spire/agent/join_token/{token}"));
        for bad in ["", "a/b", "..", ".", "a b", "%41", "a\n", &"a".repeat(TOKEN_BYTES_MAX + 1)] {
            assert!(node(&domain, bad).is_err(), "{bad:?}");
        }
    }
}
