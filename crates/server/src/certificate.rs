//! Which certificates were issued, a page at a time, in the order in which they end: by serial number, SPIFFE ID, device, state
//! and how soon they end.

use assay_evidence::time::UnixTime;
use assay_identity::SpiffeId;
use data_encoding::BASE64URL_NOPAD;
use serde::Deserialize;
use thiserror::Error;

use crate::outcome::{Kind, Outcome};
use crate::store::{AfterEnd, By, Carrier, Issued, Store, StoreError, SvidRecord};

/// Which certificates, as an operator says it; an empty value says nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Which {
    /// A serial number in hex, or eight digits and more of its beginning.
    pub serial: String,
    /// Whom they name.
    pub spiffe_id: String,
    /// The device that carries them, however devices are named.
    pub device: String,
    /// A [`State`]; without one, what has not ended.
    pub state: String,
    /// Those that end within so many days.
    pub days: String,
    pub limit: String,
    /// What the page before ended with.
    pub cursor: String,
}

/// How a certificate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It is good.
    Standing,
    /// It was taken back before its end.
    Withdrawn,
    /// Its time is over.
    Ended,
}

/// Which certificates, checked.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    serial: Option<String>,
    spiffe_id: Option<String>,
    device: Option<String>,
    state: Option<State>,
    days: Option<u64>,
    limit: usize,
    after: Option<AfterEnd>,
}

/// Some certificates, and where to go on.
#[derive(Debug)]
pub(crate) struct Page {
    pub certificates: Vec<Issued>,
    /// The cursor of the page that follows; `None`: there is none.
    pub next: Option<String>,
}

impl Which {
    /// The same question, further on: what stands behind the `?` of a link.
    pub(crate) fn at(&self, cursor: &str) -> String {
        let Which { serial, spiffe_id, device, state, days, limit, cursor: _ } = self;
        let said = [
            ("serial", serial.as_str()),
            ("spiffe_id", spiffe_id),
            ("device", device),
            ("state", state),
            ("days", days),
            ("limit", limit),
            ("cursor", cursor),
        ];
        let said: Vec<_> = said.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        serde_urlencoded::to_string(said).unwrap_or_default()
    }

    /// Checks it; `device` is the SPIFFE ID of the device that is named in it, if one is.
    pub(crate) fn filter(&self, device: Option<SpiffeId>, limit: usize) -> Result<Filter, NotAFilter> {
        let said = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        let malformed = |parameter, expected| move |value| NotAFilter { parameter, value, expected };
        let serial = said(&self.serial).map(|text| {
            let serial = text.replace(':', "").to_ascii_lowercase();
            let is_hex = serial.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_long_enough = (SERIAL_DIGITS_MIN..=SERIAL_DIGITS_MAX).contains(&serial.len());
            if is_hex && is_long_enough { Ok(serial) } else { Err(text) }
        });
        let spiffe_id = said(&self.spiffe_id).map(|text| match SpiffeId::parse(&text) {
            Ok(id) => Ok(id.to_string()),
            Err(_) => Err(text),
        });
        let state = said(&self.state)
            .map(|word| State::ALL.into_iter().find(|state| state.name() == word).ok_or(word));
        let days = said(&self.days).map(|text| match text.parse() {
            Ok(days) if days <= DAYS_MAX => Ok(days),
            _ => Err(text),
        });
        let wanted = said(&self.limit).map(|text| match text.parse() {
            Ok(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            _ => Err(text),
        });
        let after = said(&self.cursor).map(|text| AfterEnd::of(&text).ok_or(text));
        Ok(Filter {
            serial: serial.transpose().map_err(malformed("serial", "8 to 40 hexadecimal digits"))?,
            spiffe_id: spiffe_id.transpose().map_err(malformed("spiffe_id", "spiffe://DOMAIN/PATH"))?,
            device: device.map(|id| id.to_string()),
            state: state.transpose().map_err(malformed("state", "standing, withdrawn or ended"))?,
            days: days.transpose().map_err(malformed("days", "0 to 36500"))?,
            limit: wanted.transpose().map_err(malformed("limit", "1 to 1000"))?.unwrap_or(limit),
            after: after.transpose().map_err(malformed("cursor", "what an earlier page ended with"))?,
        })
    }
}

impl Filter {
    /// The certificates of a page. What the index does not tell is looked at one by one, of so many and no more, so that a page
    /// may be short and another follow.
    pub(crate) async fn page(&self, store: &Store, now: UnixTime) -> Result<Page, StoreError> {
        let is_over = self.state == Some(State::Ended);
        let last = UnixTime(u64::MAX >> 1);
        // Nothing sorts before the first serial number and everything before this.
        let begin =
            if is_over { AfterEnd(UnixTime(0), String::new()) } else { AfterEnd(now, "g".to_owned()) };
        let begin = match &self.after {
            Some(after) if (after.0, &after.1) > (begin.0, &begin.1) => after,
            _ => &begin,
        };
        let within = self.days.map_or(last, |days| now.plus(days.saturating_mul(86_400)));
        let until = if is_over { now.min(within) } else { within };
        let looks = self.looks();
        let wanted = if looks { LOOKED_AT_MAX } else { self.limit };
        let asked = u32::try_from(wanted.saturating_add(1)).unwrap_or(u32::MAX);
        let mut found = store.issued(self.by(), begin, until, asked).await?;
        let is_more = found.len() > wanted;
        found.truncate(wanted);
        let last_looked_at = found.last().map(|issued| cursor(&issued.svid));
        found.retain(|issued| self.means(issued, now));
        let is_cut = found.len() > self.limit;
        found.truncate(self.limit);
        let next = match (is_cut, is_more) {
            (true, _) => found.last().map(|issued| cursor(&issued.svid)),
            (false, true) => last_looked_at,
            (false, false) => None,
        };
        Ok(Page { certificates: found, next })
    }

    /// The way that leaves the fewest to look at.
    fn by(&self) -> By<'_> {
        match (&self.serial, &self.device, &self.spiffe_id, self.state) {
            (Some(serial), ..) => By::Serial(serial),
            (None, Some(device), ..) => By::Device(device),
            (None, None, Some(name), _) => By::Name(name),
            (None, None, None, Some(State::Standing)) => By::Standing,
            (None, None, None, Some(State::Withdrawn)) => By::Withdrawal,
            (None, None, None, Some(State::Ended) | None) => By::End,
        }
    }

    /// Whether there is more to a certificate than what it is come by.
    fn looks(&self) -> bool {
        let named = [&self.serial, &self.device, &self.spiffe_id].into_iter().flatten().count();
        named > 1 || (named == 1 && self.state.is_some())
    }

    fn means(&self, Issued { svid, .. }: &Issued, now: UnixTime) -> bool {
        let is_of = |device: &str| match &svid.carrier {
            Carrier::Device { id, .. } | Carrier::Node { id, .. } => id == device,
            Carrier::Operator | Carrier::Renewal { .. } => false,
        };
        self.serial.as_deref().is_none_or(|serial| svid.serial.starts_with(serial))
            && self.spiffe_id.as_deref().is_none_or(|name| svid.spiffe_id == name)
            && self.device.as_deref().is_none_or(is_of)
            && self.state.is_none_or(|state| state == State::of(svid, now))
    }
}

impl State {
    const ALL: [State; 3] = [State::Standing, State::Withdrawn, State::Ended];

    /// How a certificate stands.
    pub(crate) fn of(svid: &SvidRecord, now: UnixTime) -> State {
        match (svid.not_after > now, svid.withdrawn_at) {
            (false, _) => State::Ended,
            (true, Some(_)) => State::Withdrawn,
            (true, None) => State::Standing,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            State::Standing => "standing",
            State::Withdrawn => "withdrawn",
            State::Ended => "ended",
        }
    }
}

impl AfterEnd {
    fn of(cursor: &str) -> Option<AfterEnd> {
        let text = String::from_utf8(BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?).ok()?;
        let (at, serial) = text.split_once(' ')?;
        let is_serial =
            serial.len() <= SERIAL_DIGITS_MAX && serial.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_serial.then_some(AfterEnd(UnixTime(at.parse().ok()?), serial.to_owned()))
    }
}

fn cursor(svid: &SvidRecord) -> String {
    BASE64URL_NOPAD.encode(format!("{} {}", svid.not_after.0, svid.serial).as_bytes())
}

/// What a filter says that none can say.
#[derive(Debug, Error)]
#[error("{parameter}: {value:?} is not {expected}")]
pub(crate) struct NotAFilter {
    parameter: &'static str,
    value: String,
    expected: &'static str,
}

impl Outcome for NotAFilter {
    fn told(&self) -> (Kind, &'static str) {
        (Kind::Malformed, "parameter")
    }
}

/// Fewer begin many serial numbers.
const SERIAL_DIGITS_MIN: usize = 8;
/// RFC 5280 §4.1.2.2: 20 octets.
const SERIAL_DIGITS_MAX: usize = 40;
const DAYS_MAX: u64 = 36_500;
const LIMIT_MAX: usize = 1000;
/// More than one device or name has that have not ended.
const LOOKED_AT_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(change: impl FnOnce(&mut Which)) -> Result<Filter, String> {
        let mut which = Which::default();
        change(&mut which);
        which.filter(None, 50).map_err(|error| error.to_string())
    }

    #[test]
    fn what_no_certificate_can_be_asked_is_said() {
        assert!(filter(|_| {}).is_ok());
        assert_eq!(filter(|which| which.serial = "AB:CD:EF:01".into()).unwrap().serial.unwrap(), "abcdef01");
        for (change, named) in [
            ((|which: &mut Which| which.serial = "abc".into()) as fn(&mut Which), "serial"),
            (|which| which.serial = "x".repeat(20), "serial"),
            (|which| which.serial = "0".repeat(41), "serial"),
            (|which| which.spiffe_id = "edge-1".into(), "spiffe_id"),
            (|which| which.state = "good".into(), "state"),
            (|which| which.days = "-1".into(), "days"),
            (|which| which.days = "36501".into(), "days"),
            (|which| which.limit = "0".into(), "limit"),
            (|which| which.limit = "1001".into(), "limit"),
            (|which| which.cursor = "?".into(), "cursor"),
            (|which| which.cursor = BASE64URL_NOPAD.encode(b"1 x"), "cursor"),
        ] {
            let error = filter(change).unwrap_err();
            assert!(error.starts_with(named), "{error}");
        }
    }

    #[test]
    fn a_cursor_goes_on_where_a_page_ended() {
        let after = AfterEnd(UnixTime(7), "0abc".to_owned());
        let text = BASE64URL_NOPAD.encode(b"7 0abc");
        assert_eq!(AfterEnd::of(&text), Some(after));
    }
}
