//! What gpsd says (its JSON protocol, version 3), line by line.
//!
//! A line is a JSON object with its class, or, as [`WATCH`] asks for what receivers send as well, a sentence of NMEA or the bytes of a
//! binary message in hex. Of the objects TPV has the fix. Of the binary ones those of u-blox count that say that signals are forged or
//! jammed, which gpsd reads and does not pass on.

use data_encoding::HEXLOWER;
use serde::Deserialize;
use thiserror::Error;

use super::{Accuracy, AccuracyError, Point, PointError};

/// What gpsd is asked for.
pub const WATCH: &[u8] = b"?WATCH={\"enable\":true,\"json\":true,\"raw\":1};\n";
/// A line of gpsd's is no longer (GPS_JSON_RESPONSE_MAX).
pub const LINE_BYTES_MAX: usize = 10_240;

/// What a line says.
#[derive(Clone, Debug, PartialEq)]
pub enum Report {
    /// Where the receiver is, and when it was there.
    Fix {
        /// The receiver's device file.
        device: String,
        /// The point.
        point: Point,
        /// How far it may be off.
        accuracy: Accuracy,
        /// Milliseconds since 1970.
        fixed_at_ms: u64,
        /// Metres per second over ground.
        speed: Option<f64>,
    },
    /// A receiver does not know where it is.
    Lost {
        /// Its device file.
        device: String,
    },
    /// A receiver says of its signals that something is wrong with them.
    Signals {
        /// They are forged.
        is_spoofed: bool,
        /// They are jammed.
        is_jammed: bool,
    },
    /// Nothing that a position needs.
    Other,
}

/// Why a line says nothing that could be believed.
#[derive(Debug, Error)]
pub enum ReportError {
    /// Longer than any line of gpsd's.
    #[error("a line of gpsd has at most {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// An object that is none of gpsd's.
    #[error("not an object of gpsd's")]
    Json(#[source] serde_json::Error),
    /// A fix at no point.
    #[error(transparent)]
    Point(#[from] PointError),
    /// A fix that may be anywhere.
    #[error(transparent)]
    Accuracy(#[from] AccuracyError),
    /// A fix at no time.
    #[error("{text:?} is no time of gpsd's")]
    Time {
        /// What there is.
        text: String,
    },
}

/// Reads a line, with or without its end.
pub fn read(line: &[u8]) -> Result<Report, ReportError> {
    if line.len() > LINE_BYTES_MAX {
        return Err(ReportError::TooLong);
    }
    let line = line.trim_ascii();
    match line.first() {
        Some(b'{') => read_object(line),
        Some(b'b') => Ok(read_binary(line).unwrap_or(Report::Other)),
        _ => Ok(Report::Other),
    }
}

#[derive(Deserialize)]
struct Object {
    class: String,
    #[serde(default)]
    device: String,
    /// 0 and 1: none; 2: two dimensions; 3: three.
    #[serde(default)]
    mode: u8,
    /// 5: dead reckoning, 8: simulated; neither is what satellites say.
    #[serde(default)]
    status: u8,
    time: Option<String>,
    lat: Option<f64>,
    lon: Option<f64>,
    eph: Option<f64>,
    epx: Option<f64>,
    epy: Option<f64>,
    speed: Option<f64>,
}

fn read_object(line: &[u8]) -> Result<Report, ReportError> {
    let object: Object = serde_json::from_slice(line).map_err(ReportError::Json)?;
    if object.class != "TPV" {
        return Ok(Report::Other);
    }
    let device = object.device;
    if object.mode < 2 || matches!(object.status, 5 | 8) {
        return Ok(Report::Lost { device });
    }
    let each = object.epx.zip(object.epy).map(|(east, north)| east.hypot(north));
    // gpsd tells a fix several times, as it gets to know more of it.
    let (Some(time), Some(latitude), Some(longitude), Some(error)) =
        (object.time, object.lat, object.lon, object.eph.or(each))
    else {
        return Ok(Report::Other);
    };
    let fixed_at_ms = milliseconds(&time).ok_or(ReportError::Time { text: time })?;
    let (point, accuracy) = (Point::from_degrees(latitude, longitude)?, Accuracy::from_metres(error)?);
    Ok(Report::Fix { device, point, accuracy, fixed_at_ms, speed: object.speed })
}

/// `2026-11-30T20:09:49.000Z` as milliseconds since 1970.
fn milliseconds(text: &str) -> Option<u64> {
    let text = text.strip_suffix('Z').filter(|text| text.is_ascii())?;
    let (day, time) = text.split_once('T')?;
    let number =
        |text: &str| text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
    let mut day = day.split('-').map(number);
    let (year, month, day) = (day.next()??, day.next()??, day.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let fraction = number(&format!("{fraction:0<3}").chars().take(3).collect::<String>())?;
    let mut time = time.split(':').map(number);
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let is_one = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_one {
        return None;
    }
    // Days since 1 March of year 0, and from there since 1970.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    let seconds = (days - 719_468) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(seconds * 1000 + fraction)
}

/// A message of u-blox's, in hex: sync, class, identifier, length, payload, checksum.
fn read_binary(line: &[u8]) -> Option<Report> {
    let frame = HEXLOWER.decode(line).ok()?;
    let (body, checksum) = frame.strip_prefix(&UBX_SYNC)?.split_last_chunk::<2>()?;
    let (head, payload) = body.split_first_chunk::<4>()?;
    let [class, identifier, length @ ..] = *head;
    if usize::from(u16::from_le_bytes(length)) != payload.len() || fletcher(body) != *checksum {
        return None;
    }
    let byte = |index: usize| payload.get(index).copied().unwrap_or_default();
    let is_jammed_by = |state: u8| state & 3 >= JAMMING_WARNING;
    let (is_spoofed, is_jammed) = match (class, identifier) {
        UBX_NAV_STATUS => (byte(7) >> 3 & 3 >= SPOOFING_INDICATED, false),
        UBX_MON_HW => (false, is_jammed_by(byte(22) >> 2)),
        UBX_MON_RF => (
            false,
            payload
                .get(4..)?
                .chunks_exact(24)
                .any(|block| is_jammed_by(block.get(1).copied().unwrap_or_default())),
        ),
        _ => return None,
    };
    Some(Report::Signals { is_spoofed, is_jammed })
}

/// The 8-bit checksum of UBX.
fn fletcher(bytes: &[u8]) -> [u8; 2] {
    bytes.iter().fold([0, 0], |[a, b], byte| {
        let a = byte.wrapping_add(a);
        [a, a.wrapping_add(b)]
    })
}

const UBX_SYNC: [u8; 2] = [0xb5, 0x62];
/// flags2 has spoofDetState in bits 3 and 4: 2 is indicated, 3 several times.
const UBX_NAV_STATUS: (u8, u8) = (0x01, 0x03);
/// flags has jammingState in bits 2 and 3.
const UBX_MON_HW: (u8, u8) = (0x0a, 0x09);
/// Blocks of 24 bytes after the first four; the flags of each have jammingState in bits 0 and 1.
const UBX_MON_RF: (u8, u8) = (0x0a, 0x38);
const SPOOFING_INDICATED: u8 = 2;
/// 3 is critical.
const JAMMING_WARNING: u8 = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ubx((class, identifier): (u8, u8), payload: &[u8]) -> Vec<u8> {
        let length = u16::try_from(payload.len()).unwrap().to_le_bytes();
        let body = [&[class, identifier], length.as_slice(), payload].concat();
        let frame = [UBX_SYNC.as_slice(), &body, &fletcher(&body)].concat();
        HEXLOWER.encode(&frame).into_bytes()
    }

    fn signals(line: &[u8]) -> Option<(bool, bool)> {
        match read(line).unwrap() {
            Report::Signals { is_spoofed, is_jammed } => Some((is_spoofed, is_jammed)),
            _ => None,
        }
    }

    #[test]
    fn a_fix_is_one_with_point_time_and_error() {
        let line = br#"{"class":"TPV","device":"/dev/pts/0","mode":3,"time":"2026-11-30T20:09:49.250Z","ept":0.005,"lat":52.520000000,"lon":13.405000000,"epx":9.114,"epy":20.365,"speed":0.051,"eph":19.000}"#;
        let expected = Report::Fix {
            device: "/dev/pts/0".to_owned(),
            point: "52.52,13.405".parse().unwrap(),
            accuracy: Accuracy::from_metres(19.0).unwrap(),
            fixed_at_ms: 1_796_069_389_250,
            speed: Some(0.051),
        };
        assert_eq!(read(line).unwrap(), expected);
        let text = std::str::from_utf8(line).unwrap();
        let other = |from: &str, to: &str| read(text.replace(from, to).as_bytes());
        assert!(matches!(
            other(",\"eph\":19.000", "").unwrap(),
            Report::Fix { accuracy, .. } if accuracy == Accuracy::from_metres(22.32).unwrap()
        ));
        // Told before the time is known.
        assert_eq!(other("\"time\":\"2026-11-30T20:09:49.250Z\",", "").unwrap(), Report::Other);
        let lost = Report::Lost { device: "/dev/pts/0".to_owned() };
        assert_eq!(other("\"mode\":3", "\"mode\":1").unwrap(), lost);
        assert_eq!(other("\"mode\":3", "\"mode\":3,\"status\":8").unwrap(), lost);
        assert!(matches!(other("52.52", "152.52"), Err(ReportError::Point(PointError::Latitude))));
        assert!(matches!(other("\"eph\":19.000", "\"eph\":0"), Err(ReportError::Accuracy(_))));
        assert!(matches!(other("2026-11-30", "2026-13-30"), Err(ReportError::Time { .. })));
        assert!(matches!(other("52.520000000", "\"x\""), Err(ReportError::Json(_))));
    }

    #[test]
    fn other_lines_say_nothing_and_bad_ones_why() {
        for line in [
            "",
            "$GPGGA,200949.00,5231.2000,N*56",
            "{\"class\":\"SKY\",\"hdop\":1.0}",
            "b5",
            "b562zz",
            "\u{fffd}",
        ] {
            assert_eq!(read(line.as_bytes()).unwrap(), Report::Other, "{line:?}");
        }
        assert!(matches!(read(b"{"), Err(ReportError::Json(_))));
        assert!(matches!(read(&[b' '; LINE_BYTES_MAX + 1]), Err(ReportError::TooLong)));
    }

    #[test]
    fn a_receiver_tells_of_forged_and_jammed_signals() {
        let status =
            |state: u8| ubx(UBX_NAV_STATUS, &[0, 0, 0, 0, 3, 0xd, 0, state << 3, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!([0, 1, 2, 3].map(|state| signals(&status(state)).unwrap().0), [false, false, true, true]);
        let hardware = |state: u8| {
            let mut payload = [0; 60];
            payload[22] = state << 2;
            ubx(UBX_MON_HW, &payload)
        };
        assert_eq!(
            [0, 1, 2, 3].map(|state| signals(&hardware(state)).unwrap().1),
            [false, false, true, true]
        );
        let mut two_blocks = [0; 52];
        two_blocks[4 + 24 + 1] = 3;
        assert_eq!(signals(&ubx(UBX_MON_RF, &two_blocks)), Some((false, true)));
        assert_eq!(signals(&ubx((0x01, 0x07), &[0xff; 92])), None);
        // Whatever is wrong with a frame, it says nothing.
        let mut changed = status(2);
        changed[10] ^= 1;
        assert_eq!(signals(&changed), None);
        assert_eq!(signals(&status(2)[..30]), None);
        // As gpsd 3.22 passed it on.
        assert_eq!(signals(b"b5620103100000000000030d0010000000000000000034b0\r\n"), Some((true, false)));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T12:00:00Z", 951_825_600),
            ("2024-12-31T23:59:60Z", 1_735_689_600),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
        ] {
            assert_eq!(milliseconds(text), Some(seconds * 1000), "{text}");
        }
        for text in [
            "",
            "Z",
            "1969-12-31T00:00:00Z",
            "2026-11-30T20:09Z",
            "2026-11-30 20:09:49Z",
            "2026-11-30T24:00:00Z",
            "2026-+1-30T00:00:00Z",
            "2026-11-30T00:00:00.é5Z",
        ] {
            assert_eq!(milliseconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_line_is_answered(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line);
            let _ = read(&[b"b562".as_slice(), HEXLOWER.encode(&line).as_bytes()].concat());
        }

        #[test]
        fn any_object_is_answered(mode in 0u8..5, lat in any::<f64>(), lon in any::<f64>(), eph in any::<f64>(), time in "[-0-9T:.Z]{0,30}") {
            let line = serde_json::json!({ "class": "TPV", "mode": mode, "lat": lat, "lon": lon, "eph": eph, "time": time });
            let _ = read(line.to_string().as_bytes());
        }
    }
}
