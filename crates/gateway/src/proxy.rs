//! One request: route, count, pass on, answer.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use assay_admission::{ADDRESS_HEADER, IDENTITY_HEADER};
use assay_identity::{SpiffeId, VerifiedPeer};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::body::{Answer, AnswerBody, Exceeded, RequestBody};
use crate::config::Config;
use crate::credentials::CredentialSource;
use crate::json::{self, Served};
use crate::limits::Limiter;
use crate::refusal::Refusal;
use crate::route::{self, Route};
use crate::servers::{SendError, Servers};
use crate::status;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: IpAddr,
    /// The SVID shown, if one was.
    pub(crate) shown: Option<VerifiedPeer>,
}

impl Peer {
    /// Whom the SVID names that was shown, for as long as it is not revoked.
    pub(crate) fn id(&self, credentials: &CredentialSource) -> Option<SpiffeId> {
        let lists = credentials.trust().current();
        let stands = |shown: &&VerifiedPeer| !lists.crls.names(shown.serial());
        self.shown.as_ref().filter(stands).map(|shown| shown.spiffe_id().clone())
    }

    /// Whom it is counted against, with the identity that stands.
    pub(crate) fn counted(&self, id: Option<&SpiffeId>) -> assay_admission::Peer {
        match id {
            Some(id) => assay_admission::Peer::Known(id.clone()),
            None => assay_admission::Peer::at(self.address),
        }
    }
}

/// Everything a request needs, shared by all connections.
pub(crate) struct Proxy {
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) servers: Arc<Servers>,
    pub(crate) credentials: Arc<CredentialSource>,
    pub(crate) counters: Counters,
    pub(crate) started: Instant,
    /// The JSON protocol, if it is served.
    pub(crate) json: Option<Served>,
    request_bytes_max: u64,
    request_time: Duration,
}

/// What happened since the start.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) passed: AtomicU64,
    pub(crate) refused_rate: AtomicU64,
    pub(crate) refused_size: AtomicU64,
    pub(crate) refused_time: AtomicU64,
    pub(crate) refused_path: AtomicU64,
    pub(crate) unavailable: AtomicU64,
}

impl Proxy {
    pub(crate) fn new(
        config: &Config,
        limiter: Arc<Limiter>,
        servers: Arc<Servers>,
        credentials: Arc<CredentialSource>,
    ) -> Self {
        Proxy {
            limiter,
            servers,
            counters: Counters::default(),
            json: config.json_protocol.clone().map(Served::new),
            started: credentials.clock().instant(),
            credentials,
            request_bytes_max: config.limits.request_bytes_max,
            request_time: Duration::from_secs(config.limits.request_seconds),
        }
    }

    /// Answers one request. `held` lives as long as the answer.
    pub(crate) async fn answer<H: Send + Unpin + 'static>(
        &self,
        peer: &Peer,
        request: Request<Incoming>,
        held: H,
    ) -> Response<AnswerBody> {
        if let Some(served) = self.json.as_ref().filter(|_| !is_grpc(&request)) {
            return self.answer_json(served, peer, request, held).await;
        }
        let grpc = is_grpc(&request);
        match self.route(peer, request, grpc, held).await {
            Ok(response) => response,
            Err(refusal) => {
                self.counters.of(refusal).fetch_add(1, Ordering::Relaxed);
                tracing::debug!(address = %peer.address, reason = refusal.name(), "request refused");
                refusal.answer(grpc)
            }
        }
    }

    /// The same where the JSON protocol is served: whoever does not speak gRPC is answered as the original does.
    async fn answer_json<H: Send + Unpin + 'static>(
        &self,
        served: &Served,
        peer: &Peer,
        request: Request<Incoming>,
        held: H,
    ) -> Response<AnswerBody> {
        let passed = match json::find(request.uri().path()) {
            Some((method, route)) => {
                let asked = (&method, request.method(), request.headers());
                if let Err(unfit) = served.check(peer.address, asked, self.uptime().as_secs()) {
                    return unfit.answer();
                }
                let id = peer.id(&self.credentials);
                self.pass_on(route, (peer.address, id), request, held).await
            }
            None => self.route(peer, request, false, held).await,
        };
        let mut response = passed.unwrap_or_else(|refusal| {
            self.counters.of(refusal).fetch_add(1, Ordering::Relaxed);
            json::refused(refusal)
        });
        *response.version_mut() = http::Version::default();
        response
    }

    /// Since the gateway started.
    pub(crate) fn uptime(&self) -> Duration {
        self.credentials.clock().instant() - self.started
    }

    async fn route<H: Send + Unpin + 'static>(
        &self,
        peer: &Peer,
        request: Request<Incoming>,
        grpc: bool,
        held: H,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let id = peer.id(&self.credentials);
        self.limiter.request(&peer.counted(id.as_ref())).map_err(Refusal::TooOften)?;
        if request.method() == Method::GET
            && let Some(page) = status::page(self, peer, request.uri().path(), request.headers())
        {
            return Ok(page);
        }
        match route::find(request.uri().path()) {
            Some(route) if grpc && request.method() == Method::POST => {
                self.pass_on(route, (peer.address, id), request, held).await
            }
            _ => Err(Refusal::Unknown),
        }
    }

    async fn pass_on<H: Send + Unpin + 'static>(
        &self,
        route: Route,
        peer: (IpAddr, Option<SpiffeId>),
        request: Request<Incoming>,
        held: H,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let bytes_max = (!route.standing).then_some(self.request_bytes_max);
        if bytes_max.is_some_and(|max| request.body().size_hint().lower() > max) {
            return Err(Refusal::TooLarge);
        }
        let deadline = (!route.standing).then(|| Box::pin(tokio::time::sleep(self.request_time)));
        let exceeded = Exceeded::default();
        let sending = self.servers.send(towards_server(request, &peer, route, bytes_max, exceeded.clone()));
        let (sent, deadline) = match deadline {
            None => (sending.await, None),
            Some(mut deadline) => tokio::select! {
                sent = sending => (sent, Some(deadline)),
                () = &mut deadline => return Err(Refusal::TooLong),
            },
        };
        let (response, lease) = sent.map_err(|error| {
            if exceeded.get() {
                return Refusal::TooLarge;
            }
            if let SendError::Broken(error) = &error {
                tracing::debug!(error = error as &dyn std::error::Error, "server did not answer");
            }
            Refusal::Unavailable
        })?;
        self.counters.passed.fetch_add(1, Ordering::Relaxed);
        Ok(response.map(|body| Answer::new(body, exceeded, deadline, (lease, held)).boxed_unsync()))
    }
}

impl Counters {
    /// How many requests came to what.
    pub(crate) fn by_outcome(&self) -> [(&'static str, u64); 6] {
        [
            ("passed", &self.passed),
            ("too_many", &self.refused_rate),
            ("too_large", &self.refused_size),
            ("timed_out", &self.refused_time),
            ("unknown_path", &self.refused_path),
            ("unavailable", &self.unavailable),
        ]
        .map(|(outcome, counter)| (outcome, counter.load(Ordering::Relaxed)))
    }

    fn of(&self, refusal: Refusal) -> &AtomicU64 {
        match refusal {
            Refusal::Unknown => &self.refused_path,
            Refusal::TooOften(_) => &self.refused_rate,
            Refusal::TooLarge => &self.refused_size,
            Refusal::TooLong => &self.refused_time,
            Refusal::Unavailable => &self.unavailable,
        }
    }
}

fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get("content-type");
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// The request as the server gets it: same headers but those that say who asks, and our own authority.
fn towards_server(
    request: Request<Incoming>,
    peer: &(IpAddr, Option<SpiffeId>),
    route: Route,
    bytes_max: Option<u64>,
    exceeded: Exceeded,
) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTPS);
    uri.authority = Some(Authority::from_static("server.assay.internal"));
    uri.path_and_query = Some(target(route, parts.uri.query()));
    parts.uri = Uri::from_parts(uri).unwrap_or_default();
    parts.headers.remove("host");
    say_who_asks(&mut parts.headers, peer);
    Request::from_parts(parts, RequestBody::new(body, bytes_max, exceeded))
}

/// The route's path, with what is asked behind it.
fn target(route: Route, query: Option<&str>) -> PathAndQuery {
    let with_query = query.and_then(|query| format!("{}?{query}", route.path).parse().ok());
    with_query.unwrap_or_else(|| PathAndQuery::from_static(route.path))
}

/// The server shares its places out by these headers, so that nobody's own go through.
fn say_who_asks(headers: &mut HeaderMap, (address, id): &(IpAddr, Option<SpiffeId>)) {
    headers.remove(IDENTITY_HEADER);
    headers.remove(ADDRESS_HEADER);
    if let Ok(address) = HeaderValue::try_from(address.to_string()) {
        headers.insert(ADDRESS_HEADER, address);
    }
    if let Some(id) = id.as_ref().and_then(|id| HeaderValue::try_from(id.as_str()).ok()) {
        headers.insert(IDENTITY_HEADER, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_7_a_device_cannot_say_itself_who_it_is() {
        let mut headers = HeaderMap::new();
        for _ in 0..2 {
            headers.append(ADDRESS_HEADER, HeaderValue::from_static("203.0.113.9"));
            headers.append(IDENTITY_HEADER, HeaderValue::from_static("spiffe://example.org/other"));
        }
        let address = IpAddr::from([192, 0, 2, 1]);
        say_who_asks(&mut headers, &(address, None));
        assert_eq!(headers.get_all(ADDRESS_HEADER).iter().collect::<Vec<_>>(), ["192.0.2.1"]);
        assert!(!headers.contains_key(IDENTITY_HEADER));

        let id = SpiffeId::parse("spiffe://example.org/device").unwrap();
        say_who_asks(&mut headers, &(address, Some(id)));
        let told: Vec<_> = headers.get_all(IDENTITY_HEADER).iter().collect();
        assert_eq!(told, ["spiffe://example.org/device"]);
    }
}
