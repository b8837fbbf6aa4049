//! Assigning and rolling out policies as an operator does, at a server of its own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

use assay_testkit::edge::{Door, Edge};
use assay_testkit::{EkMaker, SoftwareDevice};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{assay, learn, vector};

/// A server on free ports; it is killed when dropped.
pub struct Server {
    process: Child,
    folder: TempDir,
    maker: EkMaker,
    /// Closed, the server would have nowhere to write to.
    _log: BufReader<ChildStderr>,
}

impl Server {
    pub fn start() -> Server {
        let folder = tempfile::tempdir().unwrap();
        let (data, anchors) = (folder.path().join("data"), folder.path().join("maker.pem"));
        let maker = EkMaker::new().unwrap();
        std::fs::write(&anchors, maker.root_ca_pem()).unwrap();
        let mut process = Command::new(env!("CARGO_BIN_EXE_assay"))
            .args(["server", "--trust-domain", "test.assay.example", "--edge", "127.0.0.1:0"])
            .args(["--console", "127.0.0.1:0", "--data"])
            .arg(&data)
            .arg("--ek-anchors")
            .arg(&anchors)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(process.stderr.take().unwrap());
        let ready = log.by_ref().lines().map_while(Result::ok).any(|line| line.contains("server ready"));
        assert!(ready, "the server did not start");
        Server { process, folder, maker, _log: log }
    }

    /// Ends it without a word; its folder stays.
    pub fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Exit code and everything printed.
    pub fn run(&self, arguments: &[&str]) -> (i32, String) {
        let data = self.at("data");
        let output = assay(arguments.iter().copied().chain(["--data", data.to_str().unwrap()]));
        let printed = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(printed).unwrap())
    }

    pub fn check(&self, arguments: &[&str], says: &[&str]) {
        let (exit, printed) = self.run(arguments);
        assert_eq!(exit, 0, "{arguments:?}: {printed}");
        says.iter()
            .for_each(|word| assert!(printed.contains(word), "{arguments:?}: {word} is not in {printed}"));
    }

    pub fn check_refused(&self, arguments: &[&str], says: &str) {
        let (exit, printed) = self.run(arguments);
        assert!((1..=3).contains(&exit) && printed.contains(says), "{arguments:?}: {exit} {printed}");
    }

    /// A device that is enrolled as through a gateway.
    pub fn enroll(&self, name: &str) {
        let gateway = self.at("gateway");
        self.check(&["gateway", "enroll", "--name", "edge-1", "--out", gateway.to_str().unwrap()], &[]);
        let certificates = |file: &Path| {
            let chain = CertificateDer::pem_file_iter(file).unwrap();
            chain.map(|certificate| certificate.unwrap().to_vec()).collect::<Vec<_>>()
        };
        let key = PrivatePkcs8KeyDer::from_pem_file(gateway.join("key.pem")).unwrap();
        let addresses = std::fs::read(self.at("data/addresses.json")).unwrap();
        let addresses: Value = serde_json::from_slice(&addresses).unwrap();
        let door = Door {
            address: addresses["edge"].as_str().unwrap().to_owned(),
            spiffe_id: "spiffe://test.assay.example/assay/server".to_owned(),
            roots: certificates(&gateway.join("bundle.pem")),
            identity: Some((certificates(&gateway.join("credentials.pem")), key.secret_pkcs8_der().to_vec())),
        };
        let mut device = SoftwareDevice::new(name, &self.maker).unwrap();
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            Edge::connect(&door).await.unwrap().enroll(&mut device).await.unwrap();
        });
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (exit, printed) = self.run(&[arguments, &["--json"]].concat());
        assert_eq!(exit, 0, "{printed}");
        serde_json::from_str(&printed).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The policy of one boot, and its next version, which knows another one.
fn policies(folder: &Path) -> [String; 2] {
    let old = learn(&vector("sb-good-1"), folder, &["--name", "edge"]);
    let text = std::fs::read_to_string(&old).unwrap();
    let new = folder.join("new.toml");
    let more = "[ima.allow]\n\"/opt/tool\" = [\"sha256:AA\"]".replace("AA", &"aa".repeat(32));
    std::fs::write(&new, text.replace("[ima.allow]", &more)).unwrap();
    [old, new].map(|path| path.to_str().unwrap().to_owned())
}

#[test]
fn a_policy_is_assigned_rolled_out_and_taken_back() {
    let server = Server::start();
    let [old, new] = policies(server.folder.path());
    server.check(&["policy", "list"], &["No policy is set"]);
    server.check(&["policy", "show"], &["No policy is set for every device"]);
    server.check(&["policy", "rollout", "status"], &["No policy is being rolled out"]);
    server.check_refused(&["policy", "rollout", "start", &new], "no policy is assigned to every device");

    server.check(&["policy", "set", &old], &["policy edge version 1 is in force\n"]);
    let (_, printed) = server.run(&["policy", "show"]);
    crate::policy::assert_covers(&printed, &[("kernel", "pinned"), ("files", "ruled")]);
    let paris = ["policy", "set", &old, "--selector", "site=paris", "--selector", "line=3"];
    server.check(&paris, &["edge version 2 is in force for devices with line=3,site=paris"]);
    server.check(&["policy", "list"], &["edge v1", "every device", "edge v2", "line=3,site=paris"]);
    let start = ["policy", "rollout", "start", &new, "--percent", "25"];
    server.check(
        &start,
        &["edge v1 for every device", "→ v4: 25 % (0 devices) accept both, as v3", "rollout status edge"],
    );
    server.check_refused(&start, "edge is being rolled out: finish or abort");
    server.check_refused(&["policy", "set", &new], "finish or abort");
    server.check(&["policy", "rollout", "widen", "edge", "--percent", "50"], &["50 %"]);
    server.check_refused(&["policy", "rollout", "widen", "edge", "--percent", "50"], "50 % already");
    server.check_refused(&["policy", "rollout", "widen", "edge", "--percent", "0"], "1 to 100");
    server.check(&["policy", "list"], &["→ v4: 50 %"]);
    server.check(&["policy", "show", "edge", "--version", "3"], &["/opt/tool"]);
    server.check(&["policy", "rollout", "status"], &["edge v1", "No device would fall", "finish edge"]);
    let status = server.json(&["policy", "rollout", "status"]);
    assert_eq!(status["rollouts"][0]["rollout"]["percent"], 50);
    assert_eq!(server.json(&["policy", "rollout", "status", "edge"])["rollout"]["union_version"], 3);
    server.check(&["policy", "rollout", "finish", "edge"], &["policy edge version 4 is in force alone"]);
    server.check_refused(&["policy", "rollout", "abort", "edge"], "no policy edge is being rolled out");

    server.check(&["policy", "show", "--selector", "site=paris", "--selector", "line=3"], &["version = 2"]);
    server.check_refused(&["policy", "show", "--selector", "site=lyon"], "devices with site=lyon");
    server.check_refused(&["policy", "show", "--device", "press-1"], "no device is called press-1");
    server.check_refused(&["policy", "show", "edge"], "say the version or a device");
    server.check_refused(&["policy", "set", &old, "--selector", "paris"], "write key=value");
    let unassign = ["policy", "unassign", "--selector", "line=3", "--selector", "site=paris"];
    server.check(&unassign, &["no policy is assigned to devices with line=3,site=paris any more"]);
    server.check_refused(&unassign, "no policy is assigned to devices with line=3,site=paris");
    server.check(&["policy", "show", "edge"], &["version = 4"]);
    server.check(&["policy", "unassign", "--default"], &["every device"]);
    assert_eq!(server.json(&["policy", "list"])["assignments"], json!([]));
}

#[test]
fn a_roll_out_that_could_make_devices_fall_says_so_first() {
    let server = Server::start();
    let [old, _] = policies(server.folder.path());
    server.check(&["policy", "set", &old], &[]);
    let stricter = server.at("stricter.toml");
    let text = std::fs::read_to_string(&old).unwrap();
    let mut table: toml::Table = text.parse().unwrap();
    table["freshness"]["evidence_age_max_seconds"] = 60.into();
    std::fs::write(&stricter, table.to_string()).unwrap();
    let start = ["policy", "rollout", "start", stricter.to_str().unwrap()];
    server.check_refused(&start, "freshness.evidence_age_max_seconds for devices of the old version");
    server.check(&[&start[..], &["--force"]].concat(), &["10 %"]);
    server.check(&["policy", "rollout", "abort", "edge"], &["policy edge version 1 is in force alone"]);
}

#[test]
fn taking_the_policy_for_everyone_back_has_to_be_said() {
    let output = assay(["policy", "unassign"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--default"));
}

#[test]
fn a_device_is_labelled_and_judged_by_the_policy_for_its_labels() {
    let server = Server::start();
    let [old, new] = policies(server.folder.path());
    server.enroll("press-1");
    server.check(&["policy", "show", "--device", "press-1"], &["No policy is in force for press-1"]);
    server.check(&["policy", "set", &old], &[]);
    server.check(&["policy", "set", &new, "--selector", "site=paris"], &[]);
    server.check(&["device", "show", "press-1"], &["in force     edge v1", "labels       -"]);
    let label = ["device", "label", "press-1", "site=paris", "line=3"];
    server.check(&label, &["in force     edge v2", "labels       line=3,site=paris"]);
    server.check(&["device", "list"], &["line=3,site=paris"]);
    server.check(&["policy", "show", "--device", "press-1"], &["version = 2", "/opt/tool"]);
    assert_eq!(server.json(&["policy", "list"])["assignments"][1]["devices"], 1);
    let device = server.json(&["device", "label", "press-1", "--remove", "site"])["device"].clone();
    assert_eq!((&device["labels"], &device["policy_in_force"]), (&json!({ "line": "3" }), &json!("edge v1")));
    server.check_refused(&["device", "label", "press-1", "site"], "write key=value");
    server.check_refused(&["device", "label", "press-1", "--remove", "site"], "has no label \"site\"");
    server.check_refused(&["device", "label", "press-2", "a=b"], "no device is called press-2");
    let start = ["policy", "rollout", "start", &new, "--percent", "100"];
    server.check(&start, &["1 device: → v4: 100 % (1 device)"]);
    // It has yet to attest, so there is nothing that it could lose.
    server.check(&["policy", "rollout", "finish", "edge"], &["version 4"]);
}
