//! Reading a body: bounded as it comes and bounded again as it is unpacked, and within a time.

use std::io::Read;
use std::time::Duration;

use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::time::timeout;

use super::answer::Refused;

/// Reads all of it. Of more than `bytes_max` nothing is kept, and still some of it is read: whoever sends without looking would
/// otherwise find a broken connection, and try again, where there is an answer.
pub(super) async fn read(mut body: Incoming, bytes_max: usize) -> Result<Bytes, Refused> {
    let reading = async {
        let (mut bytes, mut length) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Refused::Broken)?.into_data() else { continue };
            length += data.len();
            if length <= bytes_max {
                bytes.extend_from_slice(&data);
            } else if length <= READ_AWAY_MAX {
                bytes = Vec::new();
            } else {
                break;
            }
        }
        if length > bytes_max { Err(Refused::TooLong) } else { Ok(bytes.into()) }
    };
    timeout(WITHIN, reading).await.map_err(|_| Refused::Late)?
}

/// Unpacks gzip; what gets longer than a request may be is given up there.
pub(super) fn gunzip(packed: &[u8]) -> Result<Bytes, Refused> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let mut decoder = MultiGzDecoder::new(packed).take(limit);
    decoder.read_to_end(&mut bytes).map_err(|_| Refused::Malformed("not gzip"))?;
    if bytes.len() > BYTES_MAX { Err(Refused::TooLong) } else { Ok(bytes.into()) }
}

/// Of one request, unpacked: with what is around it, a batch of its own (`assay_telemetry::PAYLOAD_BYTES_MAX`).
pub(super) const BYTES_MAX: usize = assay_telemetry::PAYLOAD_BYTES_MAX - (64 << 10);
/// What the specification recommends that a receiver takes, and a bit: longer ones are rare.
const READ_AWAY_MAX: usize = 80 << 20;
const WITHIN: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_bomb_is_given_up_at_the_limit() {
        assert_eq!(gunzip(&gzip(b"spans")).unwrap().as_ref(), b"spans");
        assert_eq!(gunzip(&gzip(&vec![0; BYTES_MAX])).unwrap().len(), BYTES_MAX);
        let bomb = gzip(&vec![0; 100 << 20]);
        assert!(bomb.len() < 200 << 10);
        assert!(matches!(gunzip(&bomb), Err(Refused::TooLong)));
        assert!(matches!(gunzip(&bomb[..bomb.len() / 2]), Err(Refused::TooLong)));
        assert!(matches!(gunzip(b"spans"), Err(Refused::Malformed(_))));
        assert!(matches!(gunzip(&gzip(b"spans")[..20]), Err(Refused::Malformed(_))));
    }
}
