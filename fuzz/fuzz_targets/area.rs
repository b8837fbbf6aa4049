//! An area with its GeoJSON: what is read can be written, read again, and asked about any point.
#![no_main]

use assay_evidence::time::UnixTime;
use assay_telemetry::position::{Accuracy, Point, Position, Source};
use assay_trust::place::Area;
use assay_trust::policy::LocationSection;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: (i32, i32, &str)| {
    let (north, east, text) = data;
    let Ok(area) = serde_json::from_str::<Area>(text) else { return };
    let written = serde_json::to_string(&area).expect("an area is text and numbers");
    assert_eq!(serde_json::from_str::<Area>(&written).expect("what was written"), area);
    let (Ok(point), Ok(accuracy)) = (Point::from_e7(north, east), Accuracy::from_centimetres(100)) else {
        return;
    };
    let position = Position { point, accuracy, fixed_at: None, source: Source::Receiver, doubts: Vec::new() };
    let section = LocationSection { allow_areas: vec![area], ..LocationSection::default() };
    let seen = section.fence().survey(&position, UnixTime(0));
    assert!(seen.iter().all(|seen| (0.0..20_100_000.0).contains(&seen.border_m)), "{seen:?}");
});
