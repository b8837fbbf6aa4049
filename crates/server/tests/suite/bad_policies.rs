//! Policies that are none: an answer that says where and what, and nothing is stored of them.

use assay_trust::policy::{ENVELOPE_BYTES_MAX, POLICY_BYTES_MAX};
use hyper::Method;
use serde_json::Value;

use crate::fixture::Fixture;

/// What the console answers to a policy, put in force or rolled out.
async fn refused(fixture: &Fixture, method: Method, path: &str, text: &str) -> (u16, Value) {
    let bearer = format!("Bearer {}", fixture.token());
    let answer = fixture.call(method, path, &[("authorization", &bearer)], text.to_owned()).await;
    (answer.status().as_u16(), serde_json::from_slice::<Value>(answer.body()).unwrap()["error"].clone())
}

#[tokio::test]
async fn what_is_no_policy_is_refused_where_it_is_wrong_and_leaves_nothing_behind() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_device, _stream, _grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let before = (fixture.get("/v1/policy").await, fixture.get("/v1/audit?limit=1000").await);
    let allow = format!("[ima.allow]\n\"/bin/a\" = [\"sha256:{}\"]\n", "ab".repeat(32));
    let heading = "name = \"base\"\nversion = 1\n";
    let pattern = format!("{heading}[ima]\nexclude = [\"/a{}\"]\n{allow}", "*b".repeat(64));
    for (text, place, word) in [
        (format!("{heading}{allow}\"/bin/a\" = []\n"), "line 5,", "duplicate key"),
        (format!("{heading}colour = 3\n{allow}"), "line 3,", "unknown field `colour`"),
        (
            format!("{heading}[ima]\nlist = \"optional\"\nlists = 2\n{allow}"),
            "line 5,",
            "unknown field `lists`",
        ),
        (pattern, "line 4,", "characters after its first wildcard"),
        (format!("{heading}[ima]\nexclude = [\"/**\"]\n{allow}"), "line 4,", "matches everything"),
        (
            format!("{heading}[ima]\nsigning_keys = [\"MIIB, but no PEM\"]\n{allow}"),
            "ima.signing_keys[0]",
            "no certificate or public key in PEM",
        ),
        (format!("{heading}{allow}#{}", " ".repeat(POLICY_BYTES_MAX)), "33554432", "are read"),
        (format!("{heading}{allow}#{}", " ".repeat(ENVELOPE_BYTES_MAX)), "33554432", "are read"),
    ] {
        for (method, path) in
            [(Method::PUT, "/v1/policy"), (Method::POST, "/v1/policies/rollouts?force=true")]
        {
            let (status, error) = refused(&fixture, method, path, &text).await;
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(place) && message.contains(word), "{path}: {message}");
            assert_eq!(status, 400, "{path}: {message}");
        }
    }
    let after = (fixture.get("/v1/policy").await, fixture.get("/v1/audit?limit=1000").await);
    assert_eq!(after, before);
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
}
