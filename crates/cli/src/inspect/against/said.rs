//! Two reports by what they say, member by member; of a list, what is in one of them alone, wherever it stands.

use std::collections::{BTreeMap, BTreeSet};

use super::Difference;
use crate::inspect::content::report::{Member, Report, Value};

/// What is said under one name: of a list or table each element, in an order that does not matter.
#[derive(Clone, PartialEq, Eq)]
enum Said {
    One(String),
    Many(Vec<String>),
}

impl Said {
    /// The elements that another does not have, each as often as it has it more.
    fn without(&self, other: Option<&Said>) -> Option<String> {
        let (Said::Many(own), Some(Said::Many(others))) = (self, other) else { return Some(self.line()) };
        let mut others = others.clone();
        let is_alone = |one: &&String| match others.iter().position(|other| other == *one) {
            Some(found) => {
                others.swap_remove(found);
                false
            }
            None => true,
        };
        let alone: Vec<&str> = own.iter().filter(is_alone).map(String::as_str).collect();
        (!alone.is_empty()).then(|| alone.join(", "))
    }

    fn line(&self) -> String {
        match self {
            Said::One(line) => line.clone(),
            Said::Many(lines) if lines.is_empty() => "none".to_owned(),
            Said::Many(lines) => lines.join(", "),
        }
    }
}

/// What changed, by name, in those members that are compared.
pub(super) fn compare(
    before: &Report,
    after: &Report,
    is_compared: impl Fn(&str) -> bool,
) -> Vec<Difference> {
    let [old, new] = [before, after].map(|report| {
        let mut said = BTreeMap::new();
        let members = report.members.iter().filter(|member| is_compared(&member.name));
        members.for_each(|member| add_member("", member, &mut said));
        said
    });
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let difference = |name: &String| {
        let (before, after) = (old.get(name), new.get(name));
        let alone = |one: Option<&Said>, other| one.and_then(|one| one.without(other));
        let changed = Difference {
            what: name.clone(),
            before: alone(before, after),
            after: alone(after, before),
            message: None,
        };
        (before != after && (changed.before.is_some() || changed.after.is_some())).then_some(changed)
    };
    names.into_iter().filter_map(difference).collect()
}

/// The values of one member by their path below it.
pub(super) fn values(report: &Report, member: &str) -> BTreeMap<String, String> {
    let mut said = BTreeMap::new();
    for found in report.members.iter().filter(|found| found.name == member) {
        add("", &found.value, &mut said);
    }
    said.into_iter().map(|(name, said)| (name, said.line())).collect()
}

fn add_member(above: &str, member: &Member, into: &mut BTreeMap<String, Said>) {
    let dot = if above.is_empty() { "" } else { "." };
    add(&format!("{above}{dot}{}", member.name), &member.value, into);
}

fn add(name: &str, value: &Value, into: &mut BTreeMap<String, Said>) {
    let said = match value {
        Value::Absent => return,
        Value::Group(members) => return members.iter().for_each(|member| add_member(name, member, into)),
        Value::List(values) => Said::Many(values.iter().map(Value::line).collect()),
        Value::Table(table) => {
            let counts = |at: usize| table.columns.get(at).is_none_or(|column| column.name != POSITION);
            let line = |row: &Vec<Value>| {
                let cells = row.iter().enumerate().filter(|(at, _)| counts(*at));
                cells.map(|(_, cell)| cell.line()).collect::<Vec<_>>().join(" ")
            };
            Said::Many(table.rows.iter().map(line).collect())
        }
        value => Said::One(value.line()),
    };
    into.insert(name.to_owned(), said);
}

/// The column that counts rows: one more before them changes none of them.
const POSITION: &str = "event";
