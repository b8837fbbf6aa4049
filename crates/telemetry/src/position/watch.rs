//! What a receiver says, held against what it said before, against where the device is meant to stand, and against its clock.
//!
//! Pure: fixes and the time at which they came go in, positions with doubts come out. A doubt stands for [`Limits::doubt_seconds`] after
//! it was last seen. Whoever moves a receiver's signals slowly, and its time along with the true one, is not seen here.

use super::{Accuracy, Doubt, Point, Position, Source};

/// What a receiver says at a moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fix {
    /// The point.
    pub point: Point,
    /// How far it may be off.
    pub accuracy: Accuracy,
    /// When it was fixed, milliseconds since 1970 by the receiver's clock, if it has one.
    pub fixed_at_ms: Option<u64>,
    /// How fast it moves over ground, metres per second, if it says so.
    pub speed: Option<f64>,
    /// Whether the receiver says that its signals are forged.
    pub is_spoofed: bool,
    /// Whether the receiver says that its signals are jammed.
    pub is_jammed: bool,
    /// When it came, milliseconds of any clock of the device that the receiver does not set.
    pub came_ms: u64,
}

/// What is believed of a receiver without a doubt.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// The fastest that the device can be, metres per second.
    pub speed_max: f64,
    /// Where it is meant to stand, and how many metres off it may be.
    pub site: Option<(Point, f64)>,
    /// For how long a doubt stands after what raised it was last seen.
    pub doubt_seconds: u64,
}

/// A receiver under watch.
#[derive(Clone, Debug)]
pub struct Watch {
    limits: Limits,
    last: Option<Fix>,
    /// When each of [`Doubt::NAMED`] was last seen.
    seen_ms: [Option<u64>; Doubt::NAMED.len()],
}

impl Watch {
    /// Of a receiver that has said nothing yet.
    pub fn new(limits: Limits) -> Self {
        Watch { limits, last: None, seen_ms: Default::default() }
    }

    /// Takes the next fix, and gives the position that it makes.
    pub fn take(&mut self, fix: Fix) -> Position {
        let seen = self.seen(&fix);
        for (doubt, at) in Doubt::NAMED.iter().zip(&mut self.seen_ms) {
            if seen.contains(doubt) {
                *at = Some(fix.came_ms);
            }
        }
        self.last = Some(fix);
        let stands = |at: &Option<u64>| {
            at.is_some_and(|at| {
                fix.came_ms.saturating_sub(at) < self.limits.doubt_seconds.saturating_mul(1000).max(1)
            })
        };
        let doubts = Doubt::NAMED.iter().zip(&self.seen_ms).filter(|(_, at)| stands(at));
        Position {
            point: fix.point,
            accuracy: fix.accuracy,
            fixed_at: fix.fixed_at_ms.map(|at| at / 1000),
            source: Source::Receiver,
            doubts: doubts.map(|(doubt, _)| *doubt).collect(),
        }
    }

    /// What is wrong with a fix by itself, and after the last one.
    fn seen(&self, fix: &Fix) -> Vec<Doubt> {
        let since = self.last.as_ref().map(|last| Since::new(last, fix));
        let is_elsewhere =
            |(site, metres): (Point, f64)| site.metres_to(fix.point) - fix.accuracy.metres() > metres;
        let found = [
            (Doubt::Speed, since.as_ref().is_some_and(|since| since.is_faster_than(self.limits.speed_max))),
            (Doubt::Jump, since.as_ref().is_some_and(Since::is_jump)),
            (Doubt::Time, since.as_ref().is_some_and(Since::is_out_of_time)),
            (Doubt::Drift, self.limits.site.is_some_and(is_elsewhere)),
            (Doubt::Spoofing, fix.is_spoofed),
            (Doubt::Jamming, fix.is_jammed),
        ];
        found.into_iter().filter(|(_, is_so)| *is_so).map(|(doubt, _)| doubt).collect()
    }
}

/// What lies between two fixes.
struct Since {
    /// How far it moved at least, if both are as accurate as they say.
    metres: f64,
    /// Seconds by the device's clock.
    came: f64,
    /// Seconds by the receiver's, if both fixes have a time.
    fixed: Option<f64>,
    /// The higher of the speeds that the receiver said, if it said both.
    speed: Option<f64>,
}

impl Since {
    fn new(last: &Fix, fix: &Fix) -> Self {
        let seconds = |from: u64, to: u64| (to as f64 - from as f64) / 1000.0;
        let accuracies = last.accuracy.metres() + fix.accuracy.metres();
        Since {
            metres: (last.point.metres_to(fix.point) - accuracies).max(0.0),
            came: seconds(last.came_ms, fix.came_ms),
            fixed: last.fixed_at_ms.zip(fix.fixed_at_ms).map(|(from, to)| seconds(from, to)),
            speed: last.speed.zip(fix.speed).map(|(before, now)| before.max(now)),
        }
    }

    /// What came in one go was not fixed in no time.
    fn seconds(&self) -> f64 {
        self.fixed.unwrap_or_default().max(self.came).max(SECONDS_MIN)
    }

    fn is_faster_than(&self, speed_max: f64) -> bool {
        self.metres > speed_max * self.seconds()
    }

    /// A vehicle that stood still may have sped up between the two; a receiver that stands does not wander so far.
    fn is_jump(&self) -> bool {
        let said = |speed: f64| self.metres > JUMP_METRES + (speed * 2.0 + SPEED_UP) * self.seconds();
        self.speed.is_some_and(said)
    }

    fn is_out_of_time(&self) -> bool {
        self.fixed.is_some_and(|fixed| fixed < 0.0 || (fixed - self.came).abs() > TIME_APART_SECONDS)
    }
}

const SECONDS_MIN: f64 = 0.5;
const JUMP_METRES: f64 = 50.0;
/// Metres per second, beside what it says.
const SPEED_UP: f64 = 10.0;
/// A leap second, and what a busy device leaves lying.
const TIME_APART_SECONDS: f64 = 5.0;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { speed_max: 60.0, site: None, doubt_seconds: 30 };
    const START_MS: u64 = 1_790_000_000_000;

    /// A fix some seconds after the start, so many metres north of 52 degrees.
    fn fix(second: u64, metres_north: f64) -> Fix {
        Fix {
            point: Point::from_degrees(52.0 + metres_north / 111_195.0, 13.0).unwrap(),
            accuracy: Accuracy::from_metres(3.0).unwrap(),
            fixed_at_ms: Some(START_MS + second * 1000),
            speed: None,
            is_spoofed: false,
            is_jammed: false,
            came_ms: second * 1000,
        }
    }

    fn doubts(limits: Limits, fixes: &[Fix]) -> Vec<Doubt> {
        let mut watch = Watch::new(limits);
        fixes.iter().map(|fix| watch.take(*fix)).last().unwrap().doubts
    }

    #[test]
    fn what_cannot_be_is_doubted_and_what_can_is_not() {
        assert_eq!(doubts(LIMITS, &[fix(0, 0.0), fix(1, 50.0), fix(2, 100.0)]), []);
        assert_eq!(doubts(LIMITS, &[fix(0, 0.0), fix(1, 5000.0)]), [Doubt::Speed]);
        // After an hour it may be anywhere near.
        assert_eq!(doubts(LIMITS, &[fix(0, 0.0), fix(3600, 100_000.0)]), []);
        let stands = |fix: Fix| Fix { speed: Some(0.2), ..fix };
        assert_eq!(doubts(LIMITS, &[stands(fix(0, 0.0)), stands(fix(10, 300.0))]), [Doubt::Jump]);
        assert_eq!(doubts(LIMITS, &[stands(fix(0, 0.0)), stands(fix(10, 40.0))]), []);
        let moves = |fix: Fix| Fix { speed: Some(40.0), ..fix };
        assert_eq!(doubts(LIMITS, &[stands(fix(0, 0.0)), moves(fix(10, 300.0))]), []);
    }

    #[test]
    fn a_receivers_time_goes_as_the_devices_does() {
        let at =
            |second: u64, fixed: u64| Fix { fixed_at_ms: Some(START_MS + fixed * 1000), ..fix(second, 0.0) };
        assert_eq!(doubts(LIMITS, &[at(0, 0), at(1, 2)]), []);
        assert_eq!(doubts(LIMITS, &[at(10, 10), at(11, 9)]), [Doubt::Time]);
        assert_eq!(doubts(LIMITS, &[at(0, 0), at(1, 3600)]), [Doubt::Time]);
        assert_eq!(doubts(LIMITS, &[at(0, 0), Fix { fixed_at_ms: None, ..fix(1, 0.0) }]), []);
    }

    #[test]
    fn a_site_stays_where_it_is() {
        let limits = Limits { site: Some((Point::from_degrees(52.0, 13.0).unwrap(), 100.0)), ..LIMITS };
        assert_eq!(doubts(limits, &[fix(0, 102.0)]), []);
        assert_eq!(doubts(limits, &[fix(0, 110.0)]), [Doubt::Drift]);
    }

    #[test]
    fn a_doubt_stands_for_a_while_and_goes() {
        let mut watch = Watch::new(LIMITS);
        watch.take(Fix { is_spoofed: true, ..fix(0, 0.0) });
        assert_eq!(
            watch.take(Fix { is_jammed: true, ..fix(29, 0.0) }).doubts,
            [Doubt::Spoofing, Doubt::Jamming]
        );
        assert_eq!(watch.take(fix(30, 0.0)).doubts, [Doubt::Jamming]);
        assert_eq!(watch.take(fix(59, 0.0)).doubts, []);
    }

    proptest! {
        #[test]
        fn what_keeps_to_its_limits_is_never_doubted(
            steps in prop::collection::vec((1u64..600, -1.0f64..1.0), 1..40)
        ) {
            let mut watch = Watch::new(LIMITS);
            let (mut second, mut metres) = (0, 0.0);
            for (seconds, part) in steps {
                second += seconds;
                metres += part * LIMITS.speed_max * seconds as f64;
                prop_assert_eq!(watch.take(fix(second, metres)).doubts, []);
            }
        }

        #[test]
        fn any_fixes_are_answered(
            fixes in prop::collection::vec(
                (-900_000_000i32..=900_000_000, -1_800_000_000i32..=1_800_000_000, any::<Option<u64>>(), any::<Option<f64>>(), any::<u64>()),
                1..20,
            )
        ) {
            let mut watch = Watch::new(LIMITS);
            for (north, east, fixed_at_ms, speed, came_ms) in fixes {
                let point = Point::from_e7(north, east).unwrap();
                let position = watch.take(Fix { point, fixed_at_ms, speed, came_ms, ..fix(0, 0.0) });
                prop_assert_eq!(position.point, point);
            }
        }
    }
}
