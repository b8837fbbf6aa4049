//! Just enough DER writing for public keys and ECDSA signatures. Reading DER is `x509-parser`'s work.

/// A SEQUENCE of already encoded elements.
pub(crate) fn sequence(elements: &[&[u8]]) -> Vec<u8> {
    element(0x30, elements)
}

/// A non-negative INTEGER from big-endian bytes; leading zeros are dropped or added as DER wants.
pub(crate) fn unsigned(bytes: &[u8]) -> Vec<u8> {
    match strip_zeros(bytes) {
        [] => element(0x02, &[&[0]]),
        digits @ [first, ..] if *first >= 0x80 => element(0x02, &[&[0], digits]),
        digits => element(0x02, &[digits]),
    }
}

/// An OBJECT IDENTIFIER of already encoded arcs.
pub(crate) fn object_identifier(arcs: &[u8]) -> Vec<u8> {
    element(0x06, &[arcs])
}

/// A BIT STRING of whole bytes.
pub(crate) fn bit_string(bytes: &[u8]) -> Vec<u8> {
    element(0x03, &[&[0], bytes])
}

/// The bytes without leading zeros.
pub(crate) fn strip_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn element(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length.saturating_add(LENGTH_BYTES_MAX));
    out.push(tag);
    push_length(&mut out, length);
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let digits = strip_zeros(&bytes);
            // At most eight length bytes exist, so the sum stays below 0x89.
            out.push(0x80 | u8::try_from(digits.len()).unwrap_or(0));
            out.extend_from_slice(digits);
        }
    }
}

/// NULL.
pub(crate) const NULL: &[u8] = &[0x05, 0x00];

/// Tag, length-of-length and a 64-bit length.
const LENGTH_BYTES_MAX: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_minimal_and_positive() {
        assert_eq!(unsigned(&[0, 0, 1]), [2, 1, 1]);
        assert_eq!(unsigned(&[0x80]), [2, 2, 0, 0x80]);
        assert_eq!(unsigned(&[]), [2, 1, 0]);
    }

    #[test]
    fn lengths_take_the_short_form_below_128() {
        assert_eq!(bit_string(&[0; 126]).get(..3), Some(&[3, 127, 0][..]));
        assert_eq!(bit_string(&[0; 127]).get(..4), Some(&[3, 0x81, 128, 0][..]));
        assert_eq!(sequence(&[&[0; 300]]).get(..4), Some(&[0x30, 0x82, 1, 44][..]));
    }
}
