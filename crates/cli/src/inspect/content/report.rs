//! What a file says, as one structure: people read it as text, programs as JSON, and neither sees more than the other.
//!
//! Everything in it may come from whoever wrote the file; [`Report::print`] lets no control character of it reach a
//! terminal.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, json};

/// What one file says.
#[derive(Clone, Debug)]
pub struct Report {
    /// What it is: a stable, kebab-case name.
    pub kind: &'static str,
    /// The same for people, with what matters most.
    pub title: String,
    /// What it says.
    pub members: Vec<Member>,
    /// What is to be said about it.
    pub remarks: Vec<Remark>,
}

/// One thing that a file says.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it is about: a name as JSON has them.
    pub name: Cow<'static, str>,
    /// What it says.
    pub value: Value,
}

/// A value of a [`Member`].
#[derive(Clone, Debug)]
pub enum Value {
    /// It says nothing of that.
    Absent,
    /// Text.
    Text(String),
    /// A number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Several.
    List(Vec<Value>),
    /// Members of its own.
    Group(Vec<Member>),
    /// Rows of the same columns.
    Table(Table),
}

/// Rows that have the same columns.
#[derive(Clone, Debug)]
pub struct Table {
    /// The columns.
    pub columns: &'static [Column],
    /// The rows, each with a value for each column.
    pub rows: Vec<Vec<Value>>,
}

/// A column of a [`Table`].
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// Where people see it.
    pub place: Place,
}

/// Where people see a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In its row.
    Row,
    /// In a line of its own, below its row.
    Below,
    /// Nowhere: it is for programs.
    Program,
}

/// Something to be said about a file.
#[derive(Clone, Debug, Serialize)]
pub struct Remark {
    /// How grave it is.
    pub severity: Severity,
    /// The sentence.
    pub message: String,
}

/// How grave a remark is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Good to know.
    Note,
    /// Odd, or weaker than it could be.
    Warning,
    /// It contradicts itself, or nobody would accept it.
    Error,
}

impl Report {
    /// A report without members yet.
    pub fn new(kind: &'static str, title: impl Into<String>) -> Self {
        Report { kind, title: title.into(), members: Vec::new(), remarks: Vec::new() }
    }

    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Value>) -> Self {
        self.members.push(Member { name: name.into(), value: value.into() });
        self
    }

    /// Adds a remark.
    pub fn remark(&mut self, severity: Severity, message: impl Into<String>) {
        self.remarks.push(Remark { severity, message: message.into() });
    }

    /// For programs.
    pub fn to_json(&self) -> serde_json::Value {
        let members: Map<_, _> = self.members.iter().map(Member::to_json).collect();
        json!({ "kind": self.kind, "title": self.title, "says": members, "remarks": self.remarks })
    }

    /// For people: a line to print after the other.
    pub fn print(&self, print: &mut impl FnMut(&str)) {
        print(&printable(&self.title));
        for member in &self.members {
            member.print(1, print);
        }
        for remark in &self.remarks {
            print(&format!("  {}: {}", remark.severity, printable(&remark.message)));
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

impl Member {
    fn to_json(&self) -> (String, serde_json::Value) {
        (self.name.clone().into_owned(), self.value.to_json())
    }

    fn print(&self, depth: usize, print: &mut impl FnMut(&str)) {
        let indent = "  ".repeat(depth);
        let label = format!("{indent}{:width$}", printable(&self.name), width = LABEL_CHARACTERS);
        match &self.value {
            Value::Absent => {}
            Value::Group(members) => {
                print(label.trim_end());
                members.iter().for_each(|member| member.print(depth + 1, print));
            }
            Value::Table(table) => {
                print(label.trim_end());
                table.print(&format!("{indent}  "), print);
            }
            Value::List(values) if values.len() > 1 && !values.iter().all(Value::is_number) => {
                for (position, value) in values.iter().enumerate() {
                    let label = if position == 0 { label.clone() } else { " ".repeat(label.chars().count()) };
                    print(&format!("{label} {}", value.line()));
                }
            }
            value => print(&format!("{label} {}", value.line())),
        }
    }
}

impl Value {
    /// A value, or that there is none.
    pub fn of(value: Option<impl Into<Value>>) -> Value {
        value.map_or(Value::Absent, Into::into)
    }

    /// Several values.
    pub fn list(values: impl IntoIterator<Item = impl Into<Value>>) -> Value {
        Value::List(values.into_iter().map(Into::into).collect())
    }

    /// Members in their order.
    pub fn group(
        members: impl IntoIterator<Item = (impl Into<Cow<'static, str>>, impl Into<Value>)>,
    ) -> Value {
        let member = |(name, value): (_, _)| Member { name: Into::into(name), value: Into::into(value) };
        Value::Group(members.into_iter().map(member).collect())
    }

    fn is_number(&self) -> bool {
        matches!(self, Value::Number(_))
    }

    /// The same as JSON.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Value::Absent => serde_json::Value::Null,
            Value::Text(text) => json!(text),
            Value::Number(number) => json!(number),
            Value::Flag(flag) => json!(flag),
            Value::List(values) => values.iter().map(Value::to_json).collect(),
            Value::Group(members) => serde_json::Value::Object(members.iter().map(Member::to_json).collect()),
            Value::Table(table) => table.to_json(),
        }
    }

    /// The value on one line.
    pub fn line(&self) -> String {
        match self {
            Value::Absent => "-".to_owned(),
            Value::Text(text) if text.is_empty() => "-".to_owned(),
            Value::Text(text) => printable(text),
            Value::Number(number) => number.to_string(),
            Value::Flag(true) => "yes".to_owned(),
            Value::Flag(false) => "no".to_owned(),
            Value::List(values) if values.is_empty() => "none".to_owned(),
            Value::List(values) => values.iter().map(Value::line).collect::<Vec<_>>().join(", "),
            Value::Group(members) => {
                let members = members.iter().map(|m| format!("{} {}", printable(&m.name), m.value.line()));
                members.collect::<Vec<_>>().join(", ")
            }
            Value::Table(table) => format!("{} rows", table.rows.len()),
        }
    }
}

impl Table {
    fn to_json(&self) -> serde_json::Value {
        let row = |row: &Vec<Value>| -> serde_json::Value {
            let cells =
                self.columns.iter().zip(row).map(|(column, cell)| (column.name.to_owned(), cell.to_json()));
            serde_json::Value::Object(cells.collect())
        };
        self.rows.iter().map(row).collect()
    }

    fn print(&self, indent: &str, print: &mut impl FnMut(&str)) {
        let in_row: Vec<usize> = self.positions(Place::Row).collect();
        let mut lines =
            vec![in_row.iter().filter_map(|at| Some(self.columns.get(*at)?.name.to_owned())).collect()];
        let cell = |row: &[Value], at: usize| row.get(at).map_or_else(String::new, Value::line);
        lines.extend(self.rows.iter().map(|row| in_row.iter().map(|at| cell(row, *at)).collect::<Vec<_>>()));
        let width = |at: usize| lines.iter().filter_map(|line| Some(line.get(at)?.chars().count())).max();
        let widths: Vec<usize> =
            (0..in_row.len()).map(|at| width(at).unwrap_or(0).min(CELL_CHARACTERS_MAX)).collect();
        for (number, line) in lines.iter().enumerate() {
            let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
            print(format!("{indent}{}", padded.collect::<Vec<_>>().join("  ")).trim_end());
            let Some(row) = number.checked_sub(1).and_then(|at| self.rows.get(at)) else { continue };
            for at in self.positions(Place::Below) {
                if let (Some(column), Some(value)) = (self.columns.get(at), row.get(at))
                    && !matches!(value, Value::Absent)
                {
                    let first = widths.first().copied().unwrap_or(0);
                    print(&format!("{indent}{:first$}  {} {}", "", column.name, value.line()));
                }
            }
        }
    }

    fn positions(&self, place: Place) -> impl Iterator<Item = usize> + '_ {
        let columns = self.columns.iter().enumerate();
        columns.filter(move |(_, column)| column.place == place).map(|(position, _)| position)
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Number(number)
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Number(u64::try_from(number).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Flag(flag)
    }
}

impl From<Table> for Value {
    fn from(table: Table) -> Value {
        Value::Table(table)
    }
}

/// Foreign text without what moves a cursor, hides, or turns the direction of writing.
fn printable(text: &str) -> String {
    let hides = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if hides(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

const LABEL_CHARACTERS: usize = 22;
/// A cell that is longer pushes the rest of its row aside, and no other row.
const CELL_CHARACTERS_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: &[Column] = &[
        Column { name: "number", place: Place::Row },
        Column { name: "says", place: Place::Row },
        Column { name: "digest", place: Place::Below },
    ];

    fn report() -> Report {
        let rows = vec![
            vec![1usize.into(), "a\u{1b}[2J".into(), "ab".into()],
            vec![22usize.into(), "b\u{202e}".into(), Value::Absent],
        ];
        let mut report = Report::new("specimen", "a specimen\n")
            .with("flag", true)
            .with("names", Value::list(["x", "y"]))
            .with("absent", Value::of(None::<String>))
            .with("group", Value::group([("7", "ff")]))
            .with("rows", Table { columns: COLUMNS, rows });
        report.remark(Severity::Warning, "odd");
        report
    }

    #[test]
    fn people_see_lines_that_cannot_steer_a_terminal() {
        let mut lines = Vec::new();
        report().print(&mut |line| lines.push(line.to_owned()));
        let expected = [
            "a specimen\u{fffd}",
            "  flag                   yes",
            "  names                  x",
            "                         y",
            "  group",
            "    7                      ff",
            "  rows",
            "    number  says",
            "    1       a\u{fffd}[2J",
            "            digest ab",
            "    22      b\u{fffd}",
            "  warning: odd",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn programs_see_the_same() {
        let expected = json!({
            "kind": "specimen", "title": "a specimen\n",
            "says": {
                "flag": true, "names": ["x", "y"], "absent": null, "group": { "7": "ff" },
                "rows": [
                    { "number": 1, "says": "a\u{1b}[2J", "digest": "ab" },
                    { "number": 22, "says": "b\u{202e}", "digest": null },
                ],
            },
            "remarks": [{ "severity": "warning", "message": "odd" }],
        });
        assert_eq!(report().to_json(), expected);
    }
}
