//! What is asked behind the `?` of a path is known there, or refused.

use assay_server::TrustApi;
use hyper::Method;

use crate::assignment::refusal;
use crate::fixture::Fixture;

#[tokio::test]
async fn year_9_every_route_refuses_parameters_that_it_does_not_know() {
    let fixture = Fixture::with(|config| config.trust_api = Some(TrustApi::default())).await;
    let surface = assay_server::surface();
    assert!(surface.lines().count() > 40, "{surface}");
    for line in surface.lines().map(|line| line.trim_end_matches(" (scoped)")) {
        let (route, known) = line.split_once('?').unwrap_or((line, ""));
        let [who, method, path] = route.split_whitespace().collect::<Vec<_>>()[..] else { panic!("{line}") };
        let path = path.replace("{device}", "press-1").replace("{entry}", "x").replace("{name}", "base");
        let path = path.replace("{result}", "1").replace("{id}", "0");
        let method: Method = method.parse().unwrap();
        let (status, code, message) =
            refusal(&fixture, method.clone(), &format!("{path}?colour=red"), "{}").await;
        if who == "node" {
            // No operator is one.
            assert_eq!(status, 401, "{line}: {message}");
            continue;
        }
        assert_eq!((status, code.as_str()), (400, "parameter"), "{line}: {message}");
        assert!(message.contains("\"colour\""), "{message}");
        for name in known.split('&').filter(|name| !name.is_empty()) {
            assert!(message.contains(name), "{line}: {message}");
            // The route reads what it is said to know, and says of what it cannot read where that is.
            let bearer = format!("Bearer {}", fixture.token());
            let (path, headers) = (format!("{path}?{name}=%00"), [("authorization", bearer.as_str())]);
            let answer = fixture.call(method.clone(), &path, &headers, "{}".to_owned()).await;
            let message = String::from_utf8_lossy(answer.body()).into_owned();
            assert!(
                !message.contains("no parameter") && !message.contains("unknown field"),
                "{line}: {message}"
            );
        }
    }
}

#[tokio::test]
async fn year_9_who_asks_is_looked_at_before_what_they_ask() {
    let fixture = Fixture::start().await;
    let answer = fixture.call(Method::GET, "/v1/devices?colour=red", &[], String::new()).await;
    assert_eq!(answer.status(), 401);
}

#[tokio::test]
async fn year_9_a_parameter_has_one_value_that_can_be() {
    let fixture = Fixture::start().await;
    for (query, says) in [
        ("status=happy", "trusted, suspect"),
        ("attached=maybe", "true or false"),
        ("limit=0", "1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("cursor=%3F", "earlier page"),
        ("label=paris", "key=value"),
        ("status=trusted&status=suspect", "duplicate field `status`"),
    ] {
        let (status, code, message) =
            refusal(&fixture, Method::GET, &format!("/v1/devices?{query}"), "").await;
        assert_eq!((status, code.as_str()), (400, "parameter"), "{query}: {message}");
        assert!(message.contains(says), "{query}: {message}");
    }
}
