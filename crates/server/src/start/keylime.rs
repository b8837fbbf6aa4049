//! The doors for Keylime's agents.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{KeylimeAddresses, StartError, bind};
use crate::config::Config;
use crate::door;
use crate::door::keylime::{At, Routes};
use crate::door::listen::{Door, Limits};
use crate::parts::Server;

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
            let door = Door { tls: None, ..keylime_door(server, registrar.clone()) };
            tasks.spawn(door::listen::serve(listener, door, shutdown.clone()));
        }
        for ((_, listener), router) in [(self.registrar, registrar), (self.verifier, verifier)] {
            tasks.spawn(door::listen::serve(listener, keylime_door(server, router), shutdown.clone()));
        }
        tasks.spawn(door::keylime::run(at));
    }
}

/// For agents, which show no certificate: what they say is proven by their TPMs.
fn keylime_door(server: &Arc<Server>, router: Routes) -> Door {
    let (limits, at_door) = (Limits::keylime(&server.config), server.clone());
    Door {
        tls: Some(Box::new(move || at_door.tls.console())),
        peers: None,
        router,
        limits,
        admission: limits.admission(),
        clock: server.clock.clone(),
    }
}
