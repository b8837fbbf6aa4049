//! The beginning of evidence whose logs have not come yet: enough to see whose it is.
//!
//! Evidence may have tens of megabytes of logs, and nobody's megabytes are taken in before the quote that they belong to
//! has shown that the device itself sends them.

use assay_evidence::request::Quote;
use assay_wire::edge;
use assay_wire::pcr::values_from_wire;
use prost::Message;
use prost::bytes::{Buf, Bytes};

/// The nonce and the quote, if a device's message begins with them as `edge.proto` asks of long evidence.
pub(super) fn quote(mut beginning: Bytes) -> Option<(Bytes, Quote)> {
    expect(&mut beginning, EVIDENCE)?;
    // Of the evidence, which goes on behind what is here.
    length(&mut beginning)?;
    expect(&mut beginning, NONCE)?;
    let nonce = field(&mut beginning)?;
    expect(&mut beginning, QUOTE)?;
    let edge::Quote { message, signature, pcrs } = edge::Quote::decode(field(&mut beginning)?).ok()?;
    Some((nonce, Quote { message, signature, pcrs: values_from_wire(&pcrs).ok()? }))
}

fn expect(bytes: &mut Bytes, key: u8) -> Option<()> {
    (bytes.first() == Some(&key)).then(|| bytes.advance(1))
}

fn length(bytes: &mut Bytes) -> Option<usize> {
    prost::decode_length_delimiter(bytes).ok()
}

fn field(bytes: &mut Bytes) -> Option<Bytes> {
    let length = length(bytes)?;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

/// Protobuf's key of a field: its number, and that its length stands before it.
const fn key(number: u8) -> u8 {
    number << 3 | 2
}

const EVIDENCE: u8 = key(2);
const NONCE: u8 = key(1);
const QUOTE: u8 = key(2);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message() -> Vec<u8> {
        let quote = edge::Quote {
            message: vec![3; 100].into(),
            signature: vec![4; 70].into(),
            pcrs: vec![edge::PcrValue { bank: "sha256".into(), index: 7, digest: vec![5; 32].into() }],
        };
        let evidence = edge::Evidence {
            nonce: vec![1; 32].into(),
            quote: Some(quote),
            ima_log: vec![6; 5000].into(),
            ..edge::Evidence::default()
        };
        let message = Some(edge::device_message::Message::Evidence(evidence));
        edge::DeviceMessage { message }.encode_to_vec()
    }

    #[test]
    fn the_quote_is_there_before_the_logs() {
        let message = message();
        let (nonce, read) = quote(Bytes::copy_from_slice(&message[..400])).unwrap();
        assert_eq!((nonce.len(), read.message.len(), read.signature.len()), (32, 100, 70));
        assert_eq!(quote(Bytes::from(message[..100].to_vec())), None, "not whole");
        let hello = edge::device_message::Message::Hello(edge::Hello::default());
        let hello = edge::DeviceMessage { message: Some(hello) }.encode_to_vec();
        assert_eq!(quote(hello.into()), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(at in 0usize..300, byte: u8, end in 0usize..400) {
            let mut message = message();
            message[at] = byte;
            message.truncate(end);
            quote(message.into());
        }
    }
}
