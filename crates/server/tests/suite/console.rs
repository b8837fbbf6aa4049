//! The console: its surface, who may call what, and the page.

use std::path::Path;

use assay_identity::Crl;
use hyper::Method;
use serde_json::{Value, json};

use assay_server::TrustApi;
use assay_testkit::System;
use assay_testkit::edge::Edge;

use crate::fixture::{Fixture, header_text};

/// `ASSAY_SURFACE=write cargo test` writes the file anew.
#[test]
fn the_routes_are_the_ones_in_the_surface_file() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("surface/routes.txt");
    let surface = assay_server::surface();
    if std::env::var_os("ASSAY_SURFACE").is_some_and(|wish| wish == "write") {
        std::fs::write(&file, &surface).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap();
    assert_eq!(surface, expected, "say ASSAY_SURFACE=write if the change is meant");
}

#[tokio::test]
async fn each_route_is_open_to_whom_the_surface_says_and_to_nobody_else() {
    let fixture = Fixture::with(|config| config.trust_api = Some(TrustApi::default())).await;
    for line in assay_server::surface().lines() {
        // Those of another address are for whoever reaches it.
        if line.starts_with("exporter") {
            continue;
        }
        let [who, method, path, ..] = line.split_whitespace().collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let path = path.replace("{device}", "press-1").replace("{entry}", "x").replace("{name}", "base");
        let path = path.replace("{result}", "1").replace("{id}", "0");
        let method: Method = method.parse().unwrap();
        for headers in
            [vec![], vec![("authorization", "Bearer wrong")], vec![("cookie", "__Host-assay=guess")]]
        {
            let answer = fixture.call(method.clone(), &path, &headers, String::new()).await;
            let closed = answer.status() == 401;
            // Signing in without the token is refused too, by the page itself.
            assert_eq!(closed, who != "anyone" || path == "/sign-in", "{line}: {}", answer.status());
        }
    }
}

#[tokio::test]
async fn whoever_comes_without_a_gateways_svid_does_not_reach_the_edge() {
    let fixture = Fixture::start().await;
    let nobody = Edge::connect(&fixture.door_showing(None)).await;
    let refused = match nobody {
        Err(_) => true,
        Ok(edge) => edge.attach_as("x").await.is_err(),
    };
    assert!(refused);
    // A device's SVID is none of a gateway's.
    let edge = fixture.edge().await;
    let (device, _stream, grants) = fixture.trusted_device(&edge, "press-1", "").await;
    let key = device.device_key.pkcs10_key().serialize_der();
    let door = fixture.door_showing(Some((grants.device_svid, key)));
    let refused = match Edge::connect(&door).await {
        Err(_) => true,
        Ok(edge) => edge.attach(&device).await.is_err(),
    };
    assert!(refused);
}

#[tokio::test]
async fn year_12_every_family_is_there_from_the_start_in_the_format_that_was_asked_for() {
    let fixture = Fixture::start().await;
    let metrics = async |accept: &str| {
        let answer = fixture.call(Method::GET, "/metrics", &[("accept", accept)], String::new()).await;
        let content_type = header_text(answer.headers(), "content-type").to_owned();
        (content_type, String::from_utf8(answer.body().to_vec()).unwrap())
    };
    let (content_type, text) = metrics("text/plain").await;
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    for series in [
        "assay_enrollments_total 0",
        "assay_attestations_total{tier=\"affirming\"} 0",
        "assay_attestations_total{tier=\"contraindicated\"} 0",
        "assay_telemetry_batches_total{accepted=\"false\"} 0",
        "assay_devices{status=\"revoked\"} 0",
        "assay_concerns{concern=\"certificate\"} 0",
        "assay_security_refusals_total{cause=\"operator-token\"} 0",
        "assay_security_refusals_total{cause=\"evidence\"} 0",
        "assay_devices_waiting 0",
        "assay_device_clocks_off 0",
        "assay_device_clock_furthest_seconds 0",
        "assay_attestation_seconds_count 0",
        "assay_svid_seconds_bucket{le=\"+Inf\"} 0",
        "# TYPE assay_faults_total counter",
    ] {
        assert!(text.lines().any(|line| line == series), "{series}\n{text}");
    }
    assert!(text.contains("assay_storage{what=\"telemetry\",unit=\"bytes\"} ") && !text.contains("# EOF"));
    let (content_type, open) = metrics("application/openmetrics-text;q=0.9, text/plain;q=0.1").await;
    assert!(content_type.starts_with("application/openmetrics-text"), "{content_type}");
    assert!(open.contains("# TYPE assay_faults counter") && open.ends_with("# EOF\n"), "{open}");
    // The certificates that everything rests on, from the first look on.
    for _ in 0..200 {
        let (_, text) = metrics("*/*").await;
        let ends =
            |of: &str| text.contains(&format!("assay_certificate_end_seconds{{certificate=\"{of}\"}} "));
        let list_stands = text.contains("assay_revocation_list_end_seconds 1")
            || text.contains("assay_revocation_list_end_seconds 2");
        if list_stands && ["root", "issuing", "server", "statements"].into_iter().all(ends) {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("no life of a certificate in the metrics");
}

#[tokio::test]
async fn what_is_public_is_there_for_everyone() {
    let fixture = Fixture::start().await;
    let health = fixture.call(Method::GET, "/health", &[], String::new()).await;
    let health: Value = serde_json::from_slice(health.body()).unwrap();
    assert_eq!(health["status"], "ok");
    let crl = fixture.call(Method::GET, "/crl", &[], String::new()).await;
    assert_eq!(header_text(crl.headers(), "content-type"), "application/pkix-crl");
    Crl::parse(crl.body()).unwrap();
    let bundle = fixture.call(Method::GET, "/bundle", &[], String::new()).await;
    assert_eq!(bundle.body(), &fixture.bundle().to_pem());
    let metrics = fixture.call(Method::GET, "/metrics", &[], String::new()).await;
    assert!(std::str::from_utf8(metrics.body()).unwrap().contains("assay_devices_attached 0"));
    let status = fixture.get("/trust/status").await;
    assert_eq!((&status["trust_domain"], &status["policy"]), (&json!("test.assay.example"), &Value::Null));
    let nothing = fixture.call(Method::GET, "/nothing", &[], String::new()).await;
    assert_eq!(nothing.status(), 404);
    let addresses: Value =
        serde_json::from_slice(&std::fs::read(fixture.data().join("addresses.json")).unwrap()).unwrap();
    assert_eq!(addresses["console"], fixture.running().addresses().console.to_string());
}

#[tokio::test]
async fn the_page_opens_with_the_token_and_runs_nothing_foreign() {
    let fixture = Fixture::start().await;
    let edge = fixture.edge().await;
    let mut device = fixture.known_device(&edge, "press-1", "").await;
    let door = fixture.call(Method::GET, "/", &[], String::new()).await;
    let html = std::str::from_utf8(door.body()).unwrap().to_owned();
    assert!(html.contains("Sign in") && !html.contains("press-1"));
    let policy = header_text(door.headers(), "content-security-policy");
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"));
    assert!(!html.contains("<style") && !html.contains("onclick"), "nothing inline");

    let wrong = fixture.call(Method::POST, "/sign-in", &[], "token=wrong".to_owned()).await;
    assert_eq!(wrong.status(), 401);
    let right = fixture.call(Method::POST, "/sign-in", &[], format!("token={}", fixture.token())).await;
    assert_eq!((right.status().as_u16(), header_text(right.headers(), "location")), (303, "/"));
    let cookie = header_text(right.headers(), "set-cookie").to_owned();
    assert!(cookie.contains("HttpOnly") && cookie.contains("Secure") && cookie.contains("SameSite=Strict"));
    let cookie = cookie.split(';').next().unwrap();
    for path in ["/", "/devices"] {
        let page = fixture.call(Method::GET, path, &[("cookie", cookie)], String::new()).await;
        assert!(std::str::from_utf8(page.body()).unwrap().contains("press-1"), "{path}");
    }
    // What the policy covers, and of a device that fell each finding and what would accept it.
    device.boot(&System { command_line: "ro init=/bin/sh".into(), ..System::default() });
    let mut stream = fixture.edge().await.attach(&device).await.unwrap();
    assert_eq!(stream.attest(&mut device).await.unwrap().state, "suspect");
    let page = fixture.call(Method::GET, "/", &[("cookie", cookie)], String::new()).await;
    let page = std::str::from_utf8(page.body()).unwrap();
    for shown in ["base v1 covers", "command line", "pinned", "assay device approve press-1 --boot", "PCR 8"]
    {
        assert!(page.contains(shown), "{shown}: {page}");
    }
    // The cookie looks and changes nothing.
    let headers = [("cookie", cookie)];
    let revoke = fixture.call(Method::POST, "/v1/devices/press-1/revoke", &headers, "{}".to_owned()).await;
    assert_eq!(revoke.status(), 401);
    fixture.call(Method::POST, "/sign-out", &headers, String::new()).await;
    for path in ["/policies", "/events"] {
        let closed = fixture.call(Method::GET, path, &headers, String::new()).await;
        assert_eq!(closed.status(), 401, "{path}");
    }
}

#[tokio::test]
async fn a_policy_that_does_not_read_is_refused_with_its_line() {
    let fixture = Fixture::start().await;
    let bearer = format!("Bearer {}", fixture.token());
    let headers = [("authorization", bearer.as_str())];
    let text = "name = \"base\"\nversion = 1\npcrs = 3\n".to_owned();
    let answer = fixture.call(Method::PUT, "/v1/policy", &headers, text).await;
    assert_eq!(answer.status(), 400);
    let error: Value = serde_json::from_slice(answer.body()).unwrap();
    assert!(error["error"]["message"].as_str().unwrap().starts_with("line 3"), "{error}");
    assert_eq!(fixture.get("/v1/policy").await["name"], Value::Null);
}

#[tokio::test]
async fn a_second_server_keeps_out_of_the_data_folder() {
    let fixture = Fixture::start().await;
    let config = assay_server::Config { data: fixture.data().to_owned(), ..Default::default() };
    let error = assay_server::Running::start(config).await.unwrap_err().to_string();
    assert!(error.contains("another server"), "{error}");
}

#[tokio::test]
async fn year_11_a_refusal_over_http2_arrives_however_much_was_sent() {
    let fixture = Fixture::start().await;
    let long = vec![b'#'; 8 << 20];
    let token = fixture.token();
    let call = |path, bearer| fixture.call_http2(Method::PUT, path, bearer, long.clone());
    // Some clients take a reset of the stream before the end of their body for the whole answer.
    assert_eq!(call("/v1/policy", "nobody").await, (401, long.len()));
    assert_eq!(call("/v1/policy?selector=paris", &token).await, (400, long.len()));
    assert_eq!(call("/v1/nothing", &token).await, (404, long.len()));
}
