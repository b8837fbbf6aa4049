//! Identities that hang on what a TPM holds: a real agent, a real (software) TPM, and a workload that watches its stream.

use anyhow::{Context, Result, ensure};
use assay_wire::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use assay_wire::workload::{X509svidRequest, X509svidResponse};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;
use tonic::{Request, Streaming};

use crate::agent::Device;
use crate::stage::{TRUST_DOMAIN, lists, serials, within};

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_a_pcr_that_moves_takes_the_identity_and_no_other() -> Result<()> {
    let device = Device::on_a_stage().await?;
    let enrolled = device.is("trusted").await?;
    let user = format!("uid:{}", rustix::process::getuid().as_raw());
    let mut selectors = vec![json!({ "type": "unix", "value": user })];
    let mut entitle = async |name: &str, condition: Option<String>| {
        selectors.extend(condition.map(|value| json!({ "type": "tpm", "value": value })));
        let id = format!("spiffe://{TRUST_DOMAIN}/{name}");
        let entry = json!({ "spiffe_id": id, "parent": enrolled.get("id"), "selectors": selectors });
        device.stage.console()?.post("/v1/entries", &entry).await.map(|_| id)
    };
    let plain = entitle("plain", None).await?;
    let sealed = entitle("sealed", Some(format!("pcr:15:{}", device.pcr(15)?))).await?;

    let mut stream = identities(&device).await?;
    // Entries of one second come in any order.
    let names = |message: &X509svidResponse| {
        let mut names: Vec<String> = message.svids.iter().map(|svid| svid.spiffe_id.clone()).collect();
        names.sort();
        names
    };
    let mut until = async |expected: &[&String], serial: Option<&str>| {
        within(20, async {
            loop {
                let message = stream.message().await?.context("the stream ended")?;
                let is_listed = |serial: &str| message.crl.iter().any(|crl| lists(crl, serial));
                if names(&message).iter().eq(expected.iter().copied()) && serial.is_none_or(is_listed) {
                    break anyhow::Ok(());
                }
            }
        })
        .await?
    };
    until(&[&plain, &sealed], None).await?;
    device.extend(15, b"another")?;
    let listed = async {
        let fallen = serials(&device.explain().await?).1;
        ensure!(fallen.len() == 1, "{fallen:?}");
        Ok(fallen.concat())
    };
    until(&[&plain], None).await?;
    let serial = listed.await?;
    if !device.stage.console()?.bytes("/crl").await.is_ok_and(|crl| lists(&crl, &serial)) {
        anyhow::bail!("{serial} is not on the list that is served");
    }
    let trusted = device.is("trusted").await?;
    ensure!(trusted.get("id") == enrolled.get("id"));
    Ok(())
}

/// The stream of a workload that runs as this user.
async fn identities(device: &Device) -> Result<Streaming<X509svidResponse>> {
    let socket = device.stage.at("workload.sock");
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { std::io::Result::Ok(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let channel = Endpoint::from_static("http://localhost").connect_with_connector(connector).await?;
    let mut request = Request::new(X509svidRequest {});
    request.metadata_mut().insert("workload.spiffe.io", "true".parse()?);
    Ok(SpiffeWorkloadApiClient::new(channel).fetch_x509svid(request).await?.into_inner())
}
