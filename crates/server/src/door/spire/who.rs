//! Who asks: anybody, a node that attested, or an operator on the socket.

use std::net::{IpAddr, Ipv4Addr};

use assay_admission::Peer;
use http::Extensions;
use tonic::Status;

use super::status;
use crate::door::listen::Caller;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;
use crate::spire::{self, SpireAgent};

/// In the extensions of whatever comes over the socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Local;

/// Whether it is an operator.
pub(super) fn is_local(extensions: &Extensions) -> bool {
    extensions.get::<Local>().is_some()
}

/// Nobody else but an operator may ask.
pub(super) fn operator(extensions: &Extensions) -> Result<(), Status> {
    match is_local(extensions) {
        true => Ok(()),
        false => Err(status::refused(Refusal::new(
            Kind::Forbidden,
            "not-an-operator",
            "only an operator may ask for this, at the server's socket",
        ))),
    }
}

/// The node whose certificate opened the connection, if it is that node now.
pub(super) async fn node(server: &Server, extensions: &Extensions) -> Result<SpireAgent, Status> {
    let peer = extensions.get::<Caller>().and_then(Caller::certificate);
    let nobody = || {
        Refusal::new(Kind::Unauthenticated, "no-certificate", "a node shows its certificate to ask for this")
    };
    let peer = peer.ok_or_else(|| status::refused(nobody()))?;
    spire::active(&server.store, peer, server.now()).await.map_err(status::of)
}

/// From where, for sharing places out.
pub(super) fn address(extensions: &Extensions) -> Peer {
    Peer::at(extensions.get::<Caller>().map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), Caller::address))
}
