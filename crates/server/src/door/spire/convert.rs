//! SPIRE's values from and to ours.

use assay_evidence::time::UnixTime;
use assay_identity::selector::Written;
use assay_identity::{ForeignBundle, Serial, SpiffeId, TrustDomain};
use assay_wire::spire::types;
use tonic::Status;

use super::status::{malformed, refused};
use crate::keys::Chain;
use crate::outcome::Refusal;
use crate::spire::SpireAgent;
use crate::store::{EntryRecord, OwnSvid};

/// An ID of ours as SPIRE has it.
pub(super) fn id(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid { trust_domain: id.trust_domain().to_string(), path: id.path().to_owned() }
}

/// An ID of the store's.
fn stored_id(text: &str) -> Option<types::Spiffeid> {
    SpiffeId::parse(text).ok().map(|parsed| id(&parsed))
}

/// An ID as SPIRE sends it.
pub(super) fn read_id(what: &str, sent: Option<types::Spiffeid>) -> Result<SpiffeId, Refusal> {
    let types::Spiffeid { trust_domain, path } =
        sent.ok_or_else(|| malformed(format!("{what}: no SPIFFE ID was sent")))?;
    let read = TrustDomain::parse(&trust_domain).and_then(|domain| domain.with_path(&path));
    read.map_err(|error| malformed(format!("{what}: {error}")))
}

/// The same of this trust domain's.
pub(super) fn own_id(
    what: &str,
    sent: Option<types::Spiffeid>,
    trust_domain: &TrustDomain,
) -> Result<SpiffeId, Refusal> {
    let id = read_id(what, sent)?;
    match id.trust_domain() == trust_domain {
        true => Ok(id),
        false => Err(malformed(format!("{what}: {id} is not of {trust_domain}"))),
    }
}

pub(super) fn seconds(at: UnixTime) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

fn small(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// How many, as SPIRE counts.
pub(super) fn count(of: usize) -> i32 {
    i32::try_from(of).unwrap_or(i32::MAX)
}

pub(super) fn x509_svid(of: &SpiffeId, chain: Chain) -> types::X509svid {
    types::X509svid {
        cert_chain: chain.certificates,
        id: Some(id(of)),
        expires_at: seconds(chain.not_after),
        hint: String::new(),
    }
}

fn selector(written: Written) -> types::Selector {
    types::Selector { r#type: written.kind, value: written.value }
}

pub(super) fn written(sent: types::Selector) -> Written {
    Written { kind: sent.r#type, value: sent.value }
}

/// An entry, with what was asked for of it.
pub(super) fn entry(record: &EntryRecord, mask: Option<&types::EntryMask>) -> types::Entry {
    let all = types::EntryMask {
        spiffe_id: true,
        parent_id: true,
        selectors: true,
        x509_svid_ttl: true,
        federates_with: true,
        expires_at: true,
        dns_names: true,
        revision_number: true,
        jwt_svid_ttl: true,
        hint: true,
        created_at: true,
        ..types::EntryMask::default()
    };
    let mask = mask.unwrap_or(&all);
    let selectors = record.selectors.iter().cloned().map(Written::from).map(selector);
    types::Entry {
        id: record.id.clone(),
        spiffe_id: stored_id(&record.spiffe_id).filter(|_| mask.spiffe_id),
        parent_id: stored_id(&record.parent).filter(|_| mask.parent_id),
        selectors: if mask.selectors { selectors.collect() } else { Vec::new() },
        x509_svid_ttl: if mask.x509_svid_ttl { small(record.ttl_seconds) } else { 0 },
        jwt_svid_ttl: if mask.jwt_svid_ttl { small(record.jwt_ttl_seconds) } else { 0 },
        federates_with: if mask.federates_with { record.federates_with.clone() } else { Vec::new() },
        expires_at: if mask.expires_at { seconds(record.expires_at) } else { 0 },
        dns_names: if mask.dns_names { record.dns_names.clone() } else { Vec::new() },
        revision_number: if mask.revision_number { revision(record) } else { 0 },
        hint: if mask.hint { record.hint.clone() } else { String::new() },
        created_at: if mask.created_at { seconds(record.created_at) } else { 0 },
        ..types::Entry::default()
    }
}

/// A bundle, with what was asked for of it.
pub(super) fn bundle(bundle: &ForeignBundle, mask: Option<&types::BundleMask>) -> types::Bundle {
    let x509 = bundle.x509().authorities();
    let x509 = x509.map(|der| types::X509Certificate { asn1: der.to_vec(), tainted: false });
    let jwt = bundle.jwt_authorities().into_iter();
    let jwt =
        jwt.map(|(key_id, public_key)| types::JwtKey { public_key, key_id, expires_at: 0, tainted: false });
    let asked = |is_asked: fn(&types::BundleMask) -> bool| mask.is_none_or(is_asked);
    let hint = i64::try_from(bundle.refresh_hint_seconds()).unwrap_or(i64::MAX);
    types::Bundle {
        trust_domain: bundle.trust_domain().to_string(),
        x509_authorities: if asked(|mask| mask.x509_authorities) { x509.collect() } else { Vec::new() },
        jwt_authorities: if asked(|mask| mask.jwt_authorities) { jwt.collect() } else { Vec::new() },
        refresh_hint: if asked(|mask| mask.refresh_hint) { hint } else { 0 },
        sequence_number: if asked(|mask| mask.sequence_number) { bundle.sequence() } else { 0 },
    }
}

/// A bundle as SPIRE sends it.
pub(super) fn read_bundle(sent: types::Bundle) -> Result<ForeignBundle, Refusal> {
    let trust_domain = trust_domain("bundle", &sent.trust_domain)?;
    let x509 = sent.x509_authorities.into_iter().map(|authority| authority.asn1);
    let jwt = sent.jwt_authorities.into_iter().map(|key| (key.key_id, key.public_key));
    let hint = u64::try_from(sent.refresh_hint).unwrap_or(0);
    ForeignBundle::of(trust_domain, x509, jwt, (sent.sequence_number, hint))
        .map_err(|error| malformed(format!("bundle: {error}")))
}

/// A trust domain as SPIRE sends it: its name, or its ID.
pub(super) fn trust_domain(what: &str, sent: &str) -> Result<TrustDomain, Refusal> {
    let name = sent.strip_prefix("spiffe://").unwrap_or(sent);
    TrustDomain::parse(name).map_err(|error| malformed(format!("{what}: {error}")))
}

/// SPIRE counts changes from 0.
pub(super) fn revision(record: &EntryRecord) -> i64 {
    i64::try_from(record.revision.saturating_sub(1)).unwrap_or(i64::MAX)
}

/// A node, with what was asked for of it.
pub(super) fn agent(
    agent: &SpireAgent,
    own: Option<&OwnSvid>,
    mask: Option<&types::AgentMask>,
) -> types::Agent {
    let all = types::AgentMask {
        attestation_type: true,
        x509svid_serial_number: true,
        x509svid_expires_at: true,
        selectors: true,
        banned: true,
        can_reattest: true,
        agent_version: true,
    };
    let mask = mask.unwrap_or(&all);
    let record = &agent.record;
    let serial = own.and_then(|own| Serial::from_hex(&own.serial)).map(|serial| decimal(serial.as_bytes()));
    let selectors = record.selectors.iter().cloned().map(selector);
    types::Agent {
        id: Some(id(&agent.id)),
        attestation_type: if mask.attestation_type { record.attestor.clone() } else { String::new() },
        x509svid_serial_number: serial.filter(|_| mask.x509svid_serial_number).unwrap_or_default(),
        x509svid_expires_at: if mask.x509svid_expires_at { seconds(record.trust.valid_until) } else { 0 },
        selectors: if mask.selectors { selectors.collect() } else { Vec::new() },
        banned: mask.banned && is_banned(agent),
        can_reattest: mask.can_reattest && record.can_reattest,
        agent_version: if mask.agent_version { record.agent_version.clone() } else { String::new() },
    }
}

/// Whether an operator ended it.
pub(super) fn is_banned(agent: &SpireAgent) -> bool {
    agent.state.status() == assay_trust::Status::Revoked
}

/// A number in big-endian bytes, in decimal digits.
fn decimal(bytes: &[u8]) -> String {
    let mut digits = vec![0_u8];
    for byte in bytes {
        let mut carry = u32::from(*byte);
        for digit in &mut digits {
            carry += u32::from(*digit) * 256;
            *digit = u8::try_from(carry % 10).unwrap_or_default();
            carry /= 10;
        }
        while carry > 0 {
            digits.push(u8::try_from(carry % 10).unwrap_or_default());
            carry /= 10;
        }
    }
    digits.iter().rev().map(|digit| char::from(b'0' + digit)).collect()
}

/// A time as SPIRE's command line sends it: `2026-01-02 15:04:05 -0700 -07`.
pub(super) fn time(text: &str) -> Option<UnixTime> {
    let mut parts = text.split(' ');
    let (date, clock, zone) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |text: &str| text.parse::<i64>().ok();
    let mut date = date.split('-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let mut clock = clock.split(':').map(number);
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let digits = zone.get(1..5)?;
    let ahead = sign * (number(digits.get(..2)?)? * 3600 + number(digits.get(2..)?)? * 60);
    let is_time = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second);
    let seconds = days_from_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - ahead;
    is_time.then_some(UnixTime(u64::try_from(seconds).ok()?))
}

/// Of the Gregorian calendar; years begin in March, so that a leap day is the last of one.
fn days_from_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 719_469
}

/// As many as may be on a page, of those that were asked for.
pub(super) fn page_size(asked: i32) -> Result<usize, Status> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE_MAX),
        Ok(asked) => Ok(asked.min(PAGE_MAX)),
        Err(_) => Err(refused(malformed("page_size: it is below 0"))),
    }
}

/// As SPIRE's pages.
const PAGE_MAX: usize = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_of_the_command_line_is_read() {
        assert_eq!(time("1970-01-01 00:00:00 +0000 UTC"), Some(UnixTime(0)));
        assert_eq!(time("2026-11-30 04:17:46 +0000 UTC"), Some(UnixTime(1_796_012_266)));
        assert_eq!(time("2024-02-29 23:00:00 -0100 -01"), Some(UnixTime(1_709_251_200)));
        for bad in
            ["", "2026-01-02", "2026-13-02 00:00:00 +0000", "2026-01-02 00:00:00 x", "a-b-c d:e:f +0000"]
        {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn serial_numbers_are_told_in_decimal() {
        for (bytes, text) in [
            (&[][..], "0"),
            (&[0x09], "9"),
            (&[0x01, 0x00], "256"),
            (&[0xff; 8], "18446744073709551615"),
            (&[0x40, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1], "85070591730234615865843651857942052865"),
        ] {
            assert_eq!(decimal(bytes), text);
        }
    }
}
