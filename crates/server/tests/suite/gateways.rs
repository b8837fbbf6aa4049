//! Gateways and the server's own certificates: renewed by whoever has them, ended by name, and nothing else.

use assay_identity::{Crl, PrivateKey, Serial, csr};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use crate::fixture::Fixture;

/// A gateway's connection to the edge.
struct Connection(hyper::client::conn::http2::SendRequest<Full<Bytes>>);

impl Connection {
    async fn of(fixture: &Fixture, gateway: &str) -> Connection {
        let stream = fixture.door(gateway).await.dial("h2").await.unwrap();
        let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
        let (sender, connection) = handshake.await.unwrap();
        tokio::spawn(connection);
        Connection(sender)
    }

    async fn ask(&mut self, method: Method, path: &str, body: Vec<u8>) -> hyper::Result<(u16, Bytes)> {
        let request = Request::builder().method(method).uri(format!("https://edge{path}"));
        let answer = self.0.send_request(request.body(Full::new(body.into())).unwrap()).await?;
        let status = answer.status().as_u16();
        Ok((status, answer.into_body().collect().await?.to_bytes()))
    }

    async fn renew(&mut self) -> hyper::Result<u16> {
        let request = csr::request(&PrivateKey::generate().unwrap()).unwrap();
        Ok(self.ask(Method::POST, "/gateway/renew", request).await?.0)
    }
}

async fn listed(fixture: &Fixture, name: &str) -> Value {
    let answer = fixture.get("/v1/gateways").await;
    let gateways = answer["gateways"].as_array().unwrap().clone();
    gateways.into_iter().find(|gateway| gateway["name"] == name).unwrap()
}

async fn crl(fixture: &Fixture) -> Crl {
    Crl::parse(fixture.call(Method::GET, "/crl", &[], String::new()).await.body()).unwrap()
}

#[tokio::test]
async fn finding_4_a_gateway_renews_its_own_certificate_and_has_every_new_list() {
    let fixture = Fixture::start().await;
    let mut gateway = Connection::of(&fixture, "edge-1").await;
    let first = listed(&fixture, "edge-1").await;
    assert_eq!(gateway.renew().await.unwrap(), 200);
    let second = listed(&fixture, "edge-1").await;
    assert_ne!(first["serial"], second["serial"]);
    assert_eq!(gateway.ask(Method::POST, "/gateway/renew", b"none".to_vec()).await.unwrap().0, 400);

    let (status, list) = gateway.ask(Method::GET, "/gateway/crl?than=0", Vec::new()).await.unwrap();
    let number = Crl::parse(&list).unwrap().number();
    assert_eq!((status, number), (200, crl(&fixture).await.number()));
    let path = format!("/gateway/crl?than={number}");
    assert_eq!(gateway.ask(Method::GET, &path, Vec::new()).await.unwrap().0, 204);
    // Whoever waits has the next list when there is one.
    fixture.door("edge-2").await;
    let path = format!("{path}&wait=true");
    let reason = json!({ "reason": "gone" });
    let (answer, _) = tokio::join!(
        gateway.ask(Method::GET, &path, Vec::new()),
        fixture.post("/v1/gateways/edge-2/revoke", &reason),
    );
    let (status, list) = answer.unwrap();
    assert_eq!(status, 200);
    let revoked = Serial::from_hex(listed(&fixture, "edge-2").await["serial"].as_str().unwrap()).unwrap();
    assert!(Crl::parse(&list).unwrap().revokes(&revoked));
}

#[tokio::test]
async fn finding_4_every_certificate_of_a_revoked_gateway_ends_and_none_follows() {
    let fixture = Fixture::start().await;
    let mut gateway = Connection::of(&fixture, "edge-1").await;
    let mut other = Connection::of(&fixture, "edge-2").await;
    assert_eq!(gateway.renew().await.unwrap(), 200);
    let revoked = fixture.post("/v1/gateways/edge-1/revoke", &json!({ "reason": "taken over" })).await;
    assert_eq!(revoked["certificates"], 2);
    assert_eq!(listed(&fixture, "edge-1").await["status"], "revoked");
    let serial = listed(&fixture, "edge-1").await["serial"].as_str().unwrap().to_owned();
    assert!(crl(&fixture).await.revokes(&Serial::from_hex(&serial).unwrap()));
    // Before its connection is cut it gets nothing by it, and then there is none.
    while let Ok(status) = gateway.renew().await {
        assert_eq!(status, 404);
    }
    assert_eq!(other.renew().await.unwrap(), 200);
    let again = fixture
        .call(
            Method::POST,
            "/v1/gateways/edge-1/revoke",
            &[("authorization", &format!("Bearer {}", fixture.token()))],
            json!({ "reason": "again" }).to_string(),
        )
        .await;
    assert_eq!(again.status(), 404);
}

#[tokio::test]
async fn finding_4_one_gateway_does_not_fill_the_list() {
    let fixture = Fixture::start().await;
    let mut gateway = Connection::of(&fixture, "edge-1").await;
    let mut renewed = 0;
    let refused = loop {
        match gateway.renew().await.unwrap() {
            200 => renewed += 1,
            status => break status,
        }
        assert!(renewed < 100, "without end");
    };
    assert_eq!((renewed, refused), (31, 429));
}

#[tokio::test]
async fn finding_4_what_an_earlier_run_signed_for_itself_ends_with_the_next() {
    let mut fixture = Fixture::start().await;
    let sql = "SELECT serial AS n FROM svids WHERE spiffe_id LIKE '%/assay/server' ORDER BY leaf LIMIT 1";
    let serial = Serial::from_hex(&fixture.text(sql).await).unwrap();
    assert!(!crl(&fixture).await.revokes(&serial));
    fixture.restart().await;
    assert!(crl(&fixture).await.revokes(&serial));
}
