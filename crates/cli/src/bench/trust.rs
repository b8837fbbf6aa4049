//! `assay bench trust`: what it takes to hear a signed message, to issue certificates, and to withdraw them, each beside the
//! signature that bounds it. In this process, with the code that servers and receivers run.

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use assay_identity::authority::{AuthorityTemplate, sign_root};
use assay_identity::classic::{self, NodeTemplate};
use assay_identity::crl::{self, RevocationReason, RevokedSerial};
use assay_identity::signed_message::{
    Accept, NodeId, OnceBy, Outgoing, Peers, Replays, Request, Signed, open,
};
use assay_identity::x509_svid::{SvidTemplate, issue};
use assay_identity::{Bundle, Crl, CrlSet, Issuer, PrivateKey, Serial, SpiffeId, TrustDomain, UnixTime};
use serde::Serialize;

use super::aims::{self, Aim};
use super::attest::percentile;
use super::sig::{Cost, Signature, thread_time};
use crate::output;

/// Arguments of `assay bench trust`.
#[derive(clap::Args)]
pub struct Args {
    /// Nodes whose chains are asked for.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// Seconds for which they are, with one revocation in each.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Entries of the revocation list.
    #[arg(long, default_value_t = 100_000)]
    revoked: u32,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was measured.
#[derive(Serialize)]
struct Report {
    nodes: usize,
    cache: Cache,
    revoked: u32,
    list_bytes: usize,
    /// Whether openssl reads the list, where it is there.
    openssl_reads_it: Option<bool>,
    aims: Vec<Aim>,
}

/// Chains that were asked for while one certificate a second was withdrawn.
#[derive(Serialize)]
struct Cache {
    asked: u64,
    p95_ms: f64,
    hit_rate: f64,
    /// From the withdrawal to the refusal.
    refused_within_ms: f64,
}

/// Runs the verb.
pub fn run(args: &Args) -> Result<()> {
    let report = measure(args)?;
    if args.json {
        return output::json(&serde_json::to_value(&report)?);
    }
    output::out!("{}", aims::table(&report.aims));
    Ok(())
}

fn measure(args: &Args) -> Result<Report> {
    ensure!((1..=1000).contains(&args.nodes), "--nodes: 1 to 1000, as many as are remembered");
    let domain = Domain::new()?;
    eprintln!("messages");
    let message = domain.message()?;
    eprintln!("certificates");
    let svid = domain.svids()?;
    let (classic, rsa) = classic_certificates()?;
    eprintln!("{} chains for {} s, with one revocation a second", args.nodes, args.seconds);
    let cache = domain.cache(args.nodes, Duration::from_secs(args.seconds))?;
    eprintln!("a list of {} entries", args.revoked);
    let (list, list_ms) = domain.list(args.revoked)?;
    let percent_missed = (1.0 - cache.hit_rate) * 100.0;
    let aims = vec![
        Aim::sig("signed message heard, chain remembered".to_owned(), message, MESSAGE_SIG, Some(1.0)),
        Aim::sig("X.509-SVID issued and inspected".to_owned(), svid, SVID_SIG, Some(1.5)),
        Aim::sig(
            "classic certificate issued and inspected".to_owned(),
            classic,
            rsa.sig * 1.25,
            Some(rsa.sig),
        ),
        Aim::new("chain asked for (p95)".to_owned(), cache.p95_ms, 1.0, "ms"),
        Aim::new("chains that were not remembered".to_owned(), percent_missed, 10.0, "%"),
        Aim::new("withdrawn, until refused".to_owned(), cache.refused_within_ms, 1000.0, "ms"),
        Aim::new(format!("list of {} entries signed and read", args.revoked), list_ms, 200.0, "ms"),
    ];
    let openssl_reads_it = openssl_reads(&list);
    Ok(Report {
        nodes: args.nodes,
        cache,
        revoked: args.revoked,
        list_bytes: list.len(),
        openssl_reads_it,
        aims,
    })
}

/// A trust domain with one authority.
struct Domain {
    issuer: Issuer,
    bundle: Bundle,
    /// Serial numbers that were given.
    given: std::cell::Cell<u128>,
}

impl Domain {
    fn new() -> Result<Domain> {
        let (trust_domain, key) = (TrustDomain::parse(TRUST_DOMAIN)?, PrivateKey::generate()?);
        let template = AuthorityTemplate {
            trust_domain: trust_domain.clone(),
            name: "bench".to_owned(),
            serial: Serial::from_random([1; 16]),
            not_before: at(0),
            not_after: at(YEAR),
        };
        let root = sign_root(&template, &key)?;
        let bundle = Bundle::new(trust_domain, [&root])?;
        Ok(Domain { issuer: Issuer::new(root, key)?, bundle, given: std::cell::Cell::new(0) })
    }

    fn certificate(&self, spki: Vec<u8>) -> Result<(Serial, Vec<u8>)> {
        self.given.set(self.given.get() + 1);
        let serial = Serial::from_random(self.given.get().to_be_bytes());
        let template = SvidTemplate {
            spiffe_id: SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/node/{}", self.given.get()))?,
            dns_names: Vec::new(),
            ip_addresses: Vec::new(),
            spki,
            serial: serial.clone(),
            not_before: at(0),
            not_after: at(YEAR),
        };
        Ok((serial, issue(&template, &self.issuer)?.der().to_vec()))
    }

    fn crls(&self, revoked: &[Serial], number: u64) -> Result<Vec<u8>> {
        let entry = |serial: &Serial| RevokedSerial {
            serial: serial.clone(),
            at: at(1),
            reason: RevocationReason::PrivilegeWithdrawn,
        };
        let revoked: Vec<RevokedSerial> = revoked.iter().map(entry).collect();
        Ok(crl::sign(&revoked, number, at(0), at(YEAR), &self.issuer)?)
    }

    /// A message from its bytes to its being taken, the chain of its certificate remembered.
    fn message(&self) -> Result<Cost> {
        let key = PrivateKey::generate()?;
        let (_, certificate) = self.certificate(key.spki())?;
        let crls = CrlSet::from_der([self.crls(&[], 1)?])?;
        let request =
            Request { audience: "bench", method: "POST", path: "/secure/data", body: BODY.as_bytes() };
        let from = NodeId::new(7).context("a number")?;
        let said = |sequence| {
            let once = OnceBy::Sequence(sequence);
            Outgoing { from, at: at(NOW), data: BODY, about: request.about(), once }.bytes()
        };
        let messages: Vec<(Vec<u8>, Vec<u8>)> = (1..=ROUNDS)
            .map(|sequence| {
                let bytes = said(sequence)?;
                let signature = key.sign_message(&bytes)?;
                anyhow::Ok((bytes, signature))
            })
            .collect::<Result<_>>()?;
        let (mut peers, mut replays) = (Peers::default(), Replays::new(at(0)));
        let mut left = messages.iter();
        cost(ROUNDS, || {
            let (bytes, signature) = left.next().context("a message")?;
            let peer = peers.verify(&[&certificate], (&self.bundle, &crls), at(NOW))?;
            let opened = open(Signed { from, bytes, signature }, &peer, &request, Accept::Strict, at(NOW))?;
            Ok(replays.take(&opened, at(NOW))?)
        })
    }

    fn svids(&self) -> Result<Cost> {
        let spki = PrivateKey::generate()?.spki();
        cost(ROUNDS, || self.certificate(spki.clone()).map(|issued| drop(black_box(issued))))
    }

    /// Chains of nodes, each asked for again and again, while one certificate a second is withdrawn.
    fn cache(&self, nodes: usize, during: Duration) -> Result<Cache> {
        let spki = PrivateKey::generate()?.spki();
        let nodes: Vec<(Serial, Vec<u8>)> =
            (0..nodes).map(|_| self.certificate(spki.clone())).collect::<Result<_>>()?;
        let (mut peers, mut revoked) = (Peers::default(), Vec::new());
        let mut crls = CrlSet::from_der([self.crls(&[], 1)?])?;
        let (start, mut times, mut refused_within) = (Instant::now(), Vec::new(), Duration::ZERO);
        let mut withdrawn_at: Option<Instant> = None;
        while start.elapsed() < during {
            for (serial, certificate) in &nodes {
                let asked = Instant::now();
                let peer = peers.verify(&[certificate], (&self.bundle, &crls), at(NOW));
                times.push(asked.elapsed());
                ensure!(peer.is_err() == revoked.contains(serial), "a verdict that does not hold");
                if revoked.last() == Some(serial)
                    && let Some(at) = withdrawn_at.take()
                {
                    refused_within = refused_within.max(at.elapsed());
                }
            }
            let due = usize::try_from(start.elapsed().as_secs()).unwrap_or(usize::MAX);
            if due > revoked.len()
                && let Some((serial, _)) = nodes.get(revoked.len())
            {
                withdrawn_at = Some(Instant::now());
                revoked.push(serial.clone());
                crls = CrlSet::from_der([self.crls(&revoked, due as u64 + 1)?])?;
            }
        }
        times.sort_unstable();
        let (hits, misses) = peers.hits_and_misses();
        Ok(Cache {
            asked: hits + misses,
            p95_ms: percentile(&times, 95),
            hit_rate: hits as f64 / (hits + misses).max(1) as f64,
            refused_within_ms: refused_within.as_secs_f64() * 1e3,
        })
    }

    /// A list of so many, signed and read as its server does; milliseconds.
    fn list(&self, entries: u32) -> Result<(Vec<u8>, f64)> {
        let serial = |number: u32| Serial::from_random((u128::from(number) << 64 | 0x5a5a).to_be_bytes());
        let revoked: Vec<Serial> = (0..entries).map(serial).collect();
        let start = Instant::now();
        let list = self.crls(&revoked, 7)?;
        let read = Crl::parse(&list)?;
        read.verify(self.issuer.certificate())?;
        let took = start.elapsed();
        ensure!(
            revoked.last().is_none_or(|serial| read.revokes(serial)),
            "the list does not name what it should"
        );
        Ok((list, took.as_secs_f64() * 1e3))
    }
}

/// Certificates below an RSA root, and what its signature alone takes.
fn classic_certificates() -> Result<(Cost, Cost)> {
    let key = PrivateKey::generate_rsa()?;
    let root = classic::sign_root(&Serial::classic([1; 20]), at(0), at(YEAR), &key)?;
    let alone = cost(RSA_ROUNDS, || {
        black_box(key.sign_message(BODY.as_bytes())?);
        Ok(())
    })?;
    let issuer = Issuer::new(root, key)?;
    let mut template = NodeTemplate {
        node: NodeId::new(7).context("a number")?,
        spiffe_id: SpiffeId::parse(&format!("spiffe://{TRUST_DOMAIN}/node/7"))?,
        spki: PrivateKey::generate()?.spki(),
        serial: Serial::classic([2; 20]),
        not_before: at(0),
        not_after: at(YEAR),
        crl_url: None,
    };
    let mut given = 0;
    let issued = cost(RSA_ROUNDS, || {
        given += 1;
        template.serial = Serial::classic([given; 20]);
        classic::issue(&template, &issuer)?;
        Ok(())
    })?;
    Ok((issued, alone))
}

/// What doing it takes, in the median of stretches, beside what a signature takes in each.
fn cost(rounds: u64, mut work: impl FnMut() -> Result<()>) -> Result<Cost> {
    let signature = Signature::new()?;
    let in_a_row = u32::try_from(rounds / STRETCHES)?.max(1);
    let mut costs = Vec::new();
    for _ in 0..STRETCHES {
        let sig = signature.time()?;
        let start = thread_time()?;
        for _ in 0..in_a_row {
            work()?;
        }
        costs.push(Cost::new(thread_time()?.saturating_sub(start) / in_a_row, sig));
    }
    Ok(Cost::median(&costs))
}

/// `None`: there is no openssl to ask.
fn openssl_reads(list: &[u8]) -> Option<bool> {
    let file = tempfile::NamedTempFile::new().ok()?;
    std::fs::write(file.path(), list).ok()?;
    let mut openssl = Command::new("openssl");
    openssl.args(["crl", "-inform", "DER", "-noout", "-crlnumber", "-in"]).arg(file.path());
    openssl.stdout(Stdio::null()).stderr(Stdio::null());
    openssl.status().ok().map(|status| status.success())
}

fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(BEGINS + seconds))
}

const TRUST_DOMAIN: &str = "bench.assay.example";
const BODY: &str = r#"{"speed": 3}"#;
/// 2025-11-11; everything here lives for a year from then.
const BEGINS: u64 = 1_762_819_200;
const NOW: u64 = 3600;
const YEAR: u64 = 365 * 24 * 3600;
const ROUNDS: u64 = 2000;
const RSA_ROUNDS: u64 = 60;
const STRETCHES: u64 = 20;
/// A signature, its form, and twice a look at a memory.
const MESSAGE_SIG: f64 = 1.5;
/// Signing takes half of verifying, inspecting verifies once, and both write or read a certificate.
const SVID_SIG: f64 = 3.0;
