//! What operators do with results on record: list them, judge one again, and try a policy on all of them.

use std::path::Path;
use std::process::Output;

use assay_server::{Config, Running};
use assay_testkit::edge::{Attachment, Door, Edge};
use assay_testkit::{EkMaker, SoftwareDevice, policy_for};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tempfile::TempDir;

use crate::assay;

const TRUST_DOMAIN: &str = "test.assay.example";

/// A server, and a device that is attached to it.
struct Stage {
    folder: TempDir,
    runtime: tokio::runtime::Runtime,
    server: Option<Running>,
    device: SoftwareDevice,
    attachment: Attachment,
}

impl Stage {
    fn start() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        let maker = EkMaker::new().unwrap();
        std::fs::write(folder.path().join("maker.pem"), maker.root_ca_pem()).unwrap();
        let config = Config {
            data: folder.path().join("data"),
            trust_domain: TRUST_DOMAIN.parse().unwrap(),
            edge: ([127, 0, 0, 1], 0).into(),
            console: ([127, 0, 0, 1], 0).into(),
            ek_anchors: vec![folder.path().join("maker.pem")],
            attest_interval_seconds: 3600,
            ..Config::default()
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = runtime.block_on(Running::start(config)).unwrap();
        let data = folder.path().join("data");
        let mut device = SoftwareDevice::new("press-1", &maker).unwrap();
        let policy = folder.path().join("policy.toml");
        std::fs::write(&policy, policy_for("base", &[&device])).unwrap();
        succeed(&run(&data, &["policy", "set", policy.to_str().unwrap()]));
        let door = door(folder.path(), server.addresses().edge.to_string());
        let attachment = runtime.block_on(async {
            let edge = Edge::connect(&door).await.unwrap();
            edge.enroll(&mut device).await.unwrap();
            let mut attachment = edge.attach(&device).await.unwrap();
            assert_eq!(attachment.attest(&mut device).await.unwrap().tier, "affirming");
            attachment
        });
        Stage { folder, runtime, server: Some(server), device, attachment }
    }

    fn attest_again(&mut self) -> String {
        let Stage { runtime, device, attachment, .. } = self;
        runtime.block_on(async {
            attachment.changed().await.unwrap();
            attachment.attest(device).await.unwrap().tier
        })
    }

    /// Runs a verb that asks the console.
    fn assay(&self, arguments: &[&str]) -> Output {
        run(&self.folder.path().join("data"), arguments)
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.assay(&[arguments, &["--json"]].concat());
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            self.runtime.block_on(server.stop());
        }
    }
}

fn run(data: &Path, arguments: &[&str]) -> Output {
    assay(arguments.iter().copied().chain(["--data", data.to_str().unwrap()]))
}

fn succeed(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a gateway has to show, and where.
fn door(folder: &Path, address: String) -> Door {
    let out = folder.join("gateway");
    succeed(&run(
        &folder.join("data"),
        &["gateway", "enroll", "--name", "edge-1", "--out", out.to_str().unwrap()],
    ));
    let certificates = |name: &str| -> Vec<Vec<u8>> {
        let pem = std::fs::read(out.join(name)).unwrap();
        CertificateDer::pem_slice_iter(&pem).map(|certificate| certificate.unwrap().to_vec()).collect()
    };
    let key = PrivateKeyDer::from_pem_file(out.join("key.pem")).unwrap();
    Door {
        address,
        spiffe_id: format!("spiffe://{TRUST_DOMAIN}/assay/server"),
        roots: certificates("bundle.pem"),
        identity: Some((certificates("credentials.pem"), key.secret_der().to_vec())),
    }
}

#[test]
fn year_1_a_gateways_folder_is_enrolled_again_in_place_and_no_others() {
    let stage = Stage::start();
    let (data, out) = (stage.folder.path().join("data"), stage.folder.path().join("gateway"));
    let read = |name: &str| std::fs::read(out.join(name)).unwrap();
    let (key, certificate) = (read("key.pem"), read("credentials.pem"));
    std::fs::write(out.join("renewed.pem"), "of before").unwrap();
    let enroll =
        |name: &str| run(&data, &["gateway", "enroll", "--name", name, "--out", out.to_str().unwrap()]);
    let refused = enroll("edge-2");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("/assay/gateway/edge-1") && read("key.pem") == key, "{said}");

    succeed(&enroll("edge-1"));
    assert!(read("key.pem") != key && read("credentials.pem") != certificate);
    assert!(!out.join("renewed.pem").exists() && !out.join("key.pem.new").exists());
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(out.join("key.pem")).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    // What is there is whole: it opens the door.
    let chain = CertificateDer::pem_slice_iter(&read("credentials.pem")).count();
    assert_eq!(chain, 2);
    assert!(PrivateKeyDer::from_pem_slice(&read("key.pem")).is_ok());
    // A key that nobody knows the owner of is not written over.
    std::fs::remove_file(out.join("credentials.pem")).unwrap();
    assert!(!enroll("edge-1").status.success());
}

#[test]
fn results_are_listed_and_judged_again() {
    let mut stage = Stage::start();
    stage.device.run_program("/tmp/implant", b"evil");
    assert_eq!(stage.attest_again(), "contraindicated");
    let results = stage.json(&["device", "results", "press-1"]);
    let results = results["results"].as_array().unwrap();
    let tiers: Vec<&Value> = results.iter().map(|result| &result["tier"]).collect();
    assert_eq!(tiers, ["contraindicated", "affirming"], "newest first");
    for result in results {
        let id = result["id"].to_string();
        let output = stage.assay(&["appraise", "--stored", &id]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("The same"), "{said}");
        let json = stage.json(&["appraise", "--stored", &id]);
        assert_eq!((&json["same"], &json["recorded"]["tier"]), (&true.into(), &result["tier"]));
        assert_eq!(json["again"]["findings"], json["recorded"]["findings"]);
    }
    let unknown = stage.assay(&["appraise", "--stored", "99999"]);
    assert_eq!(unknown.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("no such result"));
    let both = stage.assay(&["appraise", "/nowhere", "--stored", "1"]);
    assert_eq!(both.status.code(), Some(2), "a folder or a result");
    let explained = stage.assay(&["device", "explain", "press-1"]);
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(
        said.contains("Changed since its evidence was last good") && said.contains("/tmp/implant"),
        "{said}"
    );
}

#[test]
fn a_policy_is_tried_before_it_is_set() {
    let stage = Stage::start();
    let file = |name: &str, text: &str| {
        let path = stage.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let policy = policy_for("base", &[&stage.device]);
    let same = stage.assay(&["policy", "try", &file("same.toml", &policy)]);
    let said = String::from_utf8_lossy(&same.stdout);
    assert!(same.status.success() && said.contains("0  would fall"), "{said}");
    crate::policy::assert_covers(&said, &[("kernel", "pinned"), ("files", "open"), ("place", "open")]);

    let stricter = file("stricter.toml", &policy.replace("/usr/bin/bash", "/usr/bin/zsh"));
    let tried = stage.assay(&["policy", "try", &stricter, "--since", "7d"]);
    let said = String::from_utf8_lossy(&tried.stdout);
    assert_eq!(tried.status.code(), Some(1), "{said}");
    for word in ["1  would fall", "press-1", "/usr/bin/bash", "contraindicated"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    let report = stage.json(&["policy", "try", &stricter]);
    assert_eq!(report["devices"]["would_fall"], 1);
    assert_eq!(report["causes"][0]["examples"][0], "press-1");

    let broken = stage.assay(&["policy", "try", &file("broken.toml", "name = 3")]);
    assert_eq!(broken.status.code(), Some(2));
    assert_eq!(stage.assay(&["policy", "try", "/nowhere.toml"]).status.code(), Some(2));
    assert_eq!(stage.json(&["device", "show", "press-1"])["device"]["status"], "trusted");
}

#[test]
fn a_policy_is_learned_from_what_is_kept_of_a_device() {
    let stage = Stage::start();
    let learned = stage.folder.path().join("learned.toml");
    let learned = learned.to_str().unwrap();
    succeed(&stage.assay(&["policy", "learn", "--device", "press-1", "--name", "base", "-o", learned]));
    // It accepts what the device showed.
    succeed(&stage.assay(&["policy", "try", learned]));
    let unknown = stage.assay(&["policy", "learn", "--device", "press-9", "-o", learned]);
    let why = String::from_utf8_lossy(&unknown.stderr);
    assert!(!unknown.status.success() && why.contains("press-9"), "{why}");
}
