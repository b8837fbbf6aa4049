//! Which devices there are, a page at a time: by status, labels, name, and whether they are attached.
//!
//! A page is read along one index of the store from where the one before ended. What that index cannot tell is looked at
//! device by device, of so many and no more, so that a page may be short and another follow.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use assay_trust::Status;
use assay_trust::labels::{LabelError, Labels, Selector};
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use thiserror::Error;

use crate::attest::table::Registry;
use crate::outcome::{Kind, Outcome};
use crate::store::{Along, Candidate, DeviceRecord, Store, StoreError};

/// Which devices, as an operator says it; an empty value says nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Which {
    pub status: String,
    /// `key=value,…`: those that have all of them.
    pub label: String,
    /// A whole name, or the beginning of one before a `*`.
    pub name: String,
    /// `true` or `false`.
    pub attached: String,
    pub limit: String,
    /// What the page before ended with.
    pub cursor: String,
}

/// Which devices, checked.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    status: Option<Status>,
    labels: Labels,
    /// The labels of those that whoever asks may see.
    scope: Selector,
    names: RangeInclusive<String>,
    attached: Option<bool>,
    limit: usize,
}

/// Some devices, and where to go on.
#[derive(Debug)]
pub(crate) struct Page {
    /// In the order of their names.
    pub devices: Vec<DeviceRecord>,
    /// How many certificates each of them holds.
    pub svids: HashMap<String, u64>,
    /// The cursor of the page that follows; `None`: there is none.
    pub next: Option<String>,
}

impl Which {
    /// The same question, further on: what stands behind the `?` of a link.
    pub(crate) fn at(&self, cursor: &str) -> String {
        let Which { status, label, name, attached, limit, .. } = self;
        let said =
            [("status", status), ("label", label), ("name", name), ("attached", attached), ("limit", limit)];
        let said = said.into_iter().filter(|(_, value)| !value.is_empty());
        let said = said.map(|(parameter, value)| format!("{parameter}={}&", percent_encoded(value)));
        said.collect::<String>() + "cursor=" + cursor
    }

    /// Of these, those that have the labels of the scope.
    pub(crate) fn filter(&self, limit_default: usize, scope: Selector) -> Result<Filter, NotAFilter> {
        let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let malformed = |parameter, expected| move |value| NotAFilter::Value { parameter, value, expected };
        let status = said(&self.status).map(|word| {
            let status = LISTED.into_iter().find(|status| status.name() == word);
            status
                .ok_or(word)
                .map_err(malformed("status", "pending, enrolled, trusted, suspect, expired or revoked"))
        });
        let attached = said(&self.attached)
            .map(|word| word.parse().map_err(|_| malformed("attached", "true or false")(word)));
        let limit = said(&self.limit).map(|word| {
            let limit = word.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
            limit.ok_or(word).map_err(malformed("limit", "1 to 1000"))
        });
        let cursor = said(&self.cursor).map(|word| {
            let name = BASE64URL_NOPAD.decode(word.as_bytes()).ok().and_then(|it| String::from_utf8(it).ok());
            name.ok_or(word).map_err(malformed("cursor", "what an earlier page ended with"))
        });
        Ok(Filter {
            status: status.transpose()?,
            labels: self.label.parse()?,
            scope,
            names: names(&self.name, cursor.transpose()?),
            attached: attached.transpose()?,
            limit: limit.transpose()?.unwrap_or(limit_default),
        })
    }
}

fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encoded = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(encoded).collect()
}

/// From where to where.
fn names(wanted: &str, cursor: Option<String>) -> RangeInclusive<String> {
    let (first, last) = match wanted.strip_suffix('*') {
        Some(beginning) => (beginning, format!("{beginning}{}", char::MAX)),
        None if wanted.is_empty() => ("", char::MAX.to_string()),
        None => (wanted, wanted.to_owned()),
    };
    let first = cursor.filter(|cursor| cursor.as_str() > first).unwrap_or_else(|| first.to_owned());
    first..=last
}

impl Filter {
    /// The devices of a page.
    pub(crate) async fn page(
        &self,
        store: &Store,
        registry: &Registry,
        now: UnixTime,
    ) -> Result<Page, StoreError> {
        let label =
            self.labels.iter().chain(self.scope.iter()).next().map(|(key, value)| format!("{key}={value}"));
        let along = match (&label, self.status) {
            (Some(label), _) => Along::Label(label),
            (None, Some(status)) => Along::Status(status.name()),
            (None, None) => Along::Names,
        };
        // Where the index tells all, as many are read as are wanted, and the one after.
        let looks = self.labels.iter().chain(self.scope.iter()).count() > 1 || self.attached.is_some();
        let looks = looks || (label.is_some() && self.status.is_some());
        let wanted = if looks { LOOKED_AT_MAX } else { self.limit };
        let candidates = store.devices_along(along, &self.names, wanted.saturating_add(1)).await?;
        let (found, next) = self.pick(&candidates, wanted, registry, now)?;
        let ids: Vec<&str> = found.iter().map(|found| found.id.as_str()).collect();
        Ok(Page {
            devices: store.devices_of(&ids).await?,
            svids: store.standing_svids(&ids, now).await?.into_iter().collect(),
            next: next.map(|next| BASE64URL_NOPAD.encode(next.name.as_bytes())),
        })
    }

    /// Those that are meant of the first `wanted`, up to the limit, and the first that was not looked at.
    fn pick<'a>(
        &self,
        candidates: &'a [Candidate],
        wanted: usize,
        registry: &Registry,
        now: UnixTime,
    ) -> Result<(Vec<&'a Candidate>, Option<&'a Candidate>), StoreError> {
        let (mut found, mut rest) = (Vec::new(), candidates.iter());
        while found.len() < self.limit && candidates.len() - rest.len() < wanted {
            let Some(candidate) = rest.next() else { break };
            if self.means(candidate, registry, now)? {
                found.push(candidate);
            }
        }
        Ok((found, rest.next()))
    }

    fn means(&self, candidate: &Candidate, registry: &Registry, now: UnixTime) -> Result<bool, StoreError> {
        let corrupt = |column| StoreError::Corrupt { column };
        if let Some(status) = self.status {
            // A trusted device whose time ran out this second is not trusted, and expired with the next.
            let is_over = status == Status::Trusted && candidate.valid_until <= now;
            if candidate.status != status.name() || is_over {
                return Ok(false);
            }
        }
        let labels: Labels = candidate.labels.parse().map_err(|_| corrupt("devices.labels"))?;
        let is_meant = self.labels.iter().all(|wanted| labels.iter().any(|label| label == wanted));
        if !is_meant || !self.scope.matches(&labels) {
            return Ok(false);
        }
        let Some(attached) = self.attached else { return Ok(true) };
        let id = SpiffeId::parse(&candidate.id).map_err(|_| corrupt("devices.id"))?;
        Ok(registry.is_attached(&id) == attached)
    }
}

/// Why something says of no device whether it is meant.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum NotAFilter {
    /// A value of no use.
    #[error("{parameter}: {value:?} is not {expected}")]
    Value {
        /// Where.
        parameter: &'static str,
        /// What was said.
        value: String,
        /// What can be.
        expected: &'static str,
    },
    /// No label.
    #[error("label: {0}")]
    Label(#[from] LabelError),
}

impl Outcome for NotAFilter {
    fn told(&self) -> (Kind, &'static str) {
        (Kind::Malformed, "parameter")
    }
}

/// The statuses that a device on record has.
const LISTED: [Status; 6] =
    [Status::Pending, Status::Enrolled, Status::Trusted, Status::Suspect, Status::Expired, Status::Revoked];
/// Devices of a page: half a megabyte of JSON.
const LIMIT_MAX: usize = 1000;
/// Devices that are looked at for a page: some milliseconds.
const LOOKED_AT_MAX: usize = 2000;
