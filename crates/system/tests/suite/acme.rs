//! The certificate of a device's AK, by the agent and a TPM that are real, and by other people's X.509.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use assay_agent::ak_certificate::{AkFile, FILE};
use assay_agent::state_dir::StateDir;
use serde_json::Value;

use crate::agent::Device;
use crate::stage::eventually;

/// What the agent keeps in its folder, once it is there.
pub async fn ak_file(device: &Device) -> Result<AkFile> {
    let state = StateDir::look_into(&device.stage.at("agent"));
    eventually(30, async || Ok(AkFile::read(&state, std::time::SystemTime::now())?)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_the_certificate_of_an_ak_verifies_by_openssl_and_falls_with_its_device() -> Result<()> {
    let url = "http://crl.example.org/ak/crl";
    let mut device = Device::prepared_with(&format!("[ak_certificates]\ncrl_url = {url:?}\n")).await?;
    device.start_agent()?;
    let trusted = device.is("trusted").await?;
    let file = ak_file(&device).await?;
    let id = trusted.get("id").and_then(Value::as_str).context("an id")?;
    ensure!(id.ends_with(&file.permanent_identifier), "{id} {file}");
    ensure!(file.manufacturer == "id:00001014" && file.model == "swtpm", "{file}");

    let folder = device.stage.folder.path().join("ak");
    std::fs::create_dir_all(&folder)?;
    let fetch = async || -> Result<()> {
        std::fs::write(folder.join("ca.pem"), device.stage.console()?.bytes("/ak/ca.pem").await?)?;
        std::fs::write(folder.join("list.der"), device.stage.console()?.bytes("/ak/crl").await?)?;
        openssl(&folder, "crl -inform DER -in list.der -out list.pem").map(drop)
    };
    fetch().await?;
    std::fs::write(folder.join("ak.pem"), &file.pem)?;
    let shown = openssl(&folder, "x509 -in ak.pem -noout -text -certopt ext_parse")?;
    for wanted in [
        "X509v3 Subject Alternative Name: critical",
        "2.23.133.2.1",
        "X509v3 Basic Constraints: critical\n                CA:FALSE",
        "2.23.133.8.3",
        "X509v3 Subject Key Identifier",
        "X509v3 Authority Key Identifier",
        url,
    ] {
        ensure!(shown.contains(wanted), "{wanted}: {shown}");
    }
    ensure!(openssl(&folder, "x509 -in ak.pem -noout -subject")?.trim() == "subject=", "{shown}");
    let verify = "verify -x509_strict -crl_check -CAfile ca.pem -CRLfile list.pem ak.pem";
    ensure!(openssl(&folder, verify)?.contains("ak.pem: OK"), "verify");

    device.run("/opt/implant")?;
    device.is("suspect").await?;
    fetch().await?;
    let refused = openssl(&folder, verify).err().context("openssl believes it")?;
    ensure!(format!("{refused:#}").contains("certificate revoked"), "{refused:#}");
    eventually(10, async || {
        ensure!(!device.stage.at("agent").join(FILE).exists(), "the file is still there");
        Ok(())
    })
    .await?;

    device.stage.console()?.approve("edge").await?;
    device.is("trusted").await?;
    ensure!(ak_file(&device).await?.serial != file.serial, "what fell does not come back");
    Ok(())
}

pub fn openssl(folder: &Path, arguments: &str) -> Result<String> {
    let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&said));
    Ok(String::from_utf8_lossy(&said).into_owned())
}
