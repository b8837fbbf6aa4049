//! Which of the devices that may run a task gets it.
//!
//! Whether a device may is [`grant::task`](crate::grant::task)'s to say, from results alone. Of those that may, a device needs room for
//! it and the labels that it asks for, which are no matters of trust: of what a device says of itself only its room counts here. The
//! best has most room left, the freshest evidence, and has not failed the task before; a score says so in parts.

use assay_evidence::time::UnixTime;

use crate::grant::Denied;
use crate::grant::task::{TaskRequest, check, check_task};
use crate::labels::{Labels, Selector};
use crate::state::TrustState;

/// What a device has, or a task takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Tasks at a time.
    pub tasks: u64,
}

impl Room {
    /// What is left of it; `None`: it is not enough.
    fn without(self, taken: Room) -> Option<Room> {
        Some(Room {
            memory_bytes: self.memory_bytes.checked_sub(taken.memory_bytes)?,
            cpu_millis: self.cpu_millis.checked_sub(taken.cpu_millis)?,
            tasks: self.tasks.checked_sub(taken.tasks)?,
        })
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Room) -> Room {
        Room {
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            tasks: self.tasks.saturating_add(other.tasks),
        }
    }
}

/// What a task asks of a device beside trust.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// What is to be run, and what that demands of trust.
    pub request: TaskRequest<'a>,
    /// What it takes.
    pub room: Room,
    /// The labels that a device must have.
    pub selector: &'a Selector,
    /// The label over whose values the tasks of its kind are spread, such as `site`; empty: over devices.
    pub spread: &'a str,
}

/// A device that is attached and runs tasks.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// What is held about it.
    pub state: &'a TrustState,
    /// What operators say about it.
    pub labels: &'a Labels,
    /// The room that it says it has; `None`: it does not say that it runs tasks.
    pub room: Option<Room>,
    /// What its tasks take of it.
    pub taken: Room,
    /// How often this task failed there.
    pub failed: u32,
    /// How many tasks there are on devices with the same value of the label that tasks are spread over.
    pub neighbours: u64,
}

/// Why a device does not get a task.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It may not run it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// It does not run tasks.
    #[error("it does not run tasks: [tasks] in its agent's configuration says that it does")]
    NoTasks,
    /// Other labels.
    #[error("it does not have the labels {selector}")]
    Labels {
        /// Those that it must have.
        selector: String,
    },
    /// Not enough room.
    #[error("it has no room: {left} of {all} left of its {what}, and {wanted} wanted")]
    Room {
        /// Of what.
        what: &'static str,
        /// What is left.
        left: u64,
        /// What there is.
        all: u64,
        /// What the task takes.
        wanted: u64,
    },
}

impl Unfit {
    /// The stable, kebab-case reason code.
    pub fn code(&self) -> &'static str {
        match self {
            Unfit::Denied(denied) => denied.code(),
            Unfit::NoTasks => "no-tasks",
            Unfit::Labels { .. } => "labels",
            Unfit::Room { .. } => "room",
        }
    }
}

/// How good a device is for a task, in parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Score {
    /// For what is left of its memory and processors, 0 to 400.
    pub room: u32,
    /// For the few tasks that there are already, there and on its neighbours, 0 to 300.
    pub spread: u32,
    /// For the freshness of its evidence, 0 to 200.
    pub freshness: u32,
    /// For not having failed the task, 0 to 100.
    pub record: u32,
}

impl Score {
    /// Its parts together, 0 to 1,000.
    pub fn total(&self) -> u32 {
        self.room + self.spread + self.freshness + self.record
    }

    /// Its parts by name, with what each can be at most.
    pub fn parts(&self) -> [(&'static str, u32, u32); 4] {
        [
            ("room", self.room, ROOM_MAX),
            ("spread", self.spread, SPREAD_MAX),
            ("freshness", self.freshness, FRESHNESS_MAX),
            ("record", self.record, RECORD_MAX),
        ]
    }
}

/// The best device for a task: its place among the candidates. Of equally good ones it is the first.
pub fn place<'a>(
    demand: &Demand<'_>,
    candidates: impl IntoIterator<Item = Candidate<'a>>,
    now: UnixTime,
) -> Option<(usize, Score)> {
    if check_task(&demand.request, &demand.request.definition.measurement()).is_err() {
        return None;
    }
    let mut best: Option<(usize, Score)> = None;
    for (place, candidate) in candidates.into_iter().enumerate() {
        if let Ok(score) = weigh(demand, &candidate, now)
            && best.is_none_or(|(_, than)| score.total() > than.total())
        {
            best = Some((place, score));
        }
    }
    best
}

/// What a device is worth for a task, or what there is against it. What there is against the task itself is for
/// [`check_task`] to say.
pub fn weigh(demand: &Demand<'_>, candidate: &Candidate<'_>, now: UnixTime) -> Result<Score, Unfit> {
    check(candidate.state, &demand.request, now)?;
    let all = candidate.room.ok_or(Unfit::NoTasks)?;
    if !demand.selector.matches(candidate.labels) {
        return Err(Unfit::Labels { selector: demand.selector.to_string() });
    }
    let left = all.without(candidate.taken).unwrap_or_default();
    let after = left.without(demand.room).ok_or_else(|| lacking(all, left, demand.room))?;
    let busy = candidate.taken.tasks.saturating_add(candidate.neighbours);
    Ok(Score {
        room: (share(after.memory_bytes, all.memory_bytes, ROOM_MAX)
            + share(after.cpu_millis, all.cpu_millis, ROOM_MAX))
            / 2,
        spread: SPREAD_MAX / u32::try_from(busy.saturating_add(1)).unwrap_or(u32::MAX),
        freshness: freshness(candidate.state, now),
        record: RECORD_MAX / candidate.failed.saturating_add(1),
    })
}

/// The first thing that there is too little of.
fn lacking(all: Room, left: Room, wanted: Room) -> Unfit {
    let lacks = [
        ("memory", left.memory_bytes, all.memory_bytes, wanted.memory_bytes),
        ("processors (in thousandths)", left.cpu_millis, all.cpu_millis, wanted.cpu_millis),
        ("places for tasks", left.tasks, all.tasks, wanted.tasks),
    ];
    let (what, left, all, wanted) =
        lacks.into_iter().find(|(_, left, _, wanted)| left < wanted).unwrap_or(("room", 0, 0, 0));
    Unfit::Room { what, left, all, wanted }
}

/// What part of its life the evidence has before it.
fn freshness(state: &TrustState, now: UnixTime) -> u32 {
    let (Some(at), Some(until)) = (state.evidence_at(), state.valid_until()) else { return 0 };
    share(until.0.saturating_sub(now.0), until.0.saturating_sub(at.0), FRESHNESS_MAX)
}

fn share(part: u64, whole: u64, points: u32) -> u32 {
    let points_of = u128::from(part.min(whole)) * u128::from(points) / u128::from(whole.max(1));
    u32::try_from(points_of).unwrap_or(points)
}

const ROOM_MAX: u32 = 400;
const SPREAD_MAX: u32 = 300;
const FRESHNESS_MAX: u32 = 200;
const RECORD_MAX: u32 = 100;

#[cfg(test)]
mod tests;
