//! The doors for Keylime's agents.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use assay_identity::SpiffeId;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{KeylimeAddresses, StartError, bind};
use crate::config::Config;
use crate::door;
use crate::door::keylime::{At, Routes};
use crate::door::listen::{Door, Limits, Peers};
use crate::parts::Server;
use crate::security::{Cause, Refused};

/// Where Keylime's agents come.
pub(super) struct KeylimeDoors {
    registrar: (SocketAddr, TcpListener),
    verifier: (SocketAddr, TcpListener),
    plain: Option<(SocketAddr, TcpListener)>,
}

impl KeylimeDoors {
    pub(super) async fn bind(config: &Config) -> Result<Option<KeylimeDoors>, StartError> {
        let Some(keylime) = &config.keylime else { return Ok(None) };
        let plain = match keylime.dangerous_plain_registrar {
            Some(address) => {
                let (address, listener) = bind(address).await?;
                tracing::warn!(%address, "agents register without TLS");
                Some((address, listener))
            }
            None => None,
        };
        let registrar = bind(keylime.registrar).await?;
        Ok(Some(KeylimeDoors { registrar, verifier: bind(keylime.verifier).await?, plain }))
    }

    pub(super) fn addresses(&self) -> KeylimeAddresses {
        KeylimeAddresses {
            registrar: self.registrar.0,
            plain_registrar: self.plain.as_ref().map(|(address, _)| *address),
            verifier: self.verifier.0,
        }
    }

    pub(super) fn serve(
        self,
        server: &Arc<Server>,
        tasks: &mut JoinSet<()>,
        shutdown: &watch::Receiver<bool>,
    ) {
        let Some(doors) = &server.keylime else { return };
        let at = At::new(server.clone(), doors.clone());
        let (registrar, verifier) = (door::keylime::registrar(&at), door::keylime::verifier(&at));
        if let Some((_, listener)) = self.plain {
            let door = Door { tls: None, ..keylime_door(server, door::keylime::plain_registrar(&at)) };
            tasks.spawn(door::listen::serve(listener, door, shutdown.clone()));
        }
        for ((_, listener), router) in [(self.registrar, registrar), (self.verifier, verifier)] {
            tasks.spawn(door::listen::serve(listener, keylime_door(server, router), shutdown.clone()));
        }
        tasks.spawn(door::keylime::run(at));
    }
}

/// For agents, which show no certificate, as what they say is proven by their TPMs; and for operators, who do.
fn keylime_door(server: &Arc<Server>, router: Routes) -> Door {
    let (limits, at_door, noting) = (Limits::keylime(&server.config), server.clone(), server.clone());
    let refused = move |who: Option<&SpiffeId>, from: IpAddr, why| {
        let who = who.map(SpiffeId::to_string).unwrap_or_default();
        noting.refused(Refused { cause: Cause::OperatorCertificate, who, from: from.to_string(), why });
    };
    let peers = Peers {
        trust: server.revocations.trust(),
        lists: server.revocations.watch(),
        refused: Box::new(refused),
    };
    Door {
        tls: Some(Box::new(move || at_door.tls.keylime())),
        peers: Some(peers),
        router,
        limits,
        admission: limits.admission(),
        clock: server.clock.clone(),
    }
}
