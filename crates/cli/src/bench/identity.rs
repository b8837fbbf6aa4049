//! `assay bench identity`: what workloads' identities take of a real server: certificates, tokens, entries, and how soon a device
//! hears of them.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use assay_testkit::edge::{Attachment, Message};
use assay_testkit::{EkMaker, SoftwareDevice, policy_for};
use serde::Serialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::task::{JoinSet, block_in_place};

use super::aims::{self, Aim};
use super::attest::{mib, percentile};
use super::limit::Limit;
use super::load::{Fleet, Kept, Scenario};
use super::server::{Server, TRUST_DOMAIN};
use super::sig::{Cost, Signature};
use crate::output;

/// Arguments of `assay bench identity`.
#[derive(clap::Args)]
pub struct Args {
    /// Devices.
    #[arg(long, default_value_t = 50)]
    devices: usize,
    /// Workloads of each, all of which get a certificate and a token; 500 at most.
    #[arg(long, default_value_t = 40)]
    workloads: usize,
    /// Further entries, for devices that have yet to enroll.
    #[arg(long, default_value_t = 10_000)]
    entries: usize,
    /// Entries made and deleted one after the other, for how soon a device hears of it.
    #[arg(long, default_value_t = 100)]
    changes: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Serialize)]
struct Report {
    limit_per_second_and_core: Limit,
    devices: usize,
    x509: Figures,
    jwt: Figures,
    entries: usize,
    /// Processor time of the server for each entry that was made in a list.
    entry: Cost,
    entries_resident_mib: f64,
    made: Latency,
    deleted: Latency,
    aims: Vec<Aim>,
}

/// What was asked for by all devices at the same time.
#[derive(Serialize)]
struct Figures {
    asked: usize,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    server: Cost,
}

/// From the operator's word to the device's stream.
#[derive(Serialize)]
struct Latency {
    p50_ms: f64,
    p99_ms: f64,
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Latency {
        times.sort_unstable();
        Latency { p50_ms: percentile(&times, 50), p99_ms: percentile(&times, 99) }
    }
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let report = measure(args)?;
    if args.json {
        return output::json(&serde_json::to_value(&report)?);
    }
    let row = |what: &str, figures: &Figures| {
        vec![
            what.to_owned(),
            figures.asked.to_string(),
            format!("{:.0}", figures.per_second),
            format!("{:.1}", figures.p50_ms),
            format!("{:.1}", figures.p99_ms),
        ]
    };
    let rows = [row("X.509-SVID", &report.x509), row("JWT-SVID", &report.jwt)];
    output::out!("{}\n", output::table(&["grant", "asked", "a second", "p50 ms", "p99 ms"], rows));
    output::out!("{}", aims::table(&report.aims));
    Ok(())
}

fn measure(args: &Args) -> Result<Report> {
    ensure!((1..=500).contains(&args.workloads), "--workloads: 1 to 500");
    eprintln!("signatures this machine verifies");
    let limit = Limit::measure()?;
    let maker = EkMaker::new()?;
    let server = Server::start(&maker.root_ca_pem())?;
    let runtime = tokio::runtime::Runtime::new()?;
    let door = server.door()?;
    eprintln!("enrolling {} devices", args.devices);
    let system = Scenario::NothingNew.system(0);
    let mut fleet = runtime.block_on(Fleet::enroll(&maker, &door, &system, args.devices))?;
    let policy = policy_for("bench", &[fleet.specimen().context("at least one device")?]);
    server.client.put_text::<IgnoredAny>("/v1/policy?force=true", policy)?;

    eprintln!("making {} entries", args.entries);
    let resident = server.resident_bytes()?;
    let entry = make_entries(&server, args.entries)?;
    let entries_resident_mib = mib(server.resident_bytes()?.saturating_sub(resident));

    // The operator's client has a runtime of its own, which may not run inside this one.
    let (x509, jwt, made, deleted) = runtime.block_on(async {
        let kept = fleet.attach(Scenario::NothingNew).await?;
        eprintln!("entitling {} workloads of each", args.workloads);
        let kept = entitle(&server, kept, args.workloads).await?;
        eprintln!("certificates, then tokens");
        let (x509, kept) = ask_all(&server, kept, Grant::X509).await?;
        let (jwt, mut kept) = ask_all(&server, kept, Grant::Jwt).await?;
        eprintln!("{} entries made and deleted", args.changes);
        let (device, mut attachment) = kept.pop().context("a device")?;
        let (made, deleted) = changes(&server, &device, &mut attachment, args).await?;
        anyhow::Ok((x509, jwt, made, deleted))
    })?;
    let aims = vec![
        Aim::sig("X.509-SVID: verified, issued, inspected, recorded".to_owned(), x509.server, X509_SIG, None),
        Aim::sig("JWT-SVID".to_owned(), jwt.server, JWT_SIG, None),
        Aim::sig("entry made, in a list".to_owned(), entry, ENTRY_SIG, None),
        Aim::new("entry made, until it is on an open stream (p99)".to_owned(), made.p99_ms, 200.0, "ms"),
        Aim::new("entry deleted, until its grants are gone (p99)".to_owned(), deleted.p99_ms, 100.0, "ms"),
    ];
    Ok(Report {
        limit_per_second_and_core: limit,
        devices: args.devices,
        x509,
        jwt,
        entries: args.entries,
        entry,
        entries_resident_mib,
        made,
        deleted,
        aims,
    })
}

fn make_entries(server: &Server, count: usize) -> Result<Cost> {
    let of = |number: usize| {
        // A hash of nobody's EK.
        let parent = format!("spiffe://{TRUST_DOMAIN}/spire/agent/tpm/{:064x}", number / 10);
        entry(&parent, &format!("site-{}/web", number % 100), number)
    };
    let sig = Signature::new()?.time()?;
    let cpu = server.cpu()?;
    let numbers: Vec<usize> = (0..count).collect();
    for list in numbers.chunks(LIST) {
        let entries: Vec<Value> = list.iter().map(|number| of(*number)).collect();
        server.client.post::<IgnoredAny>("/v1/entries/apply", &json!({ "entries": entries }))?;
    }
    let took = server.cpu()?.saturating_sub(cpu);
    Ok(Cost::new(took.div_f64(count.max(1) as f64), sig))
}

fn entry(parent: &str, name: &str, uid: usize) -> Value {
    json!({
        "spiffe_id": format!("spiffe://{TRUST_DOMAIN}/{name}"), "parent": parent,
        "selectors": [{ "type": "unix", "value": format!("uid:{uid}") }],
    })
}

/// Entitles so many workloads on each device, and waits until each has heard of it.
async fn entitle(server: &Server, kept: Kept, workloads: usize) -> Result<Kept> {
    let mut entries = Vec::new();
    for (device, _) in &kept {
        let parent = device.device_id.as_deref().context("an enrolled device")?;
        entries.extend((0..workloads).map(|number| entry(parent, &format!("workload-{number}"), number)));
    }
    for list in entries.chunks(LIST) {
        block_in_place(|| {
            server.client.post::<IgnoredAny>("/v1/entries/apply", &json!({ "entries": list }))
        })?;
    }
    let mut waiting = JoinSet::new();
    for (device, mut attachment) in kept {
        waiting.spawn(async move {
            while attachment.grants().await?.entries.len() < workloads {}
            anyhow::Ok((device, attachment))
        });
    }
    waiting.join_all().await.into_iter().collect()
}

#[derive(Clone, Copy)]
enum Grant {
    X509,
    Jwt,
}

/// Lets each device ask for all of its workloads, one after the other, and all devices at the same time.
async fn ask_all(server: &Server, kept: Kept, grant: Grant) -> Result<(Figures, Kept)> {
    let sig = Signature::new()?.time()?;
    let (cpu, start) = (server.cpu()?, Instant::now());
    let mut asking = JoinSet::new();
    for (device, attachment) in kept {
        asking.spawn(ask(device, attachment, grant));
    }
    let (mut times, mut kept) = (Vec::new(), Vec::new());
    for asked in asking.join_all().await {
        let (device, attachment, of_device) = asked?;
        kept.push((device, attachment));
        times.extend(of_device);
    }
    let (took, cpu) = (start.elapsed(), server.cpu()?.saturating_sub(cpu));
    times.sort_unstable();
    let asked = times.len() as f64;
    let figures = Figures {
        asked: times.len(),
        per_second: asked / took.as_secs_f64().max(1e-3),
        p50_ms: percentile(&times, 50),
        p99_ms: percentile(&times, 99),
        server: Cost::new(cpu.div_f64(asked.max(1.0)), sig),
    };
    Ok((figures, kept))
}

async fn ask(
    device: SoftwareDevice,
    mut attachment: Attachment,
    grant: Grant,
) -> Result<(SoftwareDevice, Attachment, Vec<Duration>)> {
    let entries: Vec<String> = attachment.entries().map(|entry| entry.id.clone()).collect();
    let mut times = Vec::with_capacity(entries.len());
    for id in &entries {
        let place = attachment.place();
        let start = match grant {
            Grant::X509 => {
                let request = device.workload_request(place, id)?;
                let start = Instant::now();
                attachment.request_svid(request).await?;
                start
            }
            Grant::Jwt => {
                let request = device.token_request(place, id, &["db"])?;
                let start = Instant::now();
                attachment.request_token(request).await?;
                start
            }
        };
        let denied = loop {
            match (attachment.next().await?, grant) {
                (Message::WorkloadSvid(answer), Grant::X509) => break answer.denied,
                (Message::JwtSvid(answer), Grant::Jwt) => break answer.denied,
                _ => {}
            }
        };
        ensure!(denied.is_empty(), "{denied}");
        times.push(start.elapsed());
    }
    Ok((device, attachment, times))
}

/// Makes and deletes an entry again and again, each time until the device has heard of it. What is made has a certificate when it
/// is deleted, so that there is something to withdraw.
async fn changes(
    server: &Server,
    device: &SoftwareDevice,
    attachment: &mut Attachment,
    args: &Args,
) -> Result<(Latency, Latency)> {
    let parent = device.device_id.as_deref().context("an enrolled device")?;
    let (mut made, mut deleted) = (Vec::new(), Vec::new());
    for number in 0..args.changes {
        let new = entry(parent, "changing", args.workloads + number);
        let start = Instant::now();
        let answer: Value = block_in_place(|| server.client.post("/v1/entries", &new))?;
        let id = answer.get("id").and_then(Value::as_str).context("an id")?.to_owned();
        while !attachment.grants().await?.entries.iter().any(|entry| entry.id == id) {}
        made.push(start.elapsed());
        let request = device.workload_request(attachment.place(), &id)?;
        attachment.request_svid(request).await?;
        while !matches!(attachment.next().await?, Message::WorkloadSvid(_)) {}
        let start = Instant::now();
        block_in_place(|| server.client.delete::<IgnoredAny>(&format!("/v1/entries/{id}")))?;
        while attachment.grants().await?.entries.iter().any(|entry| entry.id == id) {}
        deleted.push(start.elapsed());
    }
    Ok((Latency::of(made), Latency::of(deleted)))
}

/// Entries of a list: what the server takes at a time.
const LIST: usize = 5000;
/// A fifth of what SPIRE 1.15 takes for one a request (0.84 ms of a core that verifies 15,400 signatures a second).
const X509_SIG: f64 = 2.6;
/// A sixth of what it takes to make one (0.40 ms).
const JWT_SIG: f64 = 1.03;
/// A tenth of what one takes there (4 ms, and growing).
const ENTRY_SIG: f64 = 6.2;
