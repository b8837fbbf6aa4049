//! Who is refused by the revocation list, and that there is nobody let in without one.

use assay_identity::Crl;
use tokio::io::AsyncReadExt as _;
use tonic::Code;

use crate::domain::Domain;
use crate::edge::Server;
use crate::passing::submit;
use crate::stage::{Stage, eventually};

/// Whether a device that shows this SVID gets a connection.
async fn lets_in(stage: &Stage, path: &str) -> bool {
    match stage.connect(Some(stage.domain.key(path))).await {
        // In TLS 1.3 the client is done first; the refusal is the first thing it reads, else the server's settings.
        Ok(mut connection) => connection.read_u8().await.is_ok(),
        Err(_) => false,
    }
}

async fn code(stage: &Stage) -> Option<Code> {
    stage.client(None).await.submit(submit(1)).await.err().map(|status| status.code())
}

#[tokio::test]
async fn finding_4_without_a_list_nobody_is_believed() {
    let stage = Stage::start(Domain::new(), &["127.0.0.1:1".parse().unwrap()], |_| {}).await;
    assert!(!lets_in(&stage, "/device").await);
    assert_eq!(stage.get("/gateway/status").await.1["revocation_list"], 0);
}

#[tokio::test]
async fn finding_4_a_list_of_another_authority_is_none() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    server.list.send_replace((9, Domain::new().list(9, &[])));
    let stage = Stage::start(domain, &[server.address], |_| {}).await;
    assert_eq!(code(&stage).await, Some(Code::Unavailable));
    assert!(!lets_in(&stage, "/device").await);
}

#[tokio::test]
async fn finding_4_a_revoked_server_carries_nothing() {
    let domain = Domain::new();
    let server = Server::start_with(&domain, "/assay/server", &["/assay/server"]).await;
    let stage = Stage::start(domain, &[server.address], |_| {}).await;
    assert_eq!(code(&stage).await, Some(Code::Unavailable));
}

#[tokio::test]
async fn finding_4_a_new_list_holds_from_the_moment_it_is_there() {
    let domain = Domain::new();
    let server = Server::start(&domain, "/assay/server").await;
    let stage = Stage::start(domain, &[server.address], |_| {}).await;
    assert!(lets_in(&stage, "/device").await && lets_in(&stage, "/other").await);
    assert_eq!(code(&stage).await, None);

    // An older one that names nobody does not take its place.
    let list = stage.domain.list(2, &["/device"]);
    assert_eq!(Crl::parse(&list).unwrap().number(), 2);
    server.list.send_replace((2, list));
    let number =
        async |number| (stage.get("/gateway/status").await.1["revocation_list"] == number).then_some(());
    eventually(async || number(2).await).await;
    server.list.send_replace((3, stage.domain.list(1, &[])));
    assert!(!lets_in(&stage, "/device").await && lets_in(&stage, "/other").await);

    // The server's own certificate falls: its connection ends, and there is no other.
    server.list.send_replace((4, stage.domain.list(4, &["/assay/server", "/device"])));
    eventually(async || number(4).await).await;
    eventually(async || (code(&stage).await == Some(Code::Unavailable)).then_some(())).await;
}
