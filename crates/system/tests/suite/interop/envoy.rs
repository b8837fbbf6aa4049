//! Envoy, mutual TLS by the agent's secret discovery: what falls is refused, what does not goes on.

use std::path::Path;
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use assay_clock::Clock;
use assay_identity::tls::{self, Trust, TrustSource};
use assay_identity::{Bundle, CrlSet, PrivateKey, SpiffeId, TrustDomain, csr};
use assay_testkit::edge::{Attachment, Message};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;

use super::packages;
use crate::agent::Device;
use crate::stage::{TRUST_DOMAIN, eventually, within};

#[tokio::test(flavor = "multi_thread")]
async fn envoy_refuses_who_fell_and_nobody_else() -> Result<()> {
    let Some(packages) = packages("Envoy") else { return Ok(()) };
    let device = Device::on_a_stage().await?;
    let enrolled = device.is("trusted").await?;
    let console = device.stage.console()?;
    let entitle = async |parent: &Value, name: &str, user: u32| {
        let selectors = json!([{ "type": "unix", "value": format!("uid:{user}") }]);
        let id = format!("spiffe://{TRUST_DOMAIN}/{name}");
        console
            .post("/v1/entries", &json!({ "spiffe_id": id, "parent": parent, "selectors": selectors }))
            .await
    };
    let parent = enrolled.get("id").context("id")?;
    for name in ["server", "client"] {
        entitle(parent, name, rustix::process::getuid().as_raw()).await?;
    }
    // Another device, with an identity for one of its workloads.
    let edge = device.stage.edge().await?;
    let (mut other, mut attachment) = device.stage.trusted(&edge, "other").await?;
    let entry = entitle(&json!(other.device_id), "other", 1).await?;
    let key = PrivateKey::generate()?;
    let entry = entry.get("id").and_then(Value::as_str).context("id")?;
    let request = other.workload_request_for(attachment.place(), entry, csr::request(&key)?)?;
    attachment.request_svid(request).await?;
    let identity = tls::certified_key(within(5, svid(&mut attachment)).await??, key.pkcs8())?;
    let bundle = std::fs::read(device.stage.at("data/bundle.pem"))?;
    let bundle = Bundle::from_pem(TrustDomain::parse(TRUST_DOMAIN)?, &bundle)?;
    let trust = TrustSource::new(Trust { bundle, crls: CrlSet::bootstrapping() });
    let is_server = Arc::new(|id: &SpiffeId| id.path() == "/server");
    let others = tls::client_config(Some(identity), trust, is_server, (&Clock::system()).into())?;
    let others = Arc::new(others);

    let folder = device.stage.at("");
    std::fs::write(folder.join("envoy.json"), configuration(&folder).to_string())?;
    let mut command = Command::new(packages.join("bin/envoy"));
    command.args(["--disable-hot-restart", "--concurrency", "1", "--log-level", "warn", "-c"]);
    let envoy = Proxy(command.arg(folder.join("envoy.json")).spawn().context("envoy")?);
    let (server, client) = (folder.join("server.sock"), folder.join("client.sock"));
    let through_both = async || greeting(UnixStream::connect(&client).await?).await;
    eventually(60, through_both).await.context("one Envoy to another, by SDS and by delta SDS")?;
    eventually(20, async || shown(&server, others.clone()).await)
        .await
        .context("the other device's workload")?;

    other.run_program("/opt/implant", b"unknown");
    attachment.changed().await?;
    let fell = Instant::now();
    let verdict = within(10, attachment.attest(&mut other)).await??;
    ensure!(verdict.state == "suspect", "{verdict:?}");
    eventually(20, async || match shown(&server, others.clone()).await {
        Ok(()) => anyhow::bail!("still believed"),
        Err(refused) => {
            ensure!(format!("{refused:#}").contains("CertificateRevoked"), "{refused:#}");
            Ok(())
        }
    })
    .await?;
    eprintln!("refused {} ms after it was measured", fell.elapsed().as_millis());
    eventually(5, through_both).await.context("those that did not fall")?;
    drop(envoy);
    Ok(())
}

/// Shows an identity to the proxy, and is greeted.
async fn shown(socket: &Path, identity: Arc<ClientConfig>) -> Result<()> {
    let stream = UnixStream::connect(socket).await?;
    greeting(TlsConnector::from(identity).connect("localhost".try_into()?, stream).await?).await
}

async fn greeting(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> Result<()> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n").await?;
    let mut said = Vec::new();
    while !said.ends_with(b"hello") {
        let read = tokio::time::timeout(Duration::from_secs(5), stream.read_buf(&mut said)).await??;
        ensure!(read > 0 && said.len() < 4096, "{}", String::from_utf8_lossy(&said));
    }
    Ok(())
}

async fn svid(attachment: &mut Attachment) -> Result<Vec<Vec<u8>>> {
    loop {
        if let Message::WorkloadSvid(answer) = attachment.next().await? {
            ensure!(answer.denied.is_empty(), "{}", answer.denied);
            return Ok(answer.svid);
        }
    }
}

struct Proxy(Child);

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One proxy that is both ends: what comes in at `client.sock` goes out to `server.sock` with mutual TLS.
fn configuration(folder: &Path) -> Value {
    let pipe = |name: &str| json!({ "pipe": { "path": folder.join(name) } });
    let listener = |name: &str, filter: Value, tls: Option<Value>| {
        let mut chain = json!({ "filters": [filter] });
        if let (Some(tls), Some(chain)) = (tls, chain.as_object_mut()) {
            chain.insert("transport_socket".into(), tls);
        }
        json!({ "name": name, "address": pipe(&format!("{name}.sock")), "filter_chains": [chain] })
    };
    // A filter that answers without a request would close before the handshake.
    let hello = json!({ "match": { "prefix": "/" }, "direct_response": {
        "status": 200, "body": { "inline_string": "hello" },
    } });
    let router = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let greet = json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "server",
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [hello] }] },
            "http_filters": [{ "name": "envoy.filters.http.router", "typed_config": { "@type": router } }],
        },
    });
    let pass_on = json!({
        "name": "envoy.filters.network.tcp_proxy",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "peer", "cluster": "peer",
        },
    });
    let cluster = |name: &str, socket: &str| {
        let endpoint = json!({ "endpoint": { "address": pipe(socket) } });
        json!({
            "name": name, "type": "STATIC", "connect_timeout": "5s",
            "load_assignment": { "cluster_name": name, "endpoints": [{ "lb_endpoints": [endpoint] }] },
        })
    };
    let mut peer = cluster("peer", "server.sock");
    peer["transport_socket"] = tls("UpstreamTlsContext", "client", "server", "DELTA_GRPC");
    let mut sds = cluster("agent", "workload.sock");
    sds["typed_extension_protocol_options"] = json!({
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": { "http2_protocol_options": {} },
        },
    });
    let server = tls("DownstreamTlsContext", "server", "", "GRPC");
    json!({
        "node": { "id": "test", "cluster": "test" },
        "static_resources": {
            "listeners": [listener("server", greet, Some(server)), listener("client", pass_on, None)],
            "clusters": [peer, sds],
        },
    })
}

/// Shows one identity, and believes those of the trust domain whose path begins so and that are not revoked.
fn tls(context: &str, own: &str, peers: &str, api_type: &str) -> Value {
    let own = format!("spiffe://{TRUST_DOMAIN}/{own}");
    let peers = format!("spiffe://{TRUST_DOMAIN}/{peers}");
    let secret = |name: &str| {
        let grpc = json!([{ "envoy_grpc": { "cluster_name": "agent" } }]);
        let source = json!({ "api_type": api_type, "transport_api_version": "V3", "grpc_services": grpc });
        json!({ "name": name, "sds_config": { "resource_api_version": "V3", "api_config_source": source } })
    };
    let names = json!([{ "san_type": "URI", "matcher": { "prefix": peers } }]);
    let mut config = json!({
        "@type": format!("type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.{context}"),
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [secret(&own)],
            "combined_validation_context": {
                "default_validation_context": { "match_typed_subject_alt_names": names },
                "validation_context_sds_secret_config": secret(&format!("spiffe://{TRUST_DOMAIN}")),
            },
        },
    });
    if context == "DownstreamTlsContext" {
        config["require_client_certificate"] = json!(true);
    }
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": config })
}
