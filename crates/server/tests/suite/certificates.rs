//! The inventory of certificates: found by whatever is known of one, page by page, and shown as it stands.

use hyper::Method;
use serde_json::{Value, json};

use crate::access::{page, signed_in};
use crate::fixture::Fixture;

async fn list(fixture: &Fixture, query: &str) -> Vec<Value> {
    let answer = fixture.get(&format!("/v1/certificates?{query}")).await;
    answer["certificates"].as_array().unwrap().clone()
}

fn serials(list: &[Value]) -> Vec<String> {
    list.iter().map(|one| one["serial"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_certificate_is_found_by_whatever_is_known_of_it() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_device, _stream, _grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let (_other, _held, _more) = fixture.trusted_device(&edge, "press-2", "").await;

    let of_device = list(&fixture, "device=press-1").await;
    assert_eq!(of_device.len(), 1, "{of_device:?}");
    let one = &of_device[0];
    assert_eq!((&one["kind"], &one["state"]), (&json!("device"), &json!("standing")), "{one}");
    assert_eq!(one["device_name"], "press-1");
    let serial = one["serial"].as_str().unwrap();
    let id = one["spiffe_id"].as_str().unwrap();
    for query in [
        format!("serial={serial}"),
        format!("serial={}", serial[..8].to_uppercase()),
        format!("spiffe_id={id}"),
        format!("spiffe_id={id}&state=standing&device=press-1"),
        "device=press-1&days=36500".to_owned(),
    ] {
        assert_eq!(serials(&list(&fixture, &query).await), [serial], "{query}");
    }
    for query in ["device=press-1&state=withdrawn", "device=press-1&days=0", "state=ended"] {
        assert!(list(&fixture, query).await.is_empty(), "{query}");
    }

    // Once the device falls, its certificate stands there as withdrawn, and nowhere as good.
    fixture.post("/v1/devices/press-1/revoke", &json!({ "reason": "stolen" })).await;
    let withdrawn = list(&fixture, "state=withdrawn").await;
    assert_eq!(serials(&withdrawn), [serial]);
    assert!(withdrawn[0]["withdrawn_at"].is_u64());
    assert!(!serials(&list(&fixture, "state=standing").await).contains(&serial.to_owned()));

    let cookie = signed_in(&fixture, &fixture.token()).await;
    let (status, html) = page(&fixture, &cookie, "/certificates?state=withdrawn").await;
    assert_eq!(status, 200);
    assert!(html.contains(serial) && html.contains("issuing") && html.contains("Revocation list"), "{html}");
    // People are told what cannot be searched for; programs are refused.
    let (status, html) = page(&fixture, &cookie, "/certificates?serial=xyz").await;
    assert!(status == 200 && html.contains("8 to 40 hexadecimal digits"), "{html}");
    let bearer = format!("Bearer {}", fixture.token());
    for (query, expected) in [("serial=xyz", 400), ("device=nobody", 404), ("state=good", 400), ("x=y", 400)]
    {
        let path = format!("/v1/certificates?{query}");
        assert_eq!(fixture.ask(Method::GET, &path, &bearer, String::new()).await, expected, "{query}");
    }
}

#[tokio::test]
async fn pages_of_certificates_have_each_of_them_once_in_the_order_of_their_ends() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut streams = Vec::new();
    for number in 0..4 {
        streams.push(fixture.trusted_device(&edge, &format!("press-{number}"), "").await);
    }
    fixture.post("/v1/devices/press-2/revoke", &json!({ "reason": "stolen" })).await;
    for state in ["", "standing", "withdrawn"] {
        let whole = list(&fixture, &format!("limit=1000&state={state}")).await;
        assert!(!whole.is_empty());
        let ends: Vec<u64> = whole.iter().map(|one| one["not_after"].as_u64().unwrap()).collect();
        assert!(ends.is_sorted(), "{ends:?}");
        let (mut paged, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/certificates?limit=1&state={state}&cursor={cursor}");
            let answer = fixture.get(&path).await;
            let certificates = answer["certificates"].as_array().unwrap();
            assert!(certificates.len() <= 1);
            paged.extend(certificates.clone());
            match answer["next"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(paged, whole, "{state}");
    }
    let authorities = fixture.get("/v1/authorities").await;
    let names: Vec<&str> = authorities["authorities"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["root", "issuing"]);
    assert_eq!(authorities["revocation_list"]["entries"], 1);
}
