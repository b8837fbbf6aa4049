//! What a leaf of the trail is to those outside: how grave, as a CloudEvent (1.0, JSON), and signed so that a receiver knows who
//! sent it and when (Standard Webhooks 1.0: HMAC-SHA-256).
//!
//! Pure: leaves, keys and times are arguments.

use assay_evidence::time::UnixTime;
use assay_identity::TrustDomain;
use aws_lc_rs::hmac;
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::audit::{Kind, Leaf};

/// How grave something is, the least first.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// What goes on all the time: certificates, telemetry, evidence that was good.
    Info,
    /// What people changed.
    Notice,
    /// What may become worse: silence, evidence that grew old, an attempt that was refused.
    #[default]
    Warning,
    /// Trust that was lost, by evidence or by an operator's word.
    Critical,
}

/// The key that notices to one receiver are signed with.
#[derive(Debug)]
pub(crate) struct NoticeKey(hmac::Key);

/// A signature and what it is over beside the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Signed {
    /// The event's name, the same whenever it is sent again.
    pub id: String,
    /// When it was sent.
    pub timestamp: u64,
    /// `v1,` and the HMAC in Base64.
    pub signature: String,
}

/// A text is no key.
#[derive(Debug, PartialEq, Eq, Error)]
#[error(
    "is whsec_ and 24 to 64 random bytes in Base64, such as this prints: echo whsec_$(openssl rand -base64 32)"
)]
pub struct NoKey;

impl Severity {
    /// How grave a leaf is by itself.
    pub(crate) fn of(leaf: &Leaf) -> Severity {
        let Some(kind) = Kind::from_name(&leaf.kind) else { return Severity::Notice };
        match kind {
            Kind::DeviceAppraised => of_appraisal(&leaf.detail),
            Kind::DeviceRevoked
            | Kind::DeviceReplaced
            | Kind::GatewayRevoked
            | Kind::OperatorRevoked
            | Kind::LedgerResumed
            | Kind::SpireAgentBanned => Severity::Critical,
            Kind::DeviceExpired
            | Kind::DeviceUnanswered
            | Kind::DeviceWaiting
            | Kind::SpireAgentExpired
            | Kind::FederationBundleRemoved
            | Kind::EntryUnmet
            | Kind::TelemetryDropped
            | Kind::TaskWithdrawn
            | Kind::TaskEnded
            | Kind::SecurityRefused => Severity::Warning,
            Kind::DeviceEnrolled
            | Kind::DeviceAdmitted
            | Kind::DeviceDenied
            | Kind::DeviceReadmitted
            | Kind::DeviceApproved
            | Kind::DeviceLabelled
            | Kind::DeviceRenamed
            | Kind::TelemetryKeyAdded
            | Kind::TelemetryKeyRemoved
            | Kind::PolicySet
            | Kind::JoinTokenCreated
            | Kind::FederationSet
            | Kind::FederationEnded
            | Kind::FederationBundleSet
            | Kind::SpireAgentAttested
            | Kind::SpireAgentEvicted
            | Kind::KeylimeAgentBound
            | Kind::KeylimeAgentRemoved
            | Kind::KeylimeAgentAdded
            | Kind::KeylimeAgentDropped
            | Kind::PolicyUnassigned
            | Kind::RolloutStarted
            | Kind::RolloutWidened
            | Kind::RolloutFinished
            | Kind::RolloutAborted
            | Kind::SecretPut
            | Kind::SecretRotated
            | Kind::SecretAssigned
            | Kind::SecretRevoked
            | Kind::AccessTokenCreated
            | Kind::AccessTokenRevoked
            | Kind::EntryCreated
            | Kind::EntryUpdated
            | Kind::EntryRemoved => Severity::Notice,
            Kind::SvidIssued
            | Kind::JwtIssued
            | Kind::SvidWithdrawn
            | Kind::SecretReleased
            | Kind::SecretWithdrawn
            | Kind::PersonSignedIn
            | Kind::TaskSubmitted
            | Kind::TaskPlaced
            | Kind::TaskResult
            | Kind::TelemetryAccepted
            | Kind::TelemetrySealed => Severity::Info,
        }
    }
}

/// What is no good result is grave, and what cannot be read is no good result.
fn of_appraisal(detail: &str) -> Severity {
    let detail: Value = serde_json::from_str(detail).unwrap_or_default();
    match detail.get("tier").and_then(Value::as_str) {
        Some("affirming") => Severity::Info,
        Some("warning") => Severity::Warning,
        _ => Severity::Critical,
    }
}

/// A CloudEvent in its JSON form.
#[derive(Serialize)]
struct CloudEvent<'a> {
    specversion: &'static str,
    id: String,
    source: String,
    #[serde(rename = "type")]
    kind: String,
    subject: &'a str,
    time: String,
    datacontenttype: &'static str,
    severity: Severity,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    leaf: u64,
    kind: &'a str,
    actor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    hash: String,
    detail: Value,
}

/// A leaf as a CloudEvent; `device`: what people call the device that it is about.
pub(crate) fn event(
    trust_domain: &TrustDomain,
    leaf: &Leaf,
    severity: Severity,
    device: Option<&str>,
) -> Vec<u8> {
    let event = CloudEvent {
        specversion: "1.0",
        id: id(leaf.index),
        source: format!("{}/assay/ledger", trust_domain.id()),
        kind: format!("assay.{}", leaf.kind),
        subject: &leaf.subject,
        time: leaf.at.to_string(),
        datacontenttype: "application/json",
        severity,
        data: Data {
            leaf: leaf.index,
            kind: &leaf.kind,
            actor: &leaf.actor,
            device,
            hash: HEXLOWER.encode(&leaf.hash),
            detail: serde_json::from_str(&leaf.detail).unwrap_or_default(),
        },
    };
    serde_json::to_vec(&event).unwrap_or_default()
}

fn id(leaf: u64) -> String {
    format!("leaf-{leaf}")
}

impl NoticeKey {
    /// Reads `whsec_` and Base64.
    pub(crate) fn read(text: &str) -> Result<NoticeKey, NoKey> {
        let encoded = text.trim().strip_prefix("whsec_").ok_or(NoKey)?;
        let secret = BASE64.decode(encoded.as_bytes()).map_err(|_| NoKey)?;
        let is_fit = SECRET_BYTES.contains(&secret.len());
        is_fit.then(|| NoticeKey(hmac::Key::new(hmac::HMAC_SHA256, &secret))).ok_or(NoKey)
    }

    /// Signs what is sent of a leaf now.
    pub(crate) fn sign(&self, leaf: u64, body: &[u8], now: UnixTime) -> Signed {
        let (id, timestamp) = (id(leaf), now.0);
        let mut over = hmac::Context::with_key(&self.0);
        over.update(format!("{id}.{timestamp}.").as_bytes());
        over.update(body);
        let signature = format!("v1,{}", BASE64.encode(over.sign().as_ref()));
        Signed { id, timestamp, signature }
    }
}

const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(kind: &str, detail: &str) -> Leaf {
        Leaf {
            index: 7,
            at: UnixTime(1_700_000_000),
            kind: kind.to_owned(),
            actor: "server".to_owned(),
            subject: "spiffe://td/assay/device/ab".to_owned(),
            detail: detail.to_owned(),
            hash: [0xab; 32],
        }
    }

    #[test]
    fn what_loses_trust_is_critical_and_what_cannot_be_read_as_well() {
        for (kind, detail, severity) in [
            ("device.appraised", r#"{"tier":"affirming"}"#, Severity::Info),
            ("device.appraised", r#"{"tier":"warning"}"#, Severity::Warning),
            ("device.appraised", r#"{"tier":"contraindicated"}"#, Severity::Critical),
            ("device.appraised", r#"{"tier":"none"}"#, Severity::Critical),
            ("device.appraised", "no JSON", Severity::Critical),
            ("device.revoked", "{}", Severity::Critical),
            ("device.expired", "{}", Severity::Warning),
            ("policy.set", "{}", Severity::Notice),
            ("svid.issued", "{}", Severity::Info),
            ("of.a.later.version", "{}", Severity::Notice),
        ] {
            assert_eq!(Severity::of(&leaf(kind, detail)), severity, "{kind} {detail}");
        }
    }

    #[test]
    fn the_guide_names_every_kind() {
        let guide = std::fs::read_to_string("../../docs/howto/webhooks.md").unwrap();
        for kind in Kind::ALL {
            assert!(guide.contains(&format!("`{}`", kind.name())), "{} is not in the guide", kind.name());
        }
    }

    #[test]
    fn a_leaf_is_a_cloud_event() {
        let trust_domain = TrustDomain::parse("td").unwrap();
        let leaf = leaf("device.revoked", r#"{"reason":"stolen"}"#);
        let event = event(&trust_domain, &leaf, Severity::Critical, Some("press-1"));
        let event: Value = serde_json::from_slice(&event).unwrap();
        let expected = serde_json::json!({
            "specversion": "1.0", "id": "leaf-7", "source": "spiffe://td/assay/ledger",
            "type": "assay.device.revoked", "subject": "spiffe://td/assay/device/ab",
            "time": "2023-11-14T22:13:20Z", "datacontenttype": "application/json", "severity": "critical",
            "data": { "leaf": 7, "kind": "device.revoked", "actor": "server", "device": "press-1",
                "hash": "ab".repeat(32), "detail": { "reason": "stolen" } },
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn it_is_signed_with_its_name_and_the_time() {
        // Computed by openssl dgst -sha256 -mac HMAC over "leaf-7.1700000000.{}".
        let key = NoticeKey::read("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap();
        let signed = key.sign(7, b"{}", UnixTime(1_700_000_000));
        assert_eq!((signed.id.as_str(), signed.timestamp), ("leaf-7", 1_700_000_000));
        assert_eq!(signed.signature, "v1,EJgcpHayB//fAcOv1lg1KUSMRQ/NV6hmXmZ0A3Dh1mY=");
        assert_ne!(key.sign(8, b"{}", UnixTime(1_700_000_000)).signature, signed.signature);
        assert_ne!(key.sign(7, b"{}", UnixTime(1_700_000_001)).signature, signed.signature);
    }

    #[test]
    fn a_key_is_long_and_random_or_none() {
        for text in
            ["", "secret", "whsec_", "whsec_AAAA", "whsec_not base64", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYX"]
        {
            assert_eq!(NoticeKey::read(text).unwrap_err(), NoKey, "{text}");
        }
        assert!(NoticeKey::read("whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX\n").is_ok());
    }
}
