//! Pages that hear of changes by themselves, and only for as long as somebody may look.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Response};
use serde_json::json;
use tokio::time::timeout;

use crate::access::{signed_in, token};
use crate::fixture::{Fixture, header_text};

/// The stream of a page.
struct Events(Response<Incoming>);

impl Events {
    async fn open(fixture: &Fixture, headers: &[(&'static str, &str)], about: &str) -> Events {
        let address = fixture.running().addresses().console;
        let path = format!("/events{about}");
        let answer = fixture.open_at(address, Method::GET, &path, headers, String::new()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(header_text(answer.headers(), "content-type"), "text/event-stream");
        Events(answer)
    }

    /// What comes within some seconds; `None`: the stream ended.
    async fn next(&mut self) -> Result<Option<String>, tokio::time::error::Elapsed> {
        let frame = timeout(Duration::from_secs(4), self.0.frame()).await?;
        Ok(frame.map(|frame| String::from_utf8(frame.unwrap().into_data().unwrap().to_vec()).unwrap()))
    }

    /// The id of the next event.
    async fn changed(&mut self) -> u64 {
        let event = self.next().await.unwrap().unwrap();
        assert!(event.contains("event: changed\n") && event.ends_with("\n\n"), "{event:?}");
        let id = event.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
        id.parse().unwrap()
    }
}

async fn relabel(fixture: &Fixture, device: &str, label: &str) {
    fixture.post(&format!("/v1/devices/{device}/labels"), &json!({ "set": [label] })).await;
}

#[tokio::test]
async fn a_page_is_told_of_what_it_shows_and_of_nothing_else() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    for name in ["press-1", "press-2"] {
        edge.enroll(&mut fixture.device(name)).await.unwrap();
    }
    let cookie = signed_in(&fixture, &fixture.token()).await;
    let headers = [("cookie", cookie.as_str())];
    let mut fleet = Events::open(&fixture, &headers, "").await;
    let mut one = Events::open(&fixture, &headers, "?device=press-1").await;
    relabel(&fixture, "press-2", "line=a").await;
    let first = fleet.changed().await;
    assert!(one.next().await.is_err(), "the other device is not its business");
    relabel(&fixture, "press-1", "line=b").await;
    let second = fleet.changed().await;
    assert_eq!((second, one.changed().await), (first + 1, first + 1));

    // Who comes back is told at once that there was something, and who missed nothing is not.
    let (before, now) = (first.to_string(), second.to_string());
    let mut back = Events::open(&fixture, &[headers[0], ("last-event-id", before.as_str())], "").await;
    assert_eq!(back.changed().await, second);
    let mut back = Events::open(&fixture, &[headers[0], ("last-event-id", now.as_str())], "").await;
    assert!(back.next().await.is_err());
}

#[tokio::test]
async fn a_page_hears_nothing_more_once_its_session_or_its_right_ended() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    edge.enroll(&mut fixture.device("press-1")).await.unwrap();
    relabel(&fixture, "press-1", "site=paris").await;
    let scoped = token(&fixture, "paris", "viewer", "site=paris").await;
    let scoped = format!("Bearer {scoped}");
    let mut one = Events::open(&fixture, &[("authorization", scoped.as_str())], "?device=press-1").await;
    let cookie = signed_in(&fixture, &fixture.token()).await;
    let mut fleet = Events::open(&fixture, &[("cookie", cookie.as_str())], "").await;

    // The device goes out of sight, and the session ends.
    relabel(&fixture, "press-1", "site=rome").await;
    fixture.call(Method::POST, "/sign-out", &[("cookie", cookie.as_str())], String::new()).await;
    for events in [&mut one, &mut fleet] {
        let ended = timeout(Duration::from_secs(12), async { while events.0.frame().await.is_some() {} });
        ended.await.unwrap();
    }
    // And it is not opened again.
    for (name, value, about, expected) in [
        ("authorization", scoped.as_str(), "?device=press-1", 404),
        ("cookie", cookie.as_str(), "", 401),
        ("cookie", "", "", 401),
    ] {
        let path = format!("/events{about}");
        let answer = fixture.call(Method::GET, &path, &[(name, value)], String::new()).await;
        assert_eq!(answer.status(), expected, "{about}");
    }
}
