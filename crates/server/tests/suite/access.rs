//! Who may do what: roles, scopes, tokens, sessions, and what a page may change.

use hyper::{Method, Request};
use serde_json::{Value, json};

use assay_server::TrustApi;
use assay_testkit::System;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;

use crate::fixture::{Fixture, header_text};

/// Makes a token by another's.
async fn token_by(fixture: &Fixture, by: &str, name: &str, role: &str, scope: &str) -> (u16, Value) {
    let new = json!({ "name": name, "role": role, "scope": scope, "seconds": 3600 });
    asked(fixture, by, Method::POST, "/v1/tokens", new.to_string()).await
}

pub async fn token(fixture: &Fixture, name: &str, role: &str, scope: &str) -> String {
    let (status, made) = token_by(fixture, &fixture.token(), name, role, scope).await;
    assert_eq!(status, 200, "{made}");
    made["shown"].as_str().unwrap().to_owned()
}

async fn asked(fixture: &Fixture, by: &str, method: Method, path: &str, body: String) -> (u16, Value) {
    let bearer = format!("Bearer {by}");
    let answer = fixture.call(method, path, &[("authorization", &bearer)], body).await;
    let value = serde_json::from_slice(answer.body()).unwrap_or_default();
    (answer.status().as_u16(), value)
}

async fn status(fixture: &Fixture, by: &str, method: Method, path: &str) -> u16 {
    asked(fixture, by, method, path, String::new()).await.0
}

/// The cookie of whoever signs in with a token.
pub async fn signed_in(fixture: &Fixture, token: &str) -> String {
    let answer = fixture.call(Method::POST, "/sign-in", &[], format!("token={token}")).await;
    assert_eq!(answer.status(), 303);
    header_text(answer.headers(), "set-cookie").split(';').next().unwrap().to_owned()
}

pub async fn page(fixture: &Fixture, cookie: &str, path: &str) -> (u16, String) {
    let headers = [("cookie", cookie), ("accept", "text/html")];
    let answer = fixture.call(Method::GET, path, &headers, String::new()).await;
    (answer.status().as_u16(), String::from_utf8(answer.body().to_vec()).unwrap())
}

pub async fn form(fixture: &Fixture, cookie: &str, path: &str, fields: &str) -> (u16, String) {
    let headers = [("cookie", cookie), ("content-type", "application/x-www-form-urlencoded")];
    let answer = fixture.call(Method::POST, path, &headers, fields.to_owned()).await;
    (answer.status().as_u16(), String::from_utf8(answer.body().to_vec()).unwrap())
}

/// The word that a page has in its forms.
pub fn word(html: &str) -> String {
    let (_, rest) = html.split_once("name=\"word\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn each_route_is_for_the_roles_that_the_surface_says() {
    let fixture = Fixture::with(|config| config.trust_api = Some(TrustApi::default())).await;
    let first = fixture.token();
    let roles = ["viewer", "operator", "policy-author", "admin"];
    let mut tokens = Vec::new();
    // The admin's comes last: it ends the first token.
    for role in roles {
        tokens.push((role, token(&fixture, role, role, "").await));
    }
    let covers =
        |role: &str, who: &str| role == who || role == "admin" || who == "viewer" || who == "viewer|node";
    let surface = assay_server::surface();
    let lines = surface.lines().filter(|line| !line.starts_with("exporter") && !line.starts_with("anyone"));
    for line in lines.filter(|line| !line.starts_with("node")) {
        let [who, method, path, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let path = path.replace("{device}", "none").replace("{entry}", "x").replace("{name}", "none");
        let path = path.replace("{result}", "1").replace("{id}", "0").replace("{task}", "x");
        let path = path.replace("{leaf}", "1").replace("{sequence}", "1").replace("{hash}", "x");
        let method: Method = method.parse().unwrap();
        for (role, token) in &tokens {
            let status = status(&fixture, token, method.clone(), &path).await;
            assert_eq!(status == 403, !covers(role, who), "{role} at {line}: {status}");
            assert_ne!(status, 401, "{role} at {line}");
        }
        assert_eq!(status(&fixture, &first, method, &path).await, 401, "{line}");
    }
}

#[tokio::test]
async fn the_first_token_ends_with_the_first_admin_but_at_the_operators_socket() {
    let fixture = Fixture::start().await;
    let first = fixture.token();
    let cookie = signed_in(&fixture, &first).await;
    token(&fixture, "reader", "viewer", "").await;
    assert_eq!(status(&fixture, &first, Method::GET, "/v1/devices").await, 200);
    let admin = token(&fixture, "ada", "admin", "").await;
    assert_eq!(status(&fixture, &first, Method::GET, "/v1/devices").await, 401);
    // Whoever signed in with it is out as well.
    let (closed, html) = page(&fixture, &cookie, "/devices").await;
    assert!(closed == 401 && html.contains("Sign in") && !html.contains("operator.token"), "{html}");
    let (_, me) = asked(&fixture, &admin, Method::GET, "/v1/whoami", String::new()).await;
    assert_eq!(me, json!({ "name": "token/ada", "role": "admin", "scope": "" }));
    // Who lost every token has the machine.
    assert_eq!(at_the_socket(&fixture, &first, "/v1/tokens").await, 200);
    assert_eq!(at_the_socket(&fixture, "wrong", "/v1/tokens").await, 401);
    // With the last admin's token, the first is good again.
    assert_eq!(status(&fixture, &admin, Method::DELETE, "/v1/tokens/ada").await, 200);
    assert_eq!(status(&fixture, &admin, Method::GET, "/v1/devices").await, 401);
    assert_eq!(status(&fixture, &first, Method::GET, "/v1/devices").await, 200);
}

async fn at_the_socket(fixture: &Fixture, token: &str, path: &str) -> u16 {
    let stream = tokio::net::UnixStream::connect(fixture.data().join("operator.sock")).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header("host", "x").header("authorization", format!("Bearer {token}"));
    let answer = sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap();
    let status = answer.status().as_u16();
    answer.into_body().collect().await.unwrap();
    status
}

#[tokio::test]
async fn a_token_is_named_bounded_and_on_record_and_what_it_is_is_nowhere() {
    let fixture = Fixture::start().await;
    let first = fixture.token();
    let made = token(&fixture, "ci", "operator", "").await;
    assert!(made.starts_with("assay_") && made.len() == 49, "{made}");
    let new = |name: &str, role: &str, scope: &str, seconds: u64| {
        json!({ "name": name, "role": role, "scope": scope, "seconds": seconds }).to_string()
    };
    for (body, wanted, code) in [
        (new("ci", "viewer", "", 3600), 409, "token-exists"),
        (new("CI", "viewer", "", 3600), 400, "token-name"),
        (new("", "viewer", "", 3600), 400, "token-name"),
        (new("x", "root", "", 3600), 400, "role"),
        (new("x", "viewer", "site", 3600), 400, "labels"),
        (new("x", "viewer", "", 59), 400, "token-life"),
        (new("x", "viewer", "", 90 * 86_400 + 1), 400, "token-life"),
        (new("x", "admin", "site=paris", 3600), 400, "scoped-admin"),
        (
            json!({ "name": "x", "role": "viewer", "seconds": 60, "actor": "operator" }).to_string(),
            400,
            "json",
        ),
    ] {
        let (status, answer) = asked(&fixture, &first, Method::POST, "/v1/tokens", body.clone()).await;
        assert_eq!((status, answer["error"]["code"].as_str().unwrap()), (wanted, code), "{body}");
    }
    // It acts under its name.
    let (status, _) = asked(
        &fixture,
        &made,
        Method::POST,
        "/v1/entries",
        json!({
            "spiffe_id": "spiffe://test.assay.example/web", "selectors": ["unix:uid:1"],
            "parent": "spiffe://test.assay.example/assay/devices",
        })
        .to_string(),
    )
    .await;
    let leaves = fixture.get("/v1/audit").await;
    let leaves = leaves["leaves"].as_array().unwrap();
    if status == 200 {
        assert!(leaves.iter().any(|leaf| leaf["kind"] == "entry.created" && leaf["actor"] == "token/ci"));
    }
    let created = leaves.iter().find(|leaf| leaf["kind"] == "access-token.created").unwrap();
    assert_eq!((&created["actor"], &created["subject"]), (&json!("operator"), &json!("ci")));
    let tokens = fixture.get("/v1/tokens").await;
    assert!(tokens["tokens"][0]["used_at"].is_u64(), "{tokens}");
    // What is shown is on no disk: only its hash is.
    let secret = made.as_bytes();
    for file in std::fs::read_dir(fixture.data()).unwrap().flatten().filter(|file| file.path().is_file()) {
        let bytes = std::fs::read(file.path()).unwrap();
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{:?}", file.path());
    }
    assert_eq!(asked(&fixture, &first, Method::DELETE, "/v1/tokens/ci", String::new()).await.0, 200);
    assert_eq!(asked(&fixture, &first, Method::DELETE, "/v1/tokens/ci", String::new()).await.0, 404);
    assert_eq!(self::status(&fixture, &made, Method::GET, "/v1/devices").await, 401);
    // Its name is nobody else's for a while.
    assert_eq!(token_by(&fixture, &first, "ci", "viewer", "").await.0, 409);
}

#[tokio::test]
async fn a_token_survives_a_restart_and_no_longer_than_it_may() {
    let mut fixture = Fixture::start().await;
    let made = token(&fixture, "ci", "viewer", "").await;
    fixture.restart().await;
    assert_eq!(status(&fixture, &made, Method::GET, "/v1/devices").await, 200);
    fixture.stop().await;
    fixture.tamper("UPDATE access_tokens SET expires_at = created_at").await;
    fixture.restart().await;
    assert_eq!(status(&fixture, &made, Method::GET, "/v1/devices").await, 401);
}

#[tokio::test]
async fn whoever_has_a_scope_sees_its_devices_and_reaches_no_others() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    for name in ["paris-1", "rome-1"] {
        fixture.known_device(&edge, name, "").await;
    }
    for (name, label) in [("paris-1", "site=paris"), ("rome-1", "site=rome")] {
        fixture.post(&format!("/v1/devices/{name}/labels"), &json!({ "set": [label] })).await;
    }
    let paris = token(&fixture, "paris", "operator", "site=paris").await;
    let listed = async |query: &str| {
        let path = format!("/v1/devices{query}");
        let (_, list) = asked(&fixture, &paris, Method::GET, &path, String::new()).await;
        let devices = list["devices"].as_array().unwrap().iter();
        devices.map(|device| device["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, ["paris-1"]);
    assert_eq!(listed("?status=pending").await.len() + listed("?label=site=rome").await.len(), 0);
    assert_eq!(listed("?name=rome-1").await.len(), 0);
    let get = async |path: &str| status(&fixture, &paris, Method::GET, path).await;
    assert_eq!((get("/v1/devices/paris-1").await, get("/devices/paris-1").await), (200, 200));
    // One that is not theirs is to them one that there is not, in the same words.
    let rome = asked(&fixture, &paris, Method::GET, "/v1/devices/rome-1", String::new()).await;
    let none = asked(&fixture, &paris, Method::GET, "/v1/devices/none-1", String::new()).await;
    let sentence = |answer: &(u16, Value)| answer.1["error"]["message"].to_string().replace("rome", "none");
    assert_eq!((rome.0, sentence(&rome)), (404, sentence(&none)));
    let reason = json!({ "reason": "stolen" }).to_string();
    for (path, wanted) in
        [("rome-1/revoke", 404), ("paris-1/labels", 403), ("paris-1/approve", 403), ("paris-1/revoke", 200)]
    {
        let path = format!("/v1/devices/{path}");
        assert_eq!(asked(&fixture, &paris, Method::POST, &path, reason.clone()).await.0, wanted, "{path}");
    }
    // What concerns others as well is not for them.
    for path in
        ["/v1/audit", "/v1/entries", "/v1/policies", "/v1/secrets", "/v1/tasks", "/ledger", "/certificates"]
    {
        assert_eq!(get(path).await, 403, "{path}");
    }
    let cookie = signed_in(&fixture, &paris).await;
    let (status, html) = page(&fixture, &cookie, "/devices").await;
    assert!(
        status == 200 && html.contains("paris-1") && !html.contains("rome-1") && !html.contains("/ledger")
    );
    // A label that is taken away takes the device out of their sight.
    fixture.post("/v1/devices/paris-1/labels", &json!({ "remove": ["site"], "set": [] })).await;
    assert_eq!((listed("").await.len(), get("/v1/devices/paris-1").await), (0, 404));
}

#[tokio::test]
async fn a_page_changes_what_its_form_confirms_and_nothing_else() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (_, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let operator = token(&fixture, "olga", "operator", "").await;
    let (cookie, other) = (signed_in(&fixture, &operator).await, signed_in(&fixture, &operator).await);
    let (_, html) = page(&fixture, &cookie, "/devices/press-1").await;
    assert!(html.contains("press-1") && html.contains("trusted") && html.contains("Revoke"), "{html}");
    let (word, others) = (word(&html), word(&page(&fixture, &other, "/devices/press-1").await.1));
    let path = "/devices/press-1/revoke";
    for fields in ["reason=x", "reason=x&word=", &format!("reason=x&word={others}"), "reason=x&word=guess"] {
        assert_eq!(form(&fixture, &cookie, path, fields).await.0, 401, "{fields}");
    }
    let twice = format!("word={word}&reason=a&reason=b");
    assert_eq!(form(&fixture, &cookie, path, &twice).await.0, 400);
    // The browser says that another site sent it.
    let headers = [("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site")];
    let foreign = fixture.call(Method::POST, path, &headers, format!("word={word}&reason=x")).await;
    assert_eq!(foreign.status(), 401);
    // A token is for programs, whose routes these are not; and a cookie is not for theirs.
    assert_eq!(asked(&fixture, &operator, Method::POST, path, format!("word={word}&reason=x")).await.0, 400);
    for (method, route) in [
        (Method::POST, "/v1/devices/press-1/revoke"),
        (Method::POST, "/v1/policy/try"),
        (Method::DELETE, "/v1/secrets/x"),
        (Method::POST, "/v1/webhooks/x/again"),
    ] {
        let answer = fixture.call(method, route, &[("cookie", cookie.as_str())], "{}".to_owned()).await;
        assert!([401, 403].contains(&answer.status().as_u16()), "{route}");
    }
    assert_eq!(fixture.status("press-1").await["status"], "trusted");
    let long = format!("word={word}&reason={}", "a".repeat(5000));
    assert_eq!(form(&fixture, &cookie, path, &long).await.0, 400);

    let (status, _) = form(&fixture, &cookie, path, &format!("word={word}&reason=stolen+from+the+van")).await;
    assert_eq!(status, 303);
    assert_eq!(fixture.status("press-1").await["status"], "revoked");
    let (_, html) = page(&fixture, &cookie, "/devices/press-1?done=revoked").await;
    assert!(
        html.contains("stolen from the van")
            && html.contains("Readmit")
            && html.contains("Revoked: what it held")
    );
    let (_, ledger) =
        page(&fixture, &signed_in(&fixture, &fixture.token()).await, "/ledger?kind=device.revoked").await;
    assert!(ledger.contains("token/olga") && ledger.contains("stolen from the van"), "{ledger}");
    assert_eq!(form(&fixture, &cookie, "/devices/press-1/readmit", &format!("word={word}")).await.0, 303);
    // Signed out, the same form is nobody's.
    form(&fixture, &cookie, "/sign-out", "").await;
    assert_eq!(form(&fixture, &cookie, path, &format!("word={word}&reason=x")).await.0, 401);
}

#[tokio::test]
async fn an_approval_from_the_page_is_of_what_the_page_showed() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let (mut device, _stream, _) = fixture.trusted_device(&edge, "press-1", "").await;
    let fall = async |device: &mut assay_testkit::SoftwareDevice, line: &str| {
        device.boot(&System { command_line: line.into(), ..System::default() });
        let mut stream = fixture.edge().await.attach(device).await.unwrap();
        assert_eq!(stream.attest(device).await.unwrap().state, "suspect");
        stream
    };
    let stream = fall(&mut device, "ro init=/bin/sh").await;
    let cookie = signed_in(&fixture, &fixture.token()).await;
    let (_, first) = page(&fixture, &cookie, "/devices/press-1").await;
    assert!(first.contains("Approve this boot") && first.contains("command line"), "{first}");
    let (word, result) = (word(&first), first.split_once("name=\"result\" value=\"").unwrap().1);
    let result: String = result.chars().take_while(char::is_ascii_digit).collect();
    // Another result comes in between: nothing is approved that nobody saw.
    drop(stream);
    let _stream = fall(&mut device, "ro init=/bin/evil").await;
    let path = "/devices/press-1/approve";
    let seen = format!("word={word}&result={result}&what=boot");
    assert_eq!(form(&fixture, &cookie, path, &seen).await.0, 409);
    assert_eq!(form(&fixture, &cookie, path, &format!("word={word}&result=x&what=boot")).await.0, 400);
    let (_, second) = page(&fixture, &cookie, "/devices/press-1").await;
    assert!(second.contains("/bin/evil"));
    let result = second.split_once("name=\"result\" value=\"").unwrap().1;
    let result: String = result.chars().take_while(char::is_ascii_digit).collect();
    assert_eq!(form(&fixture, &cookie, path, &format!("word={word}&result={result}")).await.0, 400);
    let done = form(&fixture, &cookie, path, &format!("word={word}&result={result}&what=boot")).await;
    assert_eq!(done.0, 303, "{}", done.1);
}

#[tokio::test]
async fn what_devices_say_is_text_on_every_page_and_in_every_export() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let name = "press 1";
    let (mut device, _stream, _) = fixture.trusted_device(&edge, name, "").await;
    device.boot(&System { command_line: "ro <img src=x>&\"'\u{202e}".into(), ..System::default() });
    let mut stream = fixture.edge().await.attach(&device).await.unwrap();
    assert_eq!(stream.attest(&mut device).await.unwrap().state, "suspect");
    let first = fixture.token();
    let cookie = signed_in(&fixture, &first).await;
    let id = fixture.get("/v1/devices").await["devices"][0]["id"].as_str().unwrap().to_owned();
    let hash = id.rsplit('/').next().unwrap().to_owned();
    for path in [
        "/",
        "/devices",
        &format!("/devices/{hash}"),
        "/ledger",
        "/devices?q=%3Cscript%3E",
        "/ledger?kind=%3Cscript%3E",
    ] {
        let (status, html) = page(&fixture, &cookie, path).await;
        assert_eq!(status, 200, "{path}");
        assert!(
            !html.contains("<img") && !html.contains("<script>") && !html.contains("style="),
            "{path}: {html}"
        );
    }
    let (_, html) = page(&fixture, &cookie, &format!("/devices/{hash}")).await;
    assert!(html.contains("&#60;img src=x&#62;") && !html.contains('\u{202e}'), "{html}");
    let (_, csv) = page(&fixture, &cookie, "/devices?format=csv").await;
    assert!(csv.contains("\"press 1\""), "{csv}");
    // The same address tells programs in JSON, and people where a search goes wrong.
    let (_, list) = asked(&fixture, &first, Method::GET, "/devices?format=json", String::new()).await;
    assert_eq!(list["devices"][0]["name"], name);
    let (status, html) = page(&fixture, &cookie, "/devices?q=seen:1h").await;
    assert!(status == 200 && html.contains("nothing to search by"), "{html}");
    let bearer = format!("Bearer {first}");
    let headers = [("authorization", bearer.as_str()), ("accept", "application/json")];
    for path in [format!("/devices/{hash}"), "/ledger".to_owned(), "/people".to_owned()] {
        let answer = fixture.call(Method::GET, &path, &headers, String::new()).await;
        assert!(serde_json::from_slice::<Value>(answer.body()).unwrap().is_object(), "{path}");
    }
    let (status, html) = page(&fixture, &cookie, "/devices/nobody").await;
    assert!(status == 404 && html.contains("no device is called nobody"), "{html}");
}

#[tokio::test]
async fn an_admin_makes_and_ends_tokens_on_the_page() {
    let fixture = Fixture::start().await;
    let admin = token(&fixture, "ada", "admin", "").await;
    let cookie = signed_in(&fixture, &admin).await;
    let (_, html) = page(&fixture, &cookie, "/people").await;
    let word = word(&html);
    let fields = format!("word={word}&name=ci&role=viewer&scope=site%3Dparis&days=7");
    let (status, html) = form(&fixture, &cookie, "/people/tokens", &fields).await;
    let shown = html.split_once("class=\"secret\">").unwrap().1;
    let shown = shown.split('<').next().unwrap();
    assert!(status == 200 && shown.starts_with("assay_"), "{html}");
    let (_, me) = asked(&fixture, shown, Method::GET, "/v1/whoami", String::new()).await;
    assert_eq!(me, json!({ "name": "token/ci", "role": "viewer", "scope": "site=paris" }));
    let (_, again) = form(&fixture, &cookie, "/people/tokens", &fields).await;
    assert!(again.contains("there is a token ci already"), "{again}");
    assert_eq!(form(&fixture, &cookie, "/people/tokens/ci/revoke", &format!("word={word}")).await.0, 303);
    assert_eq!(self::status(&fixture, shown, Method::GET, "/v1/whoami").await, 401);
    // Whose token is revoked is out, wherever they signed in with it.
    assert_eq!(self::status(&fixture, &admin, Method::DELETE, "/v1/tokens/ada").await, 200);
    assert_eq!(page(&fixture, &cookie, "/people").await.0, 401);
}
