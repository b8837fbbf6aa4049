//! Foreign text made fit to show: on one line, and nothing in it that moves a cursor or hides.

use std::borrow::Cow;

/// The text with control, format and other unprintable characters escaped.
pub fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unprintable) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unprintable(character) {
            line.extend(character.escape_debug());
        } else {
            line.push(character);
        }
    }
    Cow::Owned(line)
}

/// Whether a character does not print, moves a cursor or turns the direction of a line: what Rust's own debug form
/// escapes, but for quotes and backslashes, which harm nobody.
pub fn is_unprintable(character: char) -> bool {
    !matches!(character, '"' | '\'' | '\\') && character.escape_debug().len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finding_15_only_what_does_not_print_is_escaped() {
        let check = |text, expected| assert_eq!(escaped(text), expected);
        check(r#"C:\"ü" 'x'"#, r#"C:\"ü" 'x'"#);
        check("a\nb\t\u{1b}[2J", "a\\nb\\t\\u{1b}[2J");
        check("gpj.\u{202e}exe", "gpj.\\u{202e}exe");
    }
}
