//! Software devices that attest as fast as they are answered, over a few connections as a gateway holds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use assay_testkit::edge::Message;
use assay_testkit::edge::protocol::{Challenge, Evidence, Verdict};
use assay_testkit::edge::{Attachment, Door, Edge};
use assay_testkit::{EkMaker, Program, SoftwareDevice, System, tamper};
use serde::Serialize;
use tokio::task::JoinSet;

/// What a device has to say at every attestation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// A quote; the device keeps no logs.
    Quote,
    /// A quote; a long IMA list and the boot log are known already.
    NothingNew,
    /// A new boot, with a short IMA list and no boot log.
    Reboot,
    /// The same, with the boot log of the boot before.
    SameBootLog,
    /// The same, with a boot log that nobody has seen.
    NewBootLog,
    /// A new boot with the boot log of the boot before and a long IMA list.
    LongList,
}

/// A fleet, and the connections it shares.
pub struct Fleet {
    devices: Vec<SoftwareDevice>,
    edges: Vec<Edge>,
}

/// Devices that stay attached and wait.
pub type Kept = Vec<(SoftwareDevice, Attachment)>;

/// Lets all of them answer the next challenge.
pub async fn answer_all(kept: Kept) -> Result<Kept> {
    let mut answering = JoinSet::new();
    for (mut device, mut attachment) in kept {
        answering.spawn(async move {
            answer(&mut device, &mut attachment, Scenario::NothingNew).await?;
            Ok((device, attachment))
        });
    }
    answering.join_all().await.into_iter().collect()
}

/// What one scenario gave.
pub struct Measured {
    /// From sending evidence to its verdict.
    pub round_trips: Vec<Duration>,
    /// How long it went on.
    pub took: Duration,
}

impl Scenario {
    /// All of them, in the order they are run.
    pub const ALL: [Scenario; 6] = [
        Scenario::Quote,
        Scenario::NothingNew,
        Scenario::Reboot,
        Scenario::SameBootLog,
        Scenario::NewBootLog,
        Scenario::LongList,
    ];

    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Quote => "quote only",
            Scenario::NothingNew => "nothing new",
            Scenario::Reboot => "new boot, no boot log",
            Scenario::SameBootLog => "new boot, same boot log",
            Scenario::NewBootLog => "new boot, new boot log",
            Scenario::LongList => "new boot, long IMA list",
        }
    }

    /// The system its devices run.
    pub fn system(self, ima_entries: usize) -> System {
        let mut system = System::default();
        if matches!(self, Scenario::LongList | Scenario::NothingNew) {
            let programs =
                (0..ima_entries).map(|number| Program::release(&format!("/usr/lib/app/part-{number:05}")));
            system.programs.extend(programs);
        }
        system
    }

    /// Whether its devices show a boot log.
    pub fn has_boot_log(self) -> bool {
        !matches!(self, Scenario::Quote | Scenario::Reboot)
    }

    /// What happens on the device before it attests again.
    fn happens_to(self, device: &mut SoftwareDevice) {
        if !matches!(self, Scenario::Quote | Scenario::NothingNew) {
            device.clock.reset_count += 1;
        }
    }

    fn evidence(self, device: &mut SoftwareDevice, challenge: &Challenge) -> Result<Evidence> {
        let mut evidence = device.evidence(challenge)?;
        match (self, &mut evidence.boot_log) {
            (Scenario::Quote, _) => (evidence.boot_log, evidence.ima_log) = (None, Vec::new()),
            (Scenario::Reboot, log) => *log = None,
            (Scenario::NewBootLog, Some(log)) => tamper::append_remark(log, &challenge.nonce),
            _ => {}
        }
        Ok(evidence)
    }
}

impl Fleet {
    /// Makes devices with EKs of this maker that run `system`, and enrolls them.
    pub async fn enroll(maker: &EkMaker, door: &Door, system: &System, count: usize) -> Result<Fleet> {
        let mut edges = Vec::new();
        for _ in 0..CONNECTIONS {
            edges.push(Edge::connect(door).await?);
        }
        let mut devices = Vec::new();
        for (number, edge) in (0..count).zip(edges.iter().cycle()) {
            let mut device = SoftwareDevice::new(&format!("bench-{number}"), maker)?;
            device.boot(system);
            edge.enroll(&mut device).await?;
            devices.push(device);
        }
        Ok(Fleet { devices, edges })
    }

    /// One device, for its policy.
    pub fn specimen(&self) -> Option<&SoftwareDevice> {
        self.devices.first()
    }

    /// Takes one device out, for policies that are made while the others are away.
    pub fn take_specimen(&mut self) -> Option<SoftwareDevice> {
        self.devices.pop()
    }

    /// Attaches every device, and lets each attest once.
    pub async fn attach(&mut self, scenario: Scenario) -> Result<Kept> {
        let mut attached = JoinSet::new();
        for (device, edge) in self.devices.drain(..).zip(self.edges.iter().cycle().cloned()) {
            attached.spawn(attach(edge, device, scenario));
        }
        attached.join_all().await.into_iter().collect()
    }

    /// Lets the devices attest again and again until the time is over; `done` counts with them.
    pub async fn attest(
        &mut self,
        attached: Kept,
        scenario: Scenario,
        lasting: Duration,
        done: &Arc<AtomicU64>,
    ) -> Result<Measured> {
        let start = Instant::now();
        let until = start + lasting;
        let mut running = JoinSet::new();
        for (device, attachment) in attached {
            running.spawn(attest(device, attachment, scenario, until, done.clone()));
        }
        let mut round_trips = Vec::new();
        for outcome in running.join_all().await {
            let (device, of_device) = outcome?;
            round_trips.extend(of_device);
            self.devices.push(device);
        }
        Ok(Measured { round_trips, took: start.elapsed() })
    }

    /// Lets every device be judged once more after each of `rounds` calls of `change`, which gives all of them cause.
    pub async fn judge_in_rounds(
        &mut self,
        rounds: usize,
        mut change: impl FnMut(usize) -> Result<()>,
    ) -> Result<()> {
        let mut attached = Vec::new();
        for (device, edge) in self.devices.drain(..).zip(self.edges.iter().cycle().cloned()) {
            attached.push(attach(edge, device, Scenario::NothingNew).await?);
        }
        for round in 0..rounds {
            change(round)?;
            attached = answer_all(attached).await?;
        }
        self.devices.extend(attached.into_iter().map(|(device, _)| device));
        Ok(())
    }

    /// Attaches this many of the devices, a few at a time, lets each attest once, and keeps them attached.
    pub async fn keep_attached(&mut self, count: usize, kept: &mut Kept) -> Result<()> {
        let mut waiting = self.devices.drain(..count.min(self.devices.len()));
        loop {
            let mut attaching = JoinSet::new();
            for (edge, device) in self.edges.iter().zip(&mut waiting) {
                attaching.spawn(attach(edge.clone(), device, Scenario::NothingNew));
            }
            if attaching.is_empty() {
                return Ok(());
            }
            for attached in attaching.join_all().await {
                let (device, mut attachment) = attached?;
                // The server is done with a device once it has its grants.
                attachment.grants().await?;
                kept.push((device, attachment));
            }
        }
    }

    /// Lets some devices run what nobody knows, one after the other: from failing evidence to withdrawn grants. Only
    /// evidence that the TPM vouches for moves a state.
    pub async fn withdrawals(&mut self, count: usize) -> Result<Vec<Duration>> {
        let mut times = Vec::new();
        for (device, edge) in self.devices.drain(..).zip(self.edges.iter().cycle().cloned()).take(count) {
            let (mut device, mut attachment) = attach(edge, device, Scenario::NothingNew).await?;
            device.run_program("/tmp/implant", b"of nobody");
            attachment.changed().await?;
            let challenge = attachment.challenge().await?;
            let evidence = device.evidence(&challenge)?;
            let start = Instant::now();
            attachment.answer(evidence).await?;
            while !attachment.grants().await?.withdrawn {}
            times.push(start.elapsed());
        }
        Ok(times)
    }
}

/// Attaches and attests once, so that what follows finds the device trusted.
async fn attach(
    edge: Edge,
    mut device: SoftwareDevice,
    scenario: Scenario,
) -> Result<(SoftwareDevice, Attachment)> {
    let mut attachment = edge.attach(&device).await?;
    answer(&mut device, &mut attachment, scenario).await?;
    Ok((device, attachment))
}

async fn attest(
    mut device: SoftwareDevice,
    mut attachment: Attachment,
    scenario: Scenario,
    until: Instant,
    done: Arc<AtomicU64>,
) -> Result<(SoftwareDevice, Vec<Duration>)> {
    let mut round_trips = Vec::new();
    while Instant::now() < until {
        scenario.happens_to(&mut device);
        attachment.changed().await?;
        round_trips.push(answer(&mut device, &mut attachment, scenario).await?);
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok((device, round_trips))
}

/// Answers challenges until there is a verdict: a new boot is asked again, for all of its logs. The time is from
/// the first answer on.
async fn answer(
    device: &mut SoftwareDevice,
    attachment: &mut Attachment,
    scenario: Scenario,
) -> Result<Duration> {
    let mut start = None;
    loop {
        match attachment.next().await? {
            Message::Challenge(challenge) => {
                let evidence = scenario.evidence(device, &challenge)?;
                start.get_or_insert_with(Instant::now);
                attachment.answer(evidence).await?;
            }
            Message::Verdict(verdict) => {
                affirming(device, &verdict)?;
                return Ok(start.map(|start| start.elapsed()).unwrap_or_default());
            }
            _ => {}
        }
    }
}

fn affirming(device: &SoftwareDevice, verdict: &Verdict) -> Result<()> {
    let findings: Vec<_> = verdict.findings.iter().map(|finding| finding.message.as_str()).collect();
    ensure!(verdict.tier == "affirming", "{} is {}: {}", device.name, verdict.tier, findings.join("; "));
    Ok(())
}

/// A gateway spreads its devices over a few connections.
const CONNECTIONS: usize = 4;
