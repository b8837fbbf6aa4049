//! Areas and fences: corners of the earth, and properties against an oracle that does it another way.

use assay_evidence::time::UnixTime;
use assay_telemetry::position::{Accuracy, Point, Position, Source};
use proptest::prelude::*;

use super::outline::Outline;
use super::{Area, Fence, Refused, Stands};
use crate::policy::{LocationSection, Policy};

const NOW: UnixTime = UnixTime(1_796_000_000);

fn area(coordinates: &str) -> Area {
    let kind = if coordinates.starts_with("[[[[") { "MultiPolygon" } else { "Polygon" };
    let text = format!(r#"{{"name": "a", "geometry": {{"type": "{kind}", "coordinates": {coordinates}}}}}"#);
    serde_json::from_str(&text).unwrap()
}

fn position(point: &str, metres: f64) -> Position {
    Position {
        point: point.parse().unwrap(),
        accuracy: Accuracy::from_metres(metres).unwrap(),
        fixed_at: Some(NOW.0 - 10),
        source: Source::Receiver,
        doubts: Vec::new(),
    }
}

fn fence(section: &str) -> Fence {
    toml::from_str::<LocationSection>(section).unwrap().fence()
}

fn is_inside(coordinates: &str, point: &str) -> bool {
    Outline::new(area(coordinates).shape()).reach(point.parse().unwrap()).is_inside
}

/// Metres to the border, with what they may be off.
fn metres(coordinates: &str, point: &str) -> f64 {
    Outline::new(area(coordinates).shape()).reach(point.parse().unwrap()).metres
}

fn near(found: f64, expected: f64) {
    assert!((found - expected).abs() <= expected * 0.0065 + 0.1, "{found}, not {expected}");
}

#[test]
fn holes_are_outside_and_what_is_in_them_may_be_an_area_again() {
    // A square with a hole, and an island in the hole.
    let lake = "[[[[0,0],[10,0],[10,10],[0,10],[0,0]], [[2,2],[2,8],[8,8],[8,2],[2,2]]], [[[4,4],[6,4],[6,6],[4,6],[4,4]]]]";
    for (point, expected) in [("1,1", true), ("3,3", false), ("5,5", true), ("9,5", true), ("11,5", false)] {
        assert_eq!(is_inside(lake, point), expected, "{point}");
    }
    near(metres(lake, "5,3"), 111_195.0 * 5f64.to_radians().cos());
}

#[test]
fn an_area_goes_on_across_the_antimeridian_however_it_is_written() {
    let cut = "[[[[177,-19],[180,-19],[180,-16],[177,-16],[177,-19]]], [[[-180,-19],[-178,-19],[-178,-16],[-180,-16],[-180,-19]]]]";
    let counted_on = "[[[177,-19],[182,-19],[182,-16],[177,-16],[177,-19]]]";
    let counted_back = "[[[-183,-19],[-178,-19],[-178,-16],[-183,-16],[-183,-19]]]";
    for fiji in [cut, counted_on, counted_back] {
        for (point, expected) in [
            ("-17,179.9", true),
            ("-17,-179.9", true),
            ("-17,180", true),
            ("-17,-180", true),
            ("-17,176", false),
            ("-17,-177", false),
        ] {
            assert_eq!(is_inside(fiji, point), expected, "{fiji}: {point}");
        }
        // The cut is no border.
        let parallel = 111_195.0 * 17f64.to_radians().cos();
        near(metres(fiji, "-17,180"), 111_195.0);
        near(metres(fiji, "-17,-178.5"), parallel / 2.0);
    }
    // Where an area ends at the antimeridian, that is one.
    let half = "[[[177,-19],[180,-19],[180,-16],[177,-16],[177,-19]]]";
    near(metres(half, "-17.5,179.9"), 11_119.5 * 17.5f64.to_radians().cos());
    // A cut that the other side meets in part only.
    let apart =
        "[[[[170,0],[180,0],[180,10],[170,10],[170,0]]], [[[-180,5],[-170,5],[-170,10],[-180,10],[-180,5]]]]";
    near(metres(apart, "2,179.9"), 11_119.5 * 2f64.to_radians().cos());
    near(metres(apart, "8,179.9"), 2.0 * 111_195.0);
}

#[test]
fn the_poles_are_places_like_others() {
    let cap = "[[[-180,60],[-90,60],[0,60],[90,60],[180,60],[180,90],[-180,90],[-180,60]]]";
    for (point, expected) in
        [("90,0", true), ("90,123", true), ("89,180", true), ("61,-180", true), ("59,0", false)]
    {
        assert_eq!(is_inside(cap, point), expected, "{point}");
    }
    near(metres(cap, "90,0"), 30.0 * 111_195.0);
    near(metres(cap, "80,180"), 20.0 * 111_195.0);
    // A sector that ends at the pole has it as a corner.
    let sector = "[[[0,60],[90,60],[90,90],[0,90],[0,60]]]";
    near(metres(sector, "89,45"), 111_195.0 * 45f64.to_radians().sin());
    assert!(!is_inside(sector, "89,-45") && !is_inside(sector, "-90,0"));
}

#[test]
fn edges_follow_the_parallel_as_geojson_has_it() {
    // The straight way between the two ends is 150 km and more to the north of the parallel.
    let border = "[[[-123,30],[-95,30],[-95,49],[-123,49],[-123,30]]]";
    assert!(is_inside(border, "48.9,-109") && !is_inside(border, "49.1,-109"));
    near(metres(border, "49.1,-109"), 11_119.5);
}

#[test]
fn a_circle_is_measured_from_its_centre() {
    let fence = fence(
        "[[allow_areas]]\nname = 'c'\ncircle = { latitude = 52.52, longitude = 13.405, radius_m = 1000 }",
    );
    let stands = |point: &str, metres| fence.survey(&position(point, metres), NOW).remove(0).stands;
    assert_eq!(stands("52.52,13.405", 900.0), Stands::Inside);
    assert_eq!(stands("52.52,13.405", 1001.0), Stands::Uncertain);
    assert_eq!(stands("52.5245,13.405", 400.0), Stands::Inside);
    assert_eq!(stands("52.5245,13.405", 600.0), Stands::Uncertain);
    assert_eq!(stands("52.54,13.405", 10.0), Stands::Outside);
    // Close to the border the earth's shape is in the way.
    assert_eq!(stands("52.52897,13.405", 0.01), Stands::Uncertain);
}

#[test]
fn what_encloses_nothing_or_goes_an_unknown_way_is_refused_with_the_reason() {
    let error = |geometry: &str| {
        let text = format!(r#"{{"name": "a", "geometry": {geometry}}}"#);
        serde_json::from_str::<Area>(&text).unwrap_err().to_string()
    };
    let polygon =
        |coordinates: &str| error(&format!(r#"{{"type": "Polygon", "coordinates": {coordinates}}}"#));
    for (found, expected) in [
        (polygon("[]"), "no polygon"),
        (polygon("[[]]"), "at least four points"),
        (polygon("[[[0,0],[1,0],[0,0]]]"), "at least four points"),
        (polygon("[[[0,0],[1,0],[1,1],[0,1]]]"), "the last is the first"),
        (polygon("[[[0,0],[1,1],[2,2],[0,0]]]"), "encloses nothing"),
        (polygon("[[[0,0],[1,0],[1,1],[0,0]], [[0,0],[0,0],[0,0],[0,0]]]"), "ring 1"),
        (polygon("[[[170,0],[-170,0],[-170,1],[170,0]]]"), "antimeridian"),
        (polygon("[[[-200,0],[-50,0],[100,0],[200,1],[100,1],[-50,1],[-200,0]]]"), "more than once around"),
        (polygon("[[[0,91],[1,0],[1,1],[0,91]]]"), "latitude is -90 to 90"),
        (polygon("[[[541,0],[1,0],[1,1],[541,0]]]"), "longitude is -180 to 180"),
        (polygon("[[[0],[1,0],[1,1],[0]]]"), "invalid length 1"),
        (polygon("[[[0,null],[1,0],[1,1],[0,null]]]"), "invalid type"),
        (error(r#"{"type": "Point", "coordinates": [0,0]}"#), "unknown variant"),
        (error(r#"{"type": "Polygon", "coordinates": [[[0,0],[1,0],[1,1],[0,0]]], "crs": {}}"#), "crs"),
    ] {
        assert!(found.contains(expected), "{found}");
    }
    for number in ["nan", "inf"] {
        let text = format!(
            "name = 'a'\ngeometry = {{ type = 'Polygon', coordinates = [[[0, {number}], [1, 0], [1, 1], [0, {number}]]] }}"
        );
        assert!(toml::from_str::<Area>(&text).is_err(), "{text}");
    }
}

#[test]
fn what_is_denied_comes_first_and_the_border_of_it_too() {
    let fence = fence(
        "[[allow_areas]]\nname = 'land'\ncircle = { latitude = 52, longitude = 13, radius_m = 100000 }\n\
         [[deny_areas]]\nname = 'site'\ncircle = { latitude = 52, longitude = 13, radius_m = 1000 }\n\
         [[deny_areas]]\nname = 'dock'\ncircle = { latitude = 52.2, longitude = 13, radius_m = 1000 }\n\
         hours = [{ from = '22:00', to = '06:00' }]",
    );
    let judge = |point: &str, accuracy, time: &str| {
        let now = UnixTime::from_rfc3339(time).unwrap();
        fence.judge(None, Some(&position(point, accuracy)), now)
    };
    const NOON: &str = "2026-11-30T12:00:00Z";
    assert_eq!(judge("52.1,13", 5.0, NOON).unwrap().area.as_deref(), Some("land"));
    assert!(matches!(judge("52,13", 5.0, NOON), Err(Refused::DeniedArea { stands: Stands::Inside, .. })));
    assert!(matches!(
        judge("52.0092,13", 50.0, NOON),
        Err(Refused::DeniedArea { stands: Stands::Uncertain, .. })
    ));
    assert!(judge("52.2,13", 5.0, NOON).is_ok());
    let night = judge("52.2,13", 5.0, "2026-11-30T23:00:00Z");
    assert!(matches!(night, Err(Refused::DeniedArea { area, .. }) if area == "dock"));
    assert!(matches!(judge("53.2,13", 5.0, NOON), Err(Refused::Elsewhere { stands: Stands::Outside, .. })));
}

#[test]
fn what_a_position_has_to_show_is_looked_at_before_where_it_is() {
    const CIRCLE: &str =
        "[[allow_areas]]\nname = 'c'\ncircle = { latitude = 52, longitude = 13, radius_m = 1000 }";
    let judge = |lines: &str, position: Option<&Position>| {
        fence(&format!("{lines}\n{CIRCLE}")).judge(None, position, NOW)
    };
    let good = position("52,13", 5.0);
    assert_eq!(judge("", None), Err(Refused::NoPosition));
    assert!(judge("accuracy_max_m = 5\nfix_age_max_seconds = 10", Some(&good)).is_ok());
    assert_eq!(judge("accuracy_max_m = 4", Some(&good)), Err(Refused::Accuracy { found_m: 5, max_m: 4 }));
    assert_eq!(judge("fix_age_max_seconds = 9", Some(&good)), Err(Refused::Old { seconds: 10, max: 9 }));
    let timeless = Position { fixed_at: None, ..good.clone() };
    assert_eq!(judge("fix_age_max_seconds = 9", Some(&timeless)), Err(Refused::NoTime));
    let early = Position { fixed_at: Some(NOW.0 + 61), ..good.clone() };
    assert_eq!(judge("fix_age_max_seconds = 9", Some(&early)), Err(Refused::Early { seconds: 61 }));
    let written = Position { source: Source::Configured, ..good.clone() };
    assert!(matches!(judge("", Some(&written)), Err(Refused::Assurance { .. })));
    assert!(judge("assurance = 'stated'", Some(&written)).is_ok());
    let wide = Position { accuracy: Accuracy::from_metres(2000.0).unwrap(), ..good };
    assert!(matches!(judge("", Some(&wide)), Err(Refused::Elsewhere { stands: Stands::Uncertain, .. })));
    assert!(judge("uncertain = 'accept'", Some(&wide)).unwrap().is_uncertain);
}

#[test]
fn outside_of_its_hours_no_area_is_left() {
    let fence = fence(
        "[[allow_areas]]\nname = 'c'\ncircle = { latitude = 52, longitude = 13, radius_m = 1000 }\nhours = [{ from = '06:00', to = '07:00' }]",
    );
    let at = |time| fence.judge(None, Some(&position("52,13", 5.0)), UnixTime::from_rfc3339(time).unwrap());
    assert!(at("2026-11-30T06:30:00Z").is_ok());
    assert_eq!(at("2026-11-30T07:30:00Z"), Err(Refused::NoHours));
}

#[test]
fn a_policy_with_lines_that_judge_nothing_is_refused() {
    let error = |section: &str| {
        let text = format!("name = 'a'\nversion = 1\n[ima]\nallow = {{}}\n[location]\n{section}");
        Policy::from_toml(&text).unwrap_err().to_string()
    };
    const CIRCLE: &str =
        "[[location.allow_areas]]\nname = 'c'\ncircle = { latitude = 52, longitude = 13, radius_m = 1000 }";
    for (section, expected) in [
        ("assurance = 'sensed'", "an empty list accepts nothing"),
        ("allow_countries = ['DE']\nassurance = 'sensed'", "location.assurance: no position is asked for"),
        ("allow_countries = ['DE']\nuncertain = 'accept'", "location.uncertain: no position is asked for"),
        (&format!("accuracy_max_m = 0\n{CIRCLE}"), "location.accuracy_max_m: 0 accepts nothing"),
        (&CIRCLE.replace("'c'", "'a b'"), "no name of an area"),
        (&CIRCLE.replace("1000", "0"), "0 metres are out of range"),
        (
            &format!("{CIRCLE}\ngeometry = {{ type = 'Polygon', coordinates = [] }}"),
            "either `circle` or `geometry`",
        ),
        (&CIRCLE.replace("52,", "520,"), "latitude is -90 to 90"),
        (&format!("{CIRCLE}\nhours = [{{ from = '6', to = '7' }}]"), "no time of day"),
    ] {
        let found = error(section);
        assert!(found.contains(expected), "{section}: {found}");
    }
}

/// Degrees, longitude first.
type Flat = (f64, f64);

/// The oracle: turns are summed up, and edges are walked in small steps.
fn oracle(rings: &[Vec<Flat>], point: Flat) -> (bool, f64) {
    let turns = |ring: &Vec<Flat>| {
        let angle = |at: &Flat| (at.1 - point.1).atan2(at.0 - point.0);
        let pairs = ring.iter().zip(ring.iter().skip(1));
        let turned = |(from, to): (&Flat, &Flat)| {
            let between = angle(to) - angle(from);
            between - (between / std::f64::consts::TAU).round() * std::f64::consts::TAU
        };
        (pairs.map(turned).sum::<f64>() / std::f64::consts::TAU).round() as i64
    };
    let is_inside = turns(&rings[0]) % 2 != 0 && !rings[1..].iter().any(|hole| turns(hole) % 2 != 0);
    let at = |(longitude, latitude): Flat| Point::from_degrees(latitude, longitude).unwrap();
    let steps = |from: Flat, to: Flat| {
        (0..=STEPS).map(move |step| {
            let part = f64::from(step) / f64::from(STEPS);
            (from.0 + part * (to.0 - from.0), from.1 + part * (to.1 - from.1))
        })
    };
    let edges = rings.iter().flat_map(|ring| ring.iter().zip(ring.iter().skip(1)));
    let walked = edges.flat_map(|(from, to)| steps(*from, *to));
    (is_inside, walked.map(|step| at(step).metres_to(at(point))).fold(f64::MAX, f64::min))
}

const STEPS: u32 = 2000;

/// A star around a centre, so that its ring does not cross itself, with its radii in degrees.
fn star(center: Flat, radii: &[f64]) -> Vec<Flat> {
    let count = radii.len() as f64;
    let at = |(index, radius): (usize, &f64)| {
        let angle = index as f64 / count * std::f64::consts::TAU;
        let round = |degrees: f64| (degrees * 1e7).round() / 1e7;
        (round(center.0 + radius * angle.cos()), round(center.1 + radius * angle.sin()))
    };
    let ring: Vec<Flat> = radii.iter().enumerate().map(at).collect();
    ring.iter().chain(ring.first()).copied().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn containment_and_distance_are_those_of_an_oracle(
        center in (-150.0f64..150.0, -60.0f64..60.0),
        radii in prop::collection::vec(2.0f64..20.0, 3..40),
        hole in prop::collection::vec(0.2f64..1.0, 3..8),
        point in (-29.0f64..29.0, -29.0f64..29.0),
    ) {
        let rings = vec![star(center, &radii), star(center, &hole)];
        let coordinates = serde_json::to_string(&rings).unwrap();
        let point = (center.0 + point.0, center.1 + point.1);
        let (is_inside, walked) = oracle(&rings, point);
        let reach = Outline::new(area(&coordinates).shape()).reach(Point::from_degrees(point.1, point.0).unwrap());
        // A step is at most some km, and past the nearest point of an edge by half of that.
        let step = 40.0 * 111_195.0 * 2.0 / f64::from(STEPS);
        if walked > 2.0 {
            prop_assert_eq!(reach.is_inside, is_inside);
        }
        prop_assert!(reach.metres <= walked + reach.slack, "{} of {walked}", reach.metres);
        prop_assert!(reach.metres + reach.slack + step * step / walked.max(step) >= walked, "{} of {walked}", reach.metres);
    }

    #[test]
    fn an_area_turned_around_the_earth_is_the_same_area(
        radii in prop::collection::vec(1.0f64..20.0, 3..20),
        point in (-25.0f64..25.0, -25.0f64..25.0),
        turn in -180i32..180,
    ) {
        let reach = |center: f64| {
            let ring = star((center, 10.0), &radii);
            let coordinates = serde_json::to_string(&[ring]).unwrap();
            let east = center + point.0;
            let around = east - (east / 360.0).round() * 360.0;
            let at = Point::from_degrees(10.0 + point.1, around).unwrap();
            Outline::new(area(&coordinates).shape()).reach(at)
        };
        let (here, there) = (reach(0.0), reach(f64::from(turn)));
        prop_assert!((here.metres - there.metres).abs() <= here.slack, "{here:?} {there:?}");
        if here.metres > 1.0 {
            prop_assert_eq!(here.is_inside, there.is_inside);
        }
    }

    #[test]
    fn what_is_inside_is_inside_of_whatever_holds_it(
        center in (-150.0f64..150.0, -60.0f64..60.0),
        radii in prop::collection::vec(1.0f64..10.0, 3..20),
        point in (-12.0f64..12.0, -12.0f64..12.0),
        accuracy in 0.01f64..100_000.0,
    ) {
        let wider: Vec<f64> = radii.iter().map(|radius| radius * 1.5).collect();
        let fence = |radii: &[f64]| {
            let ring = serde_json::to_string(&[star(center, radii)]).unwrap();
            fence(&format!("[[allow_areas]]\nname = 'a'\ngeometry = {{ type = 'Polygon', coordinates = {ring} }}"))
        };
        let at = Point::from_degrees(center.1 + point.1, center.0 + point.0).unwrap();
        let position = Position { point: at, ..position("0,0", accuracy) };
        let stands = |radii: &[f64]| fence(radii).survey(&position, NOW).remove(0).stands;
        match (stands(&radii), stands(&wider)) {
            (Stands::Inside, wider) => prop_assert_eq!(wider, Stands::Inside),
            (narrow, Stands::Outside) => prop_assert_eq!(narrow, Stands::Outside),
            _ => {}
        }
    }

    #[test]
    fn any_geometry_is_read_or_refused_and_any_point_is_answered(
        rings in prop::collection::vec(
            prop::collection::vec((-540i32..=540, -90i32..=90), 3..9), 1..3
        ),
        point in (-90i32..=90, -180i32..=180),
    ) {
        let closed: Vec<Vec<(i32, i32)>> = rings
            .into_iter()
            .map(|ring| ring.iter().chain(ring.first()).copied().collect())
            .collect();
        let text = serde_json::json!({ "name": "a", "geometry": { "type": "Polygon", "coordinates": closed } });
        if let Ok(area) = serde_json::from_value::<Area>(text) {
            let written = serde_json::to_string(&area).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Area>(&written).unwrap(), &area);
            let reach = Outline::new(area.shape()).reach(Point::from_degrees(point.0.into(), point.1.into()).unwrap());
            prop_assert!(reach.metres >= 0.0 && reach.metres <= 20_100_000.0, "{:?}", reach);
        }
    }
}
