//! Who asks for what is not everybody's: an operator, known by the certificate that opened the connection.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::status::V2;
use crate::actor::Actor;
use crate::door::listen::Caller;
use crate::outcome::{Kind, Refusal};

/// An operator of the trust domain: no certificate of ours makes anybody one but one that was issued for that.
#[derive(Clone, Copy, Debug)]
pub(super) struct Operator(pub Actor);

impl<S: Send + Sync> FromRequestParts<S> for Operator {
    type Rejection = V2;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, V2> {
        let refused = || {
            let message = "an operator's certificate opens this: assay operator issue NAME";
            Refusal::new(Kind::Forbidden, "not-an-operator", message)
        };
        let caller = parts.extensions.get::<Caller>().ok_or_else(refused)?;
        let peer = caller.certificate().ok_or_else(refused)?;
        let actor = Actor::named(peer.spiffe_id()).ok_or_else(refused)?;
        caller.is_known()?;
        Ok(Operator(actor))
    }
}
