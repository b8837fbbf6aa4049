//! Programs that read files: `assay-agent files` and `assay-agent fetch`, as processes of their own, through the real door.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use assay_agent::files::{self, Ended, Plan};
use assay_agent::holding::{Entry, Holding, Svid, Workload};
use assay_clock::Clock;
use assay_identity::{PrivateKey, Selector, Serial};
use assay_testkit::Machine;
use clap::Parser;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::timeout;

use crate::authority::Authority;
use crate::bench::Bench;
use crate::counterpart::{Counterpart, Mood, Seen};
use crate::run::{Agent, config};
use crate::workload_api::{Api, uid};

const PROGRAM: &str = env!("CARGO_BIN_EXE_assay-agent");

const FILES: [&str; 4] = ["svid.pem", "svid.key", "bundle.pem", "crl.pem"];

/// A process that is killed with its test.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn openssl(folder: &Path, arguments: &str) -> String {
    let mut command = Command::new("openssl");
    let output = command.args(arguments.split(' ')).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Certificate, key, bundle and list in a folder belong together.
fn hold_together(folder: &Path, [certificate, key, bundle, crl]: [&str; 4]) {
    openssl(folder, &format!("verify -crl_check -CRLfile {crl} -CAfile {bundle} {certificate}"));
    let of_certificate = openssl(folder, &format!("x509 -in {certificate} -noout -pubkey"));
    assert_eq!(openssl(folder, &format!("pkey -in {key} -pubout")), of_certificate);
}

async fn fetch(arguments: Vec<String>) -> Output {
    let mut command = Command::new(PROGRAM);
    command.arg("fetch").args(arguments).env_remove("SPIFFE_ENDPOINT_SOCKET");
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn swtpm_files_follow_what_the_agent_is_granted_and_fetch_gets_it_once() {
    let bench = Bench::new();
    let machine = Machine::boot(&bench.soft, &bench.path("machine")).unwrap();
    let selectors = format!("uid:{} path:{PROGRAM}", uid());
    let mut counterpart = Counterpart::start(selectors.clone()).await;
    let config = config(&bench, &machine, &counterpart);
    let socket = format!("unix://{}", config.workload_api.display());
    let (clock, hands) = Clock::with_hands();
    let agent = Agent::start_by(clock, config);
    counterpart.sees(|seen| *seen == Seen::SvidAsked).await;

    let [kept, stopped, fetched] = ["kept", "stopped", "fetched"].map(|name| bench.path(name));
    [&kept, &stopped, &fetched].into_iter().for_each(|folder| fs::create_dir(folder).unwrap());
    let helper = |folder: &Path, when_withdrawn: &str| {
        let mut command = Command::new(PROGRAM);
        command
            .args(["files", "--socket", &socket, "--when-withdrawn", when_withdrawn, "--folder"])
            .arg(folder);
        command.args(["--", "/bin/sh", "-c", &format!("echo $ASSAY_FILES >> {}/told", folder.display())]);
        Helper(command.stderr(Stdio::null()).spawn().unwrap())
    };
    let (mut removing, mut stopping) = (helper(&kept, "remove"), helper(&stopped, "stop"));
    let read = |folder: &Path, name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let told = |words: &str| read(&kept, "told") == words;
    until("both are told", || told("changed\n") && !read(&stopped, "told").is_empty()).await;
    hold_together(&kept, FILES);

    // Once, for a script.
    let write = |arguments: &[&str]| {
        let arguments: Vec<&str> = [&["--socket", &socket], arguments].concat();
        [vec!["x509".to_owned()], arguments.into_iter().map(str::to_owned).collect()].concat()
    };
    let once = fetch(write(&["--json", "--write", fetched.to_str().unwrap()])).await;
    assert_eq!(once.status.code(), Some(0), "{once:?}");
    let said: serde_json::Value = serde_json::from_slice(&once.stdout).unwrap();
    assert_eq!(said["svids"][0]["spiffe_id"], "spiffe://example.org/web");
    assert!(!String::from_utf8_lossy(&once.stdout).contains("PRIVATE KEY"));
    hold_together(&fetched, ["svid.0.pem", "svid.0.key", "bundle.0.pem", "crl.0.pem"]);
    let tokens = ["jwt", "--audience", "db", "--socket", &socket].map(str::to_owned);
    let token = fetch(tokens.to_vec()).await;
    assert_eq!(String::from_utf8_lossy(&token.stdout).trim().split('.').count(), 3, "{token:?}");

    // Half of an SVID's life later there is another.
    let before = read(&kept, "svid.key");
    hands.advance(Duration::from_secs(2400));
    until("it is renewed", || read(&kept, "svid.key") != before && told("changed\nchanged\n")).await;
    hold_together(&kept, FILES);

    counterpart.mood.send_replace(Mood::Withdrawing);
    let gone = |folder: &Path| !folder.join("svid.key").exists() && !folder.join("svid.pem").exists();
    until("it is withdrawn", || gone(&kept) && gone(&stopped)).await;
    until("the one is told", || told("changed\nchanged\nremoved\n")).await;
    assert_eq!(stopping.0.wait().unwrap().code(), Some(1), "the other ends");
    let refused = fetch(write(&[])).await;
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");

    counterpart.mood.send_replace(Mood::Granting(selectors));
    until("it is back", || told("changed\nchanged\nremoved\nchanged\n")).await;
    hold_together(&kept, FILES);

    // Without an agent the files stay as they are.
    agent.stop().await;
    let unreached = fetch(write(&[])).await;
    assert_eq!(unreached.status.code(), Some(2), "{unreached:?}");
    hold_together(&kept, FILES);
    kill_process(Pid::from_child(&removing.0), Signal::TERM).unwrap();
    assert!(removing.0.wait().unwrap().success());
}

#[derive(Parser)]
struct Arguments {
    #[command(flatten)]
    plan: Plan,
}

fn plan(api: &Api, folder: &Path, more: &[&str]) -> Plan {
    let socket = format!("unix://{}", api.socket.display());
    let arguments = ["files", "--socket", &socket, "--folder", folder.to_str().unwrap()];
    Arguments::parse_from([&arguments, more].concat()).plan
}

/// A holding with an SVID for this process that lives for so many seconds.
fn holding(authority: &Authority, hint: &str, seconds: u64) -> Holding {
    holding_with_serial(authority, hint, seconds).0
}

fn holding_with_serial(authority: &Authority, hint: &str, seconds: u64) -> (Holding, Serial) {
    let key = PrivateKey::generate().unwrap();
    let selectors = vec![Selector::parse("unix", &format!("uid:{}", uid())).unwrap()];
    let spiffe_id = format!("spiffe://example.org/{hint}");
    let entry = Entry { id: hint.into(), spiffe_id, selectors, hint: hint.into(), ..Entry::default() };
    let not_after = SystemTime::now() + Duration::from_secs(seconds);
    let (svid, serial) = authority.svid(&format!("/{hint}"), &key.spki(), seconds);
    let svid = Svid { chain: vec![svid], key: key.pkcs8().to_vec(), renew_at: not_after, not_after };
    let holding = Holding {
        ready: true,
        bundle: authority.bundle().to_der(),
        crl: authority.crl(&[], 1),
        workloads: vec![Workload { entry: Arc::new(entry), svid: Some(svid), ..Workload::default() }],
        ..Holding::default()
    };
    (holding, serial)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_over_is_removed_though_nobody_says_so() {
    let (api, authority, folder) = (Api::serve(), Authority::new(), tempfile::tempdir().unwrap());
    api.held.send_replace(holding(&authority, "web", 600));
    let (clock, hands) = Clock::with_hands();
    let plan = plan(&api, folder.path(), &["--when-withdrawn", "stop", "--mode", "0640"]);
    let keeping = tokio::spawn(files::keep(plan, clock, std::future::pending()));
    let key = folder.path().join("svid.key");
    until("it is written", || key.exists()).await;
    assert_eq!(fs::metadata(&key).map(|key| mode(&key)).unwrap(), 0o640);
    hands.advance(Duration::from_secs(601));
    let Ended::Withdrawn(reason) = keeping.await.unwrap().unwrap() else { panic!() };
    assert!(reason.contains("not renewed"), "{reason}");
    assert!(!key.exists() && folder.path().join("bundle.pem").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_is_not_among_them_is_withdrawn_and_a_signal_tells_of_it() {
    let (api, authority, folder) = (Api::serve(), Authority::new(), tempfile::tempdir().unwrap());
    api.held.send_replace(holding(&authority, "web", 600));
    // A service that ends when it is told to read its files anew.
    let service = Command::new("sleep").arg("60").spawn().unwrap();
    let mut service = Helper(service);
    let pid_file = folder.path().join("pid");
    fs::write(&pid_file, "0").unwrap();
    // The one that is sent by default is ignored by whoever was started where nobody hangs up, as tests may be.
    let pid = pid_file.to_str().unwrap();
    let plan = plan(&api, folder.path(), &["--hint", "web", "--pid-file", pid, "--signal", "TERM"]);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let keeping = tokio::spawn(files::keep(plan, Clock::system(), async move { drop(stopped.await) }));
    let key = folder.path().join("svid.key");
    until("it is written", || key.exists()).await;
    assert!(service.0.try_wait().unwrap().is_none());
    // The file did not name it yet; it is tried again.
    fs::write(&pid_file, service.0.id().to_string()).unwrap();
    until("the service is told", || service.0.try_wait().unwrap().is_some()).await;
    api.held.send_replace(holding(&authority, "other", 600));
    until("it is removed", || !key.exists()).await;
    stop.send(()).unwrap();
    assert_eq!(keeping.await.unwrap().unwrap(), Ended::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_svid_on_the_list_comes_into_no_file() {
    let (api, authority, folder) = (Api::serve(), Authority::new(), tempfile::tempdir().unwrap());
    let (mut revoked, serial) = holding_with_serial(&authority, "web", 600);
    revoked.crl = authority.crl(&[serial], 2);
    api.held.send_replace(revoked);
    let keeping =
        tokio::spawn(files::keep(plan(&api, folder.path(), &[]), Clock::system(), std::future::pending()));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    api.held.send_replace(holding(&authority, "web", 600));
    until("one that stands does", || folder.path().join("svid.key").exists()).await;
    keeping.abort();
}

#[tokio::test]
async fn what_can_never_be_kept_is_an_error_at_once() {
    let (api, folder) = (Api::serve(), tempfile::tempdir().unwrap());
    let check = async |more: &[&str], says: &str| {
        let kept = files::keep(plan(&api, folder.path(), more), Clock::system(), std::future::pending());
        let error = timeout(Duration::from_secs(5), kept).await.unwrap().unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    };
    check(&["--key", "svid.pem"], "two of the files").await;
    let locked = fs::File::open(folder.path()).unwrap();
    locked.lock().unwrap();
    check(&[], "another program").await;
    drop(locked);
    api.held.send_replace(holding(&Authority::new(), "web", 600));
    let nowhere = folder.path().join("nowhere");
    let plan = Plan { folder: nowhere, ..plan(&api, folder.path(), &[]) };
    let kept = timeout(Duration::from_secs(5), files::keep(plan, Clock::system(), std::future::pending()));
    assert!(kept.await.unwrap().unwrap_err().to_string().contains("nowhere"));
}

fn mode(metadata: &fs::Metadata) -> u32 {
    std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777
}
