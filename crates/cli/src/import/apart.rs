//! HCL as SPIRE takes it, the first of its kind, in the form of the second: what stands on one line there stands on lines of its
//! own here.

/// Puts what begins behind a brace, ends before one or follows a value on a line of its own. Nothing else changes.
pub(super) fn apart(text: &str) -> String {
    let mut parting =
        Parting { rest: text, out: String::with_capacity(text.len() * 2), place: Place::Start, depth: 0 };
    while let Some(c) = parting.rest.chars().next() {
        parting.step(c);
    }
    parting.out
}

/// Where in a line it is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing was given a value yet.
    Start,
    /// Behind an equals sign.
    Value,
    /// Behind a value.
    Done,
}

struct Parting<'a> {
    rest: &'a str,
    out: String,
    place: Place,
    /// Of square brackets, within which nothing is put apart.
    depth: usize,
}

impl Parting<'_> {
    fn step(&mut self, c: char) {
        match c {
            '#' => self.copy(self.until("\n")),
            '/' if self.rest.starts_with("//") => self.copy(self.until("\n")),
            '/' if self.rest.starts_with("/*") => self.copy(self.until("*/") + 2),
            '"' => self.token(self.quoted()),
            '[' => {
                self.depth += 1;
                self.copy(1);
            }
            ']' => {
                self.depth = self.depth.saturating_sub(1);
                self.copy(1);
                self.ended();
            }
            '{' if self.depth == 0 => {
                self.copy(1);
                self.out.push('\n');
                self.place = Place::Start;
            }
            '}' if self.depth == 0 => {
                self.out.push('\n');
                self.copy(1);
                self.out.push('\n');
                self.place = Place::Start;
            }
            '=' if self.depth == 0 => {
                self.copy(1);
                self.place = Place::Value;
            }
            '\n' | ',' if self.depth == 0 => {
                self.copy(1);
                self.place = if self.place == Place::Value { Place::Value } else { Place::Start };
            }
            c if is_of_word(c) => self.token(self.rest.find(|c| !is_of_word(c)).unwrap_or(self.rest.len())),
            c => self.copy(c.len_utf8()),
        }
    }

    /// A word or a text.
    fn token(&mut self, bytes: usize) {
        if self.place == Place::Done && self.depth == 0 {
            self.out.push('\n');
            self.place = Place::Start;
        }
        self.copy(bytes);
        self.ended();
    }

    /// Something that may have been a value.
    fn ended(&mut self) {
        if self.place == Place::Value && self.depth == 0 {
            self.place = Place::Done;
        }
    }

    fn copy(&mut self, bytes: usize) {
        let (copied, rest) = self.rest.split_at_checked(bytes).unwrap_or((self.rest, ""));
        self.out.push_str(copied);
        self.rest = rest;
    }

    fn until(&self, end: &str) -> usize {
        self.rest.find(end).unwrap_or(self.rest.len())
    }

    /// Bytes of a text with its quotes.
    fn quoted(&self) -> usize {
        let mut is_escaped = false;
        for (at, c) in self.rest.char_indices().skip(1) {
            match c {
                '"' if !is_escaped => return at + 1,
                _ => is_escaped = c == '\\' && !is_escaped,
            }
        }
        self.rest.len()
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '$')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_on_one_line_is_put_on_lines_of_its_own() {
        let flat = |text: &str| {
            apart(text)
                .split('\n')
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
                .join("|")
        };
        for (text, expected) in [
            (
                r#"a "b" { c { d = "e" f = [1, 2] g = true } }"#,
                r#"a "b" {|c {|d = "e"|f = [1, 2]|g = true|}|}"#,
            ),
            ("a = 1 # b = { c\nd = 2", "a = 1 # b = { c|d = 2"),
            ("a = 1 /* { */ b = 2", "a = 1 /* { */|b = 2"),
            (r#"a = "{ \" } b = " c = 1"#, r#"a = "{ \" } b = "|c = 1"#),
            ("a = [\n{ b = 1 }\n] c = 2", "a = [|{ b = 1 }|]|c = 2"),
            ("a {}", "a {|}"),
        ] {
            assert_eq!(flat(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn all_that_was_there_is_there(text in "[a-c={}\\[\\]\"# /*,\n\\\\é]{0,60}") {
            let without = |text: &str| text.replace('\n', "");
            prop_assert_eq!(without(&apart(&text)), without(&text));
        }
    }
}
