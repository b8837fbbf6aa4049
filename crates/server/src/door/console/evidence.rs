//! What a device's evidence says, for people: a result on record, judged again and read aloud.

use std::sync::Arc;

use assay_trust::reading::{self, Reading, Stage, ToldBy};
use assay_wire::console::device::Finding;
use assay_wire::console::reading as wire;
use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;

use super::devices::find;
use super::parameters::Asked;
use crate::archive::reading::Read;
use crate::device::Device;
use crate::outcome::{Kind, Refusal};
use crate::parts::Server;

/// Which result; without one, the last whose evidence is kept.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Which {
    result: Option<u64>,
}

pub(super) const PARAMETERS: &[&str] = &["result"];

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    Asked(which): Asked<Which>,
) -> Result<Json<wire::Read>, Refusal> {
    let device = find(&server, &name).await?;
    read(&server, &device, which).await.map(Json)
}

/// Reads a result of a device aloud.
pub(super) async fn read(server: &Server, device: &Device, which: Which) -> Result<wire::Read, Refusal> {
    let result = match which.result {
        Some(result) => result,
        None => last_kept(server, device).await?,
    };
    let read = Read::load(&server.store, &server.readings, device.id.as_str(), result).await?;
    let again = wire::Again {
        is_same: read.is_on_record(),
        tier: read.again.as_ref().map(|result| result.tier().name().to_owned()).unwrap_or_default(),
        error: read.again.as_ref().err().map(ToString::to_string),
    };
    let Read { kept, reading, .. } = read;
    let findings: Vec<Finding> = serde_json::from_value(kept.findings).unwrap_or_default();
    Ok(wire::Read {
        device: kept.device,
        result,
        at: Some(kept.evidence.at),
        tier: kept.tier,
        policy: kept.policy,
        findings,
        again,
        reading: reading.map(told),
    })
}

async fn last_kept(server: &Server, device: &Device) -> Result<u64, Refusal> {
    let results = server.store.appraisals(device.id.as_str(), RESULTS_LOOKED_AT_MAX).await?;
    let kept = results.into_iter().find(|(_, _, is_kept)| *is_kept).map(|(result, ..)| result);
    kept.ok_or_else(|| {
        let message = "no evidence of it is kept: it was not judged yet, or what was judged grew too old \
                       (evidence_retention_seconds) or went to make room (evidence_bytes_max)";
        Refusal::new(Kind::NotFound, "evidence-not-kept", message)
    })
}

fn told(reading: Reading) -> wire::Reading {
    let fact = |(title, value): (&str, String)| wire::Fact { title: title.to_owned(), value };
    wire::Reading {
        tpm: reading.tpm.into_iter().map(fact).collect(),
        stages: reading.stages.into_iter().map(stage).collect(),
        pcrs: reading.pcrs.into_iter().map(pcr).collect(),
        files: reading.files.map(files),
    }
}

fn stage(stage: Stage) -> wire::Stage {
    let covered = stage.covered.iter().map(|covered| wire::Covered {
        row: covered.row.name().to_owned(),
        cover: covered.cover.to_string(),
        meaning: covered.meaning.to_owned(),
    });
    wire::Stage {
        what: stage.what.name().to_owned(),
        covered: covered.collect(),
        name: stage.name,
        details: stage.details,
        digest: stage.digest.map(|digest| digest.to_string()),
        pcrs: stage.pcrs.iter().map(|pcr| u32::from(pcr.get())).collect(),
    }
}

fn pcr(pcr: reading::QuotedPcr) -> wire::QuotedPcr {
    let told_by = match pcr.told_by {
        ToldBy::Nothing => "nothing",
        ToldBy::BootLog => "boot-log",
        ToldBy::ImaList => "ima-list",
        ToldBy::NoLog => "no-log",
    };
    let line = |line: reading::PolicyLine| wire::PolicyLine { line: line.line, holds: line.holds };
    wire::QuotedPcr {
        index: pcr.index.get().into(),
        about: pcr.about.to_owned(),
        value: pcr.value.to_string(),
        told_by: told_by.to_owned(),
        events: u64::try_from(pcr.events).unwrap_or(u64::MAX),
        lines: pcr.lines.into_iter().map(line).collect(),
    }
}

fn files(files: reading::Files) -> wire::Files {
    let of_standing = |(standing, count): (reading::Standing, u64)| wire::Standing {
        standing: standing.words().to_owned(),
        count,
    };
    let file = |file: reading::File| wire::File {
        path: file.path,
        digest: file.digest,
        standing: file.standing.map(|standing| standing.words().to_owned()),
    };
    wire::Files {
        attested: files.attested,
        undecided: u64::try_from(files.undecided).unwrap_or(u64::MAX),
        by_standing: files.by_standing.into_iter().map(of_standing).collect(),
        latest: files.latest.into_iter().map(file).collect(),
    }
}

/// Results that are looked through for one whose evidence is kept.
const RESULTS_LOOKED_AT_MAX: u32 = 100;
