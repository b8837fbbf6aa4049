//! Paths as policies and findings write them.
//!
//! A measured path is bytes. In text, a backslash, a control character and a byte that is not UTF-8 are written
//! as `\\` and `\xNN`, and so is what does not print or turns the direction of a line, so that text and bytes stand for each other exactly and nothing reaches a terminal raw.

use std::borrow::Cow;
use std::fmt::Write;

use assay_evidence::text::is_unprintable;

/// A path as the kernel logs it: IMA writes a space as an underscore, because spaces part the fields of its ASCII list
/// (ima_write_template_field_data). Whoever makes a policy or looks a path up goes by this.
pub fn as_logged(path: &[u8]) -> Cow<'_, [u8]> {
    match path.contains(&b' ') {
        true => Cow::Owned(path.iter().map(|byte| if *byte == b' ' { b'_' } else { *byte }).collect()),
        false => Cow::Borrowed(path),
    }
}

/// The text of a path.
pub fn to_text(path: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(must_escape) => Cow::Borrowed(text),
        _ => Cow::Owned(escape(path)),
    }
}

fn escape(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' => text.push_str("\\\\"),
                character if must_escape(character) => {
                    escape_bytes(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes())
                }
                character => text.push(character),
            }
        }
        escape_bytes(&mut text, chunk.invalid());
    }
    text
}

fn escape_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "\\x{byte:02x}");
    }
}

/// What starts an escape, and what does not print or changes the direction of what follows it.
fn must_escape(character: char) -> bool {
    character == '\\' || is_unprintable(character)
}

/// The path of a text, or `None` where a backslash starts no escape.
pub fn from_text(text: &str) -> Option<Vec<u8>> {
    let mut path = Vec::with_capacity(text.len());
    let mut parts = text.split('\\');
    path.extend_from_slice(parts.next().unwrap_or_default().as_bytes());
    while let Some(part) = parts.next() {
        if part.is_empty() {
            // Two backslashes: what follows the second is plain.
            path.push(b'\\');
            path.extend_from_slice(parts.next()?.as_bytes());
            continue;
        }
        let hex = part.strip_prefix('x')?;
        let byte =
            u8::from_str_radix(hex.get(..2).filter(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))?, 16)
                .ok()?;
        path.push(byte);
        path.extend_from_slice(hex.get(2..)?.as_bytes());
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(path: &[u8], text: &str) {
        assert_eq!(to_text(path), text);
        assert_eq!(from_text(text).as_deref(), Some(path));
    }

    #[test]
    fn escapes_are_few_and_exact() {
        check(b"/usr/bin/env", "/usr/bin/env");
        check("/opt/é".as_bytes(), "/opt/é");
        check(b"/a\nb", "/a\\x0ab");
        check(b"/a\\b", "/a\\\\b");
        check(b"/a\\\\", "/a\\\\\\\\");
        check(b"/\xff\x1b[2J", "/\\xff\\x1b[2J");
        check("/gpj.\u{202e}exe".as_bytes(), "/gpj.\\xe2\\x80\\xaeexe");
        check("/it's \"x\"".as_bytes(), "/it's \"x\"");
    }

    #[test]
    fn the_kernel_logs_a_space_as_an_underscore() {
        assert_eq!(*as_logged(b"/opt/my app/a b"), *b"/opt/my_app/a_b");
        assert_eq!(*as_logged(b"/opt/a\nb\tc_d"), *b"/opt/a\nb\tc_d");
    }

    #[test]
    fn a_bad_escape_is_no_path() {
        for text in ["/a\\", "/a\\n", "/a\\x", "/a\\x1", "/a\\x+1", "/a\\xé1"] {
            assert_eq!(from_text(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn text_and_bytes_stand_for_each_other(path in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(from_text(&to_text(&path)), Some(path));
        }

        #[test]
        fn any_text_is_read_without_panic(text in ".{0,64}") {
            let _ = from_text(&text);
        }
    }
}
