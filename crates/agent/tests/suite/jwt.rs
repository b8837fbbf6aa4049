//! Tokens over the Workload API: asked for once, handed to whom they are for, gone with the rest.

use std::time::{Duration, SystemTime};

use assay_agent::ask::{Ask, NoToken};
use assay_agent::holding::{Granted, Grants, Holding, JwtKeys, Remembered, Token, TokenError};
use assay_identity::CrlSet;
use assay_identity::jws::JwsError;
use assay_identity::jwt_svid::JwtSvidError;
use assay_identity::tls::{Trust, TrustSource};
use assay_wire::workload::{JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest};
use tokio::sync::watch;
use tonic::Code;

use crate::authority::{Authority, trust_domain};
use crate::workload_api::{Api, connect, holding, mine, uid, with_header, workload};

fn request(audience: &[&str], spiffe_id: &str) -> JwtsvidRequest {
    JwtsvidRequest {
        audience: audience.iter().map(|one| (*one).to_owned()).collect(),
        spiffe_id: spiffe_id.into(),
    }
}

fn token(compact: &str, audience: &[String]) -> Token {
    let later = SystemTime::now() + Duration::from_secs(60);
    Token { audience: audience.into(), compact: compact.into(), renew_at: later, not_after: later }
}

#[tokio::test]
async fn a_caller_gets_tokens_of_its_own_identities_alone() {
    let mut api = Api::serve();
    let mut first = workload("web", &mine(), None);
    first.tokens = vec![token("kept", &["db".to_owned()])];
    let others = workload("db", "uid:4294967294", None);
    api.held.send_replace(holding(vec![first, others, workload("api", &format!("uid:{}", uid()), None)]));
    let mut client = connect(&api.socket).await;

    // One is there, the other is asked for.
    let asked = tokio::spawn(async move {
        let Ask { entry_id, audience, answer } = api.asks.recv().await.unwrap();
        answer.send(Ok(token("asked", &audience))).unwrap();
        assert_eq!(entry_id, "api");
        api
    });
    let answer = client.fetch_jwtsvid(with_header(request(&["db"], ""))).await.unwrap().into_inner();
    let got: Vec<_> = answer.svids.iter().map(|one| (one.spiffe_id.as_str(), one.svid.as_str())).collect();
    assert_eq!(got, [("spiffe://example.org/web", "kept"), ("spiffe://example.org/api", "asked")]);
    let mut api = asked.await.unwrap();

    let one = request(&["db"], "spiffe://example.org/web");
    let answer = client.fetch_jwtsvid(with_header(one.clone())).await.unwrap().into_inner();
    assert_eq!((answer.svids.len(), answer.svids[0].hint.as_str()), (1, "web"));
    for (wrong, code) in [
        (request(&["db"], "spiffe://example.org/db"), Code::PermissionDenied),
        (request(&[], ""), Code::InvalidArgument),
        (request(&["db", ""], ""), Code::InvalidArgument),
        (request(&["a"; 17], ""), Code::InvalidArgument),
        (request(&["d\nb"], ""), Code::InvalidArgument),
        (request(&[&"a".repeat(2000), &"b".repeat(2000)], ""), Code::InvalidArgument),
    ] {
        assert_eq!(client.fetch_jwtsvid(with_header(wrong)).await.unwrap_err().code(), code);
    }
    let no_header = client.fetch_jwtsvid(one.clone()).await.unwrap_err();
    assert_eq!(no_header.code(), Code::InvalidArgument);

    // What the server says, and that it says nothing.
    for (said, code) in [(NoToken::Denied, Code::PermissionDenied), (NoToken::Unavailable, Code::Unavailable)]
    {
        let mut client = client.clone();
        let refused = tokio::spawn(async move {
            let other = request(&["cache"], "spiffe://example.org/web");
            client.fetch_jwtsvid(with_header(other)).await.unwrap_err().code()
        });
        api.asks.recv().await.unwrap().answer.send(Err(said)).unwrap();
        assert_eq!(refused.await.unwrap(), code);
    }
    api.held.send_replace(Holding::withdrawn("contraindicated".into(), Vec::new()));
    let gone = client.fetch_jwtsvid(with_header(one)).await.unwrap_err();
    assert_eq!(gone.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn others_tokens_are_validated_with_the_keys_of_the_trust_domain() {
    let (api, authority) = (Api::serve(), Authority::new());
    let jwt_keys = JwtKeys::parse(&authority.jwt_keys()).unwrap();
    let workloads = vec![workload("web", &mine(), None)];
    api.held.send_replace(Holding { jwt_keys, ..holding(workloads) });
    let mut client = connect(&api.socket).await;
    let mut stream = client.fetch_jwt_bundles(with_header(JwtBundlesRequest {})).await.unwrap().into_inner();
    let bundles = stream.message().await.unwrap().unwrap().bundles;
    assert_eq!(bundles["spiffe://example.org"], authority.jwt_keys());

    let validate = |audience: &str, svid: String| {
        with_header(ValidateJwtsvidRequest { audience: audience.into(), svid })
    };
    let good = authority.token("/db", &["web", "api"], 60);
    let valid = client.validate_jwtsvid(validate("api", good.clone())).await.unwrap().into_inner();
    assert_eq!(valid.spiffe_id, "spiffe://example.org/db");
    let claims = valid.claims.unwrap().fields;
    assert_eq!(claims.keys().map(String::as_str).collect::<Vec<_>>(), ["aud", "exp", "iat", "sub"]);
    let header = data_encoding::BASE64URL_NOPAD.encode(br#"{"alg":"none"}"#);
    for (audience, bad) in [
        ("other", good.clone()),
        ("api", Authority::new().token("/db", &["api"], 60)),
        ("api", authority.token("/db", &["api"], 0)),
        ("api", format!("{header}.{}.", good.split('.').nth(1).unwrap())),
        ("api", String::new()),
        ("", good.clone()),
    ] {
        let refused = client.validate_jwtsvid(validate(audience, bad)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
    api.held.send_replace(holding(vec![workload("db", "uid:4294967294", None)]));
    let stranger = client.validate_jwtsvid(validate("api", good)).await.unwrap_err();
    assert_eq!(stranger.code(), Code::PermissionDenied);
}

#[test]
fn only_a_token_for_its_identity_and_audience_is_kept_and_no_longer_than_it_stands() {
    let authority = Authority::new();
    let trust = TrustSource::new(Trust { bundle: authority.bundle(), crls: CrlSet::bootstrapping() });
    let (held, _) = watch::channel(Holding::default());
    let mut grants = Grants::new(held, trust, trust_domain(), Remembered::default());
    let now = SystemTime::now();
    let (signed, announced) = authority.announced(&[], 1);
    grants.announced(&signed, announced, now).unwrap();
    let entry = (*workload("web", "uid:0", None).entry).clone();
    grants.apply(Granted { entries: vec![entry.clone()], ..Granted::default() }, now);
    let audience = ["db".to_owned()];
    let mut take = |token: &str| grants.token("web", &audience, token, now).map(|token| token.compact);

    let good = authority.token("/web", &["db"], 60);
    assert_eq!(take(&good).unwrap().as_ref(), good);
    assert_eq!(take(&authority.token("/api", &["db"], 60)).unwrap_err(), TokenError::Other);
    assert_eq!(take(&authority.token("/web", &["db", "admin"], 60)).unwrap_err(), TokenError::Other);
    assert_eq!(take(&authority.token("/web", &["db"], 0)).unwrap_err(), TokenError::Jwt(JwtSvidError::Ended));
    let others = Authority::new().token("/web", &["db"], 60);
    let unknown = TokenError::Jwt(JwtSvidError::Signature(JwsError::UnknownKey));
    assert_eq!(take(&others).unwrap_err(), unknown);
    assert_eq!(grants.token("gone", &audience, &good, now).unwrap_err(), TokenError::NoEntry);
    assert!(!format!("{:?}", grants.held().borrow()).contains(&good), "a token is nothing for a log");

    // Kept for the audience, the newest for each, and few of them.
    let kept = |grants: &Grants| grants.held().borrow().workloads[0].tokens.len();
    assert_eq!(kept(&grants), 1);
    for other in 0..100 {
        let name = format!("other-{other}");
        let token = authority.token("/web", &[&name], 60);
        grants.token("web", &[name], &token, now).unwrap();
    }
    assert_eq!(kept(&grants), 64);
    // The same entry again keeps them; their end, and a withdrawal, do not.
    grants.apply(Granted { entries: vec![entry], ..Granted::default() }, now);
    assert_eq!(kept(&grants), 64);
    grants.held().send_modify(|holding| assert!(!holding.expire(now + Duration::from_secs(61))));
    assert_eq!(kept(&grants), 0);
    grants.token("web", &audience, &good, now).unwrap();
    grants.withdraw("so".into());
    assert!(grants.held().borrow().workloads.is_empty());
    assert!(JwtKeys::parse(b"{}").is_err());
}
