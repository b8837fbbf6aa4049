//! Which entries there are, a page at a time: by identity, device, selector and hint. They are all in memory, so each page says
//! how many are meant in all.

use std::sync::Arc;

use assay_identity::Selector;
use serde::Deserialize;
use thiserror::Error;

use crate::outcome::{Kind, Outcome};
use crate::store::EntryRecord;

/// Which entries, as an operator says it; an empty value says nothing.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Which {
    /// A whole SPIFFE ID, or the beginning of one before a `*`.
    pub spiffe_id: String,
    /// The device's SPIFFE ID.
    pub parent: String,
    /// One of the selectors that an entry has.
    pub selector: String,
    pub hint: String,
    pub limit: String,
    /// What the page before ended with.
    pub cursor: String,
}

/// Some entries, and where to go on.
#[derive(Debug)]
pub(crate) struct Page {
    /// Oldest first.
    pub entries: Vec<Arc<EntryRecord>>,
    /// How many are meant, on all pages.
    pub count: usize,
    /// The cursor of the page that follows; `None`: there is none.
    pub next: Option<String>,
}

impl Which {
    /// The entries of a page. `all` is in the order of creation and id, as a cursor says where it is.
    pub(crate) fn page(&self, all: &[Arc<EntryRecord>]) -> Result<Page, NotAFilter> {
        let selector: Option<Selector> = match self.selector.as_str() {
            "" => None,
            text => Some(
                text.parse().map_err(|_| self.malformed("selector", "a selector such as unix:uid:1000"))?,
            ),
        };
        let limit = match self.limit.as_str() {
            "" => LIMIT_DEFAULT,
            text => {
                let limit = text.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                limit.ok_or_else(|| self.malformed("limit", "1 to 1000"))?
            }
        };
        let after = self.after()?;
        let meant = || all.iter().filter(|entry| self.means(entry, selector.as_ref()));
        let place = |entry: &EntryRecord| (entry.created_at.0, entry.id.clone());
        let mut rest = meant().skip_while(|entry| after.as_ref().is_some_and(|after| place(entry) <= *after));
        let entries: Vec<_> = rest.by_ref().take(limit).cloned().collect();
        let next = entries.last().filter(|_| rest.next().is_some()).map(|last| cursor(last));
        Ok(Page { count: meant().count(), next, entries })
    }

    fn means(&self, entry: &EntryRecord, selector: Option<&Selector>) -> bool {
        let is_named = match self.spiffe_id.strip_suffix('*') {
            Some(beginning) => entry.spiffe_id.starts_with(beginning),
            None => self.spiffe_id.is_empty() || self.spiffe_id == entry.spiffe_id,
        };
        is_named
            && (self.parent.is_empty() || self.parent == entry.parent)
            && (self.hint.is_empty() || self.hint == entry.hint)
            && selector.is_none_or(|selector| entry.selectors.contains(selector))
    }

    fn after(&self) -> Result<Option<(u64, String)>, NotAFilter> {
        if self.cursor.is_empty() {
            return Ok(None);
        }
        let place = self.cursor.split_once('-').and_then(|(at, id)| Some((at.parse().ok()?, id.to_owned())));
        place.map(Some).ok_or_else(|| self.malformed("cursor", "what an earlier page ended with"))
    }

    fn malformed(&self, parameter: &'static str, expected: &'static str) -> NotAFilter {
        let value = match parameter {
            "selector" => &self.selector,
            "limit" => &self.limit,
            _ => &self.cursor,
        };
        NotAFilter { parameter, value: value.chars().take(SHOWN_CHARACTERS_MAX).collect(), expected }
    }
}

fn cursor(last: &EntryRecord) -> String {
    format!("{}-{}", last.created_at.0, last.id)
}

/// A value of no use.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
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

const LIMIT_DEFAULT: usize = 500;
/// Entries of a page: half a megabyte of JSON.
const LIMIT_MAX: usize = 1000;
const SHOWN_CHARACTERS_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use assay_evidence::time::UnixTime;

    use super::*;

    /// `count` entries, two a second.
    fn entries(count: u64) -> Vec<Arc<EntryRecord>> {
        let entry = |number: u64| EntryRecord {
            id: format!("{number:032x}"),
            spiffe_id: format!(
                "spiffe://td/{}/{number}",
                if number.is_multiple_of(3) { "web" } else { "db" }
            ),
            parent: format!("spiffe://td/spire/agent/tpm/{}", number % 2),
            selectors: vec![format!("unix:uid:{}", number % 5).parse().unwrap()],
            ttl_seconds: 60,
            dns_names: Vec::new(),
            hint: String::new(),
            speaks_for_node: false,
            federates_with: Vec::new(),
            unquoted: false,
            jwt_ttl_seconds: 0,
            expires_at: UnixTime(0),
            created_at: UnixTime(number / 2),
            revision: 1,
        };
        (0..count).map(|number| Arc::new(entry(number))).collect()
    }

    #[test]
    fn pages_hold_each_that_is_meant_once_and_say_how_many_there_are() {
        let all = entries(50);
        for limit in ["1", "2", "7", "50", "1000"] {
            let mut which =
                Which { limit: limit.to_owned(), selector: "unix:uid:3".into(), ..Which::default() };
            let mut found = Vec::new();
            loop {
                let page = which.page(&all).unwrap();
                assert_eq!(page.count, 10);
                assert!(page.entries.len() <= limit.parse().unwrap());
                found.extend(page.entries.into_iter().map(|entry| entry.id.clone()));
                match page.next {
                    Some(next) => which.cursor = next,
                    None => break,
                }
            }
            let expected: Vec<_> = all.iter().skip(3).step_by(5).map(|entry| entry.id.clone()).collect();
            assert_eq!(found, expected, "{limit}");
        }
    }

    #[test]
    fn what_was_deleted_meanwhile_leaves_the_rest_in_its_place() {
        let mut all = entries(10);
        let mut which = Which { limit: "4".into(), ..Which::default() };
        which.cursor = which.page(&all).unwrap().next.unwrap();
        all.remove(3);
        assert_eq!(which.page(&all).unwrap().entries[0].id, format!("{:032x}", 4));
    }

    #[test]
    fn each_filter_counts() {
        let all = entries(30);
        let count = |which: Which| which.page(&all).unwrap().count;
        assert_eq!(count(Which { spiffe_id: "spiffe://td/web/*".into(), ..Which::default() }), 10);
        assert_eq!(count(Which { spiffe_id: "spiffe://td/web/3".into(), ..Which::default() }), 1);
        assert_eq!(count(Which { parent: "spiffe://td/spire/agent/tpm/1".into(), ..Which::default() }), 15);
        assert_eq!(count(Which { hint: "other".into(), ..Which::default() }), 0);
        for which in [
            Which { selector: "unix:uid".into(), ..Which::default() },
            Which { limit: "0".into(), ..Which::default() },
            Which { limit: "1001".into(), ..Which::default() },
            Which { cursor: "x".into(), ..Which::default() },
        ] {
            assert!(which.page(&all).unwrap_err().to_string().contains("is not"), "{which:?}");
        }
    }
}
