//! For whom a gateway speaks.
//!
//! A gateway ends TLS, so it alone knows the device's address and the SVID that the device showed. Both are believed for
//! sharing places out and for nothing else; and only at this door, where nobody comes in but gateways.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use assay_admission::{ADDRESS_HEADER, IDENTITY_HEADER, Peer, PeerError};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::HeaderValue;
use tonic::Status;

use crate::door::listen::Caller;
use crate::outcome::{Kind, Outcome, Refusal};
use crate::parts::Server;

/// Reads what the gateway says of its peer, for [`of`].
pub(super) async fn read(State(server): State<Arc<Server>>, mut request: Request, next: Next) -> Response {
    match told(&server, &request) {
        Ok(peer) => {
            request.extensions_mut().insert(peer);
            next.run(request).await
        }
        Err(error) => Status::from(Refusal::from(error)).into_http(),
    }
}

/// Whom a request comes from.
pub(crate) fn of(extensions: &http::Extensions) -> Peer {
    extensions.get().cloned().unwrap_or_else(|| Peer::at(NOWHERE))
}

fn told(server: &Server, request: &Request) -> Result<Peer, PeerError> {
    let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
    match header(ADDRESS_HEADER) {
        Some(address) => Peer::from_headers(address, header(IDENTITY_HEADER), &server.config.trust_domain),
        // A gateway that says nothing of its peers has one share for all of them.
        None => Ok(Peer::at(request.extensions().get::<Caller>().map_or(NOWHERE, Caller::address))),
    }
}

impl Outcome for PeerError {
    fn told(&self) -> (Kind, &'static str) {
        (Kind::Malformed, "peer")
    }
}

const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
