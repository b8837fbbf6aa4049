//! A device enrols with step-ca, as its module has it, by the certificate of its AK; and OpenSSL uses the key that came of it.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};
use assay_agent::acme::{AcmeError, Wanted, enroll};
use assay_agent::state_dir::StateDir;
use assay_clock::Clock;
use data_encoding::BASE64;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use serde_json::json;

use super::packages;
use crate::acme::{ak_file, openssl};
use crate::agent::Device;
use crate::stage::{eventually, within};

/// A step-ca that ends with the test.
struct StepCa {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Drop for StepCa {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}

impl StepCa {
    /// Starts one that enrols by certificates of AKs below this root, PEM.
    async fn start(program: &Path, folder: PathBuf, attestation_root: &[u8]) -> Result<StepCa> {
        std::fs::create_dir_all(&folder)?;
        let (root, issuer) = authority("root", None)?;
        let key = KeyPair::generate()?;
        let (intermediate, _) = authority("intermediate", Some((&issuer, &key)))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        std::fs::write(folder.join("root.pem"), root)?;
        std::fs::write(folder.join("intermediate.pem"), intermediate)?;
        std::fs::write(folder.join("intermediate.key"), key.serialize_pem())?;
        let at = |name: &str| folder.join(name).display().to_string();
        let config = json!({
            "root": at("root.pem"), "crt": at("intermediate.pem"), "key": at("intermediate.key"),
            "address": format!("127.0.0.1:{port}"), "dnsNames": ["localhost", "127.0.0.1"],
            "db": { "type": "badgerv2", "dataSource": at("db") },
            "authority": { "provisioners": [{
                "type": "ACME", "name": "devices", "challenges": ["device-attest-01"],
                "attestationFormats": ["tpm"], "attestationRoots": BASE64.encode(attestation_root),
            }]},
        });
        std::fs::write(folder.join("ca.json"), config.to_string())?;
        let log = File::create(folder.join("log"))?;
        let mut command = Command::new(program);
        command.arg(at("ca.json")).env("STEPPATH", &folder).stdin(Stdio::null());
        let process = command.stdout(log.try_clone()?).stderr(log).spawn()?;
        let ca = StepCa { process, folder, port };
        eventually(30, async || {
            std::net::TcpStream::connect(("127.0.0.1", port)).with_context(|| ca.said()).map(drop)
        })
        .await?;
        Ok(ca)
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            directory: format!("https://127.0.0.1:{}/acme/devices/directory", self.port),
            ca: self.folder.join("root.pem"),
            agree: true,
            eab_kid: None,
            eab_key_file: None,
            certificate: self.folder.join("device.pem"),
            key: self.folder.join("device.tpm"),
        }
    }
}

/// The certificate of an authority, PEM, and what signs with it: its own root, or below an issuer for a key.
fn authority(
    name: &str,
    below: Option<(&Issuer<'static, KeyPair>, &KeyPair)>,
) -> Result<(String, Issuer<'static, KeyPair>)> {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, name);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(u8::from(below.is_none())));
    parameters.use_authority_key_identifier_extension = true;
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let pem = match below {
        None => parameters.self_signed(&key)?.pem(),
        Some((issuer, key)) => parameters.signed_by(key, issuer)?.pem(),
    };
    Ok((pem, Issuer::new(parameters, key)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_enrols_with_step_ca_by_the_certificate_of_its_ak() -> Result<()> {
    let Some(packages) = packages("step-ca") else { return Ok(()) };
    let program = packages.join("bin/step-ca");
    if !program.exists() {
        eprintln!("left out: step-ca; it takes Go to build it");
        return Ok(());
    }
    let mut device = Device::prepared_with("[ak_certificates]\n").await?;
    // step-ca verifies what RSA keys sign, and no other.
    let file = device.stage.at("agent.toml");
    let settings = std::fs::read_to_string(&file)?;
    std::fs::write(&file, format!("attestation_key = \"rsa\"\n{settings}"))?;
    device.start_agent()?;
    device.is("trusted").await?;
    let file = ak_file(&device).await?;
    let root = device.stage.console()?.bytes("/ak/ca.pem").await?;
    // Nobody shares out the slots of this TPM, as the kernel does of a real one.
    within(10, device.agent.take().context("the agent")?.terminate()).await??;
    let (state, tpm) = (StateDir::look_into(&device.stage.at("agent")), device.tpm_address().parse()?);

    let ca = StepCa::start(&program, device.stage.at("step-ca"), &root).await?;
    let wanted = ca.wanted();
    let enrolled = enroll(&wanted, &state, &tpm, &Clock::system()).await;
    let enrolled = enrolled.with_context(|| ca.said())?;
    ensure!(enrolled.permanent_identifier == file.permanent_identifier, "{enrolled:?}");
    let verify = "verify -x509_strict -CAfile root.pem -untrusted device.pem device.pem";
    ensure!(openssl(&ca.folder, verify)?.contains("device.pem: OK"), "verify");
    let shown = openssl(&ca.folder, "x509 -in device.pem -noout -text")?;
    ensure!(shown.contains("Permanent Identifier") || shown.contains("othername"), "{shown}");
    use_key(&ca.folder, &device)?;
    // The account is there the second time, and the key is another.
    let key = std::fs::read(&wanted.key)?;
    let again = enroll(&wanted, &state, &tpm, &Clock::system()).await.with_context(|| ca.said())?;
    ensure!(again.serial != enrolled.serial && std::fs::read(&wanted.key)? != key, "{again:?}");

    // One that believes another root refuses the same device.
    let (stranger, _) = authority("stranger", None)?;
    let other = StepCa::start(&program, device.stage.at("other-ca"), stranger.as_bytes()).await?;
    let refused = enroll(&other.wanted(), &state, &tpm, &Clock::system()).await;
    ensure!(matches!(refused, Err(AcmeError::Refused { .. })), "{refused:?}");
    ensure!(!other.wanted().certificate.exists() && !other.wanted().key.exists(), "files");
    Ok(())
}

/// OpenSSL's provider signs with the key in the TPM, and its public half in the certificate verifies that.
fn use_key(folder: &Path, device: &Device) -> Result<()> {
    let listed = Command::new("openssl").arg("version").arg("-m").output()?;
    let modules = String::from_utf8_lossy(&listed.stdout);
    let modules = modules.split('"').nth(1).context("openssl's modules")?;
    if !Path::new(modules).join("tpm2.so").exists() {
        eprintln!("left out: OpenSSL with the key in the TPM; apt-get install tpm2-openssl");
        return Ok(());
    }
    let pipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/interop/tpm_pipe.py");
    let transport = format!("cmd:/usr/bin/python3 {} {}", pipe.display(), device.tpm_socket().display());
    std::fs::write(folder.join("words"), b"by the TPM")?;
    let sign = "dgst -provider tpm2 -provider default -propquery ?provider=tpm2 -sha256 -sign device.tpm -out signature words";
    let mut command = Command::new("openssl");
    command.args(sign.split(' ')).current_dir(folder).env("TPM2OPENSSL_TCTI", transport);
    let signed = command.output()?;
    ensure!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    std::fs::write(folder.join("public.pem"), openssl(folder, "x509 -in device.pem -noout -pubkey")?)?;
    let verified = openssl(folder, "dgst -sha256 -verify public.pem -signature signature words")?;
    ensure!(verified.contains("Verified OK"), "{verified}");
    Ok(())
}
