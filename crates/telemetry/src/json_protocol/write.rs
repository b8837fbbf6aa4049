//! Writing JSON as Python's `json.dumps(…, sort_keys=True)` does: this is what is signed.

use std::fmt::Write as _;

use super::value::{Text, Value};

impl Value {
    /// The text, which is ASCII.
    pub fn to_python(&self) -> String {
        let mut out = String::new();
        write(&mut out, self);
        out
    }
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Integer(digits) => out.push_str(digits),
        Value::Float(number) => out.push_str(&float(*number)),
        Value::Text(text) => quoted(out, text),
        Value::List(values) => {
            out.push('[');
            for (index, value) in values.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write(out, value);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            for (index, (name, value)) in members.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                quoted(out, name);
                out.push_str(": ");
                write(out, value);
            }
            out.push('}');
        }
    }
}

fn quoted(out: &mut String, text: &Text) {
    out.push('"');
    for unit in text.units() {
        match u8::try_from(unit) {
            Ok(b'"') => out.push_str("\\\""),
            Ok(b'\\') => out.push_str("\\\\"),
            Ok(b'\n') => out.push_str("\\n"),
            Ok(b'\r') => out.push_str("\\r"),
            Ok(b'\t') => out.push_str("\\t"),
            Ok(8) => out.push_str("\\b"),
            Ok(0xc) => out.push_str("\\f"),
            Ok(plain @ b' '..=b'~') => out.push(char::from(plain)),
            // Writing into a string does not fail.
            _ => drop(write!(out, "\\u{unit:04x}")),
        }
    }
    out.push('"');
}

/// Python's `float.__repr__`: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
fn float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    let scientific = shortest(number);
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => ("-", digits.replace('.', "")),
        None => ("", mantissa.replace('.', "")),
    };
    match usize::try_from(exponent) {
        Ok(places @ 0..16) if places + 1 < digits.len() => {
            let (whole, fraction) = digits.split_at(places + 1);
            format!("{sign}{whole}.{fraction}")
        }
        Ok(places @ 0..16) => format!("{sign}{digits:0<width$}.0", width = places + 1),
        Err(_) if exponent >= -4 => {
            let zeros = usize::try_from(-1 - exponent).unwrap_or(0);
            format!("{sign}0.{:0<zeros$}{digits}", "")
        }
        _ => format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs()),
    }
}

/// The shortest digits that read back, and of these the nearest to the number; where two are equally near, the even one.
fn shortest(number: f64) -> String {
    let short = format!("{number:e}");
    let mantissa = short.split('e').next().unwrap_or_default();
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    // Rust's shortest is not the even one of two; its rounding to a number of digits is.
    let even = format!("{number:.*e}", digits.saturating_sub(1));
    let reads_back = even.parse::<f64>().is_ok_and(|read| read.to_bits() == number.to_bits());
    if reads_back { even } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        let check = |number: f64, expected: &str| assert_eq!(float(number), expected);
        check(0.0, "0.0");
        check(-0.0, "-0.0");
        check(100.0, "100.0");
        check(0.1, "0.1");
        check(1e15, "1000000000000000.0");
        check(1e16, "1e+16");
        check(1.5e300, "1.5e+300");
        check(0.0001, "0.0001");
        check(0.00001, "1e-05");
        check(5e-324, "5e-324");
        check(123_456_789.012_345_67, "123456789.01234567");
        // Exactly between two of sixteen digits, both of which read back.
        check(-4_175_765_591_290_205.0 / 4.0, "-1043941397822551.2");
        check(f64::NAN, "NaN");
        check(f64::NEG_INFINITY, "-Infinity");
    }

    fn check(body: &str, expected: &str) {
        assert_eq!(Value::read(body.as_bytes()).map(|value| value.to_python()).unwrap(), expected);
    }

    #[test]
    fn texts_and_members_are_written_as_python_writes_them() {
        check(r#"{"b":1,"a":[1,2.0,null,true,"x"]}"#, r#"{"a": [1, 2.0, null, true, "x"], "b": 1}"#);
        check("[]", "[]");
        check(r#""é😀\ud83d\ude00\ud800\/\u007f""#, r#""\u00e9\ud83d\ude00\ud83d\ude00\ud800/\u007f""#);
        // By code point, and not by UTF-16 code unit as RFC 8785 has it.
        check(r#"{"\ud83d\ude00":1,"\uffff":2}"#, r#"{"\uffff": 2, "\ud83d\ude00": 1}"#);
        check("-0", "0");
        check("-0.0", "-0.0");
        check("1E5", "100000.0");
        check("[NaN, Infinity, -Infinity, 1e999]", "[NaN, Infinity, -Infinity, Infinity]");
        check("123456789012345678901234567890", "123456789012345678901234567890");
    }
}
