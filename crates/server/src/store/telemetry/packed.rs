//! The batches of a run in one piece, deflated together, since host metrics are much like those of a minute before.
//!
//! Of each batch three numbers, 64 bits each, and then statement, signature and payload, each behind its length, 32 bits; all
//! big-endian. Before it stands the form's number.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;

use super::accept::RUN_BYTES_MAX;
use crate::store::StoreError;

/// A batch as it was received: the exact bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptBatch {
    /// Its number in the device's chain.
    pub sequence: u64,
    /// When it came in, seconds since 1970.
    pub received_at: u64,
    /// Data points in it.
    pub items: u64,
    /// The exact bytes that were signed.
    pub statement: Vec<u8>,
    /// The device key's signature over them.
    pub signature: Vec<u8>,
    /// The exact bytes of the payload.
    pub payload: Vec<u8>,
}

/// Packs what is in a run.
pub(crate) fn pack(batches: &[KeptBatch]) -> Vec<u8> {
    let mut framed = vec![FORM];
    for KeptBatch { sequence, received_at, items, statement, signature, payload } in batches {
        for number in [sequence, received_at, items] {
            framed.extend_from_slice(&number.to_be_bytes());
        }
        for bytes in [statement, signature, payload] {
            let length = u32::try_from(bytes.len()).expect("a batch has a bound far below 4 GiB");
            framed.extend_from_slice(&length.to_be_bytes());
            framed.extend_from_slice(bytes);
        }
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&framed).and_then(|()| encoder.finish()).expect("memory takes what is written to it")
}

/// What is in a piece. Its checksum holds, or it is not believed.
pub(super) fn unpack(packed: &[u8]) -> Result<Vec<KeptBatch>, StoreError> {
    read(packed).ok_or(StoreError::Corrupt { column: "telemetry_runs.packed" })
}

fn read(packed: &[u8]) -> Option<Vec<KeptBatch>> {
    let mut framed = Vec::new();
    ZlibDecoder::new(packed).take(UNPACKED_BYTES_MAX + 1).read_to_end(&mut framed).ok()?;
    if framed.len() as u64 > UNPACKED_BYTES_MAX {
        return None;
    }
    let mut rest = framed.strip_prefix(&[FORM])?;
    let mut batches = Vec::new();
    while !rest.is_empty() {
        batches.push(KeptBatch {
            sequence: number(&mut rest)?,
            received_at: number(&mut rest)?,
            items: number(&mut rest)?,
            statement: bytes(&mut rest)?,
            signature: bytes(&mut rest)?,
            payload: bytes(&mut rest)?,
        });
    }
    Some(batches)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_be_bytes(*number))
}

fn bytes(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let (length, after) = rest.split_first_chunk()?;
    let (bytes, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    *rest = after;
    Some(bytes.to_vec())
}

/// The form that this is.
const FORM: u8 = 1;
/// The bytes of a run, and what frames its batches.
const UNPACKED_BYTES_MAX: u64 = RUN_BYTES_MAX + (64 << 10);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn batches() -> impl Strategy<Value = Vec<KeptBatch>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..200);
        let batch = (any::<u64>(), any::<u64>(), any::<u64>(), bytes(), bytes(), bytes());
        let batch = batch.prop_map(|(sequence, received_at, items, statement, signature, payload)| {
            KeptBatch { sequence, received_at, items, statement, signature, payload }
        });
        prop::collection::vec(batch, 0..20)
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_back_exactly(batches in batches()) {
            prop_assert_eq!(unpack(&pack(&batches)).unwrap(), batches);
        }

        #[test]
        fn what_was_damaged_is_never_taken_for_something_else(
            batches in batches(), place in any::<prop::sample::Index>(), flip in 1..=u8::MAX,
        ) {
            let mut packed = pack(&batches);
            let place = place.index(packed.len());
            packed[place] ^= flip;
            // Some bits say nothing about the content: of the header, and what fills the last byte up.
            prop_assert!(unpack(&packed).is_ok_and(|unpacked| unpacked == batches) || unpack(&packed).is_err());
        }
    }

    #[test]
    fn what_unpacks_to_more_than_a_run_has_is_refused() {
        let batch = KeptBatch { payload: vec![0; 5 << 20], ..KeptBatch::default() };
        assert!(unpack(&pack(&[batch])).is_err());
    }
}
