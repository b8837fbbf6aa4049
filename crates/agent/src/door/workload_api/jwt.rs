//! JWT-SVIDs: tokens for audiences that a workload names, and what others show.

use std::sync::Arc;
use std::time::SystemTime;

use assay_clock::Clock;
use assay_identity::TrustDomain;
use assay_identity::jwt_svid::{AUDIENCE_BYTES_MAX, AUDIENCES_MAX, claimed_domain, is_audience};
use assay_wire::workload::{
    JwtBundlesResponse, Jwtsvid, JwtsvidRequest, JwtsvidResponse, ValidateJwtsvidResponse,
};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use serde_json::{Map, Value as Json};
use tokio::task::JoinSet;
use tonic::Status;

use super::stream::{Answer, entitled};
use crate::ask::{Asker, NoToken};
use crate::holding::{Entry, Holding};
use crate::workload::Caller;

/// A token for each of the caller's identities, or for the one that it names, in the order of their entries.
pub(super) async fn tokens(
    holding: Holding,
    caller: &Caller,
    (asker, clock): (&Asker, &Clock),
    request: JwtsvidRequest,
) -> Result<JwtsvidResponse, Status> {
    let JwtsvidRequest { audience, spiffe_id } = request;
    if !is_audience(&audience) {
        let most =
            format!("{AUDIENCES_MAX} audiences that can be printed, of {AUDIENCE_BYTES_MAX} bytes together");
        return Err(Status::invalid_argument(format!("name 1 to {most}")));
    }
    let mine = entitled(&holding, caller).await?;
    let entries: Vec<Arc<Entry>> = mine
        .into_iter()
        .filter_map(|index| holding.workloads.get(index))
        .map(|workload| workload.entry.clone())
        .filter(|entry| spiffe_id.is_empty() || entry.spiffe_id == spiffe_id)
        .collect();
    if entries.is_empty() {
        return Err(Status::permission_denied("no identity issued: the caller is not entitled to this one"));
    }
    if entries.len() > IDENTITIES_MAX {
        return Err(Status::invalid_argument("the caller has many identities: name one with spiffe_id"));
    }
    let audience: Arc<[String]> = audience.into();
    let mut asked = JoinSet::new();
    let mut svids: Vec<Option<Jwtsvid>> = vec![None; entries.len()];
    for (index, entry) in entries.iter().enumerate() {
        match holding.token(&entry.id, &audience, clock.now()) {
            Some(token) => svids[index] = Some(svid(entry, &token.compact)),
            None => {
                let (entry, asker, audience) = (entry.clone(), asker.clone(), audience.clone());
                asked.spawn(async move { (index, asker.token(&entry.id, &audience).await) });
            }
        }
    }
    while let Some(answered) = asked.join_next().await {
        let (index, token) = answered.map_err(|_| Status::internal("a token could not be waited for"))?;
        let token = token.map_err(refused)?;
        svids[index] = Some(svid(&entries[index], &token.compact));
    }
    Ok(JwtsvidResponse { svids: svids.into_iter().flatten().collect() })
}

/// What tokens of the trust domain are verified with.
pub(super) fn bundles(
    holding: &Holding,
    mine: &[usize],
    trust_domain: &TrustDomain,
) -> Answer<JwtBundlesResponse> {
    let json = holding.jwt_keys.json();
    if json.is_empty() {
        return Answer::Wait;
    }
    let others = holding.foreign_of(mine).filter(|foreign| !foreign.jwt_json.is_empty());
    let others = others.map(|foreign| (foreign.trust_domain.id().to_string(), foreign.jwt_json.clone()));
    let own = (trust_domain.id().to_string(), json.to_vec());
    Answer::State(JwtBundlesResponse { bundles: others.chain([own]).collect() })
}

/// Whose token it is, and what it says. Whose keys verify it, the name in it says, and only those that are for the caller.
pub(super) fn validated(
    (holding, mine): (&Holding, &[usize]),
    trust_domain: &TrustDomain,
    (audience, token): (&str, &str),
    now: SystemTime,
) -> Result<ValidateJwtsvidResponse, Status> {
    if audience.is_empty() || token.is_empty() {
        return Err(Status::invalid_argument("name an audience and a token"));
    }
    let foreign = claimed_domain(token)
        .filter(|claimed| claimed != trust_domain)
        .and_then(|claimed| holding.foreign_of(mine).find(|foreign| foreign.trust_domain == claimed));
    let (keys, trust_domain) = match foreign {
        Some(foreign) => (&foreign.jwt_keys, &foreign.trust_domain),
        None => (&holding.jwt_keys, trust_domain),
    };
    let verified = keys
        .verify(token, trust_domain, audience, now)
        .map_err(|error| Status::invalid_argument(format!("the token does not hold: {error}")))?;
    Ok(ValidateJwtsvidResponse {
        spiffe_id: verified.svid.spiffe_id.to_string(),
        claims: Some(protobuf(verified.claims)),
    })
}

fn svid(entry: &Entry, token: &str) -> Jwtsvid {
    Jwtsvid { spiffe_id: entry.spiffe_id.clone(), svid: token.to_owned(), hint: entry.hint.clone() }
}

/// Why is for operators, as with certificates.
fn refused(reason: NoToken) -> Status {
    match reason {
        NoToken::Denied => Status::permission_denied("no token issued"),
        NoToken::Unavailable => Status::unavailable("no token now: the server could not be asked"),
    }
}

/// Claims as the API has them. What is nested deeper than JSON parsers go does not get here.
fn protobuf(claims: Map<String, Json>) -> Struct {
    Struct { fields: claims.into_iter().map(|(name, claim)| (name, value(claim))).collect() }
}

fn value(json: Json) -> Value {
    let kind = match json {
        Json::Null => Kind::NullValue(0),
        Json::Bool(bool) => Kind::BoolValue(bool),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => Kind::ListValue(ListValue { values: values.into_iter().map(value).collect() }),
        Json::Object(fields) => Kind::StructValue(protobuf(fields)),
    };
    Value { kind: Some(kind) }
}

/// Tokens in one answer; the TPM signs a request for each.
const IDENTITIES_MAX: usize = 16;
