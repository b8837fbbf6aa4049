//! The doors for SPIRE's agents and command line.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use assay_identity::SpiffeId;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{StartError, bind};
use crate::config::Config;
use crate::door;
use crate::door::listen::{Door, Limits, Peers};
use crate::parts::Server;
use crate::security::{Cause, Refused};

/// Where SPIRE's agents and command line come.
pub(super) struct SpireDoors {
    pub address: SocketAddr,
    agents: TcpListener,
    operators: UnixListener,
}

impl SpireDoors {
    pub(super) async fn bind(config: &Config) -> Result<Option<SpireDoors>, StartError> {
        let (Some(spire), Some(path)) = (&config.spire, config.spire_socket()) else { return Ok(None) };
        let (address, agents) = bind(spire.address).await?;
        let operators = door::local::bind(&path).map_err(|source| StartError::File { path, source })?;
        tracing::warn!(%address, "nodes are let in that do not quote");
        Ok(Some(SpireDoors { address, agents, operators }))
    }

    pub(super) fn serve(
        self,
        server: &Arc<Server>,
        tasks: &mut JoinSet<()>,
        shutdown: &watch::Receiver<bool>,
    ) {
        if let Some(door) = spire_door(server) {
            tasks.spawn(door::listen::serve(self.agents, door, shutdown.clone()));
        }
        let router = door::spire::local_router(server);
        tasks.spawn(door::plain::serve(self.operators, router, shutdown.clone()));
    }
}

/// For SPIRE's agents, which show who they are once they have attested.
fn spire_door(server: &Arc<Server>) -> Option<Door> {
    let (limits, at_door, noting) = (Limits::spire(&server.config.limits), server.clone(), server.clone());
    let refused = move |who: Option<&SpiffeId>, from: IpAddr, why| {
        let who = who.map(SpiffeId::to_string).unwrap_or_default();
        noting.refused(Refused { cause: Cause::SpireAgent, who, from: from.to_string(), why });
    };
    let trust = server.spire_tls.as_ref()?.trust();
    let shown = move || match &at_door.spire_tls {
        Some(tls) => tls.configuration(),
        None => at_door.tls.console(),
    };
    Some(Door {
        tls: Some(Box::new(shown)),
        // No list cuts a node off: it is told why with its next request.
        peers: Some(Peers { trust, lists: server.revocations.watch(), refused: Box::new(refused) }),
        router: door::spire::router(server),
        limits,
        admission: limits.admission(),
        clock: server.clock.clone(),
    })
}
