//! A number of places, shared out by key.
//!
//! Nobody has more than a key's share. When all are taken, the key with the most makes room for one with fewer, its oldest
//! first; among equals the oldest makes room once it had its time. So whoever takes many places takes them from
//! themselves, and a place that leads nowhere is not held for long.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::time::{Duration, Instant};

use thiserror::Error;

/// How many places there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Of all.
    pub total: usize,
    /// Of one key.
    pub of_a_key: usize,
    /// How long a place is its holder's whoever else comes, unless the holder's key has more places than others do.
    pub safe_for: Duration,
}

/// One place, by number; a number is used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(u64);

/// Who was let in, and at whose cost.
#[derive(Debug, PartialEq, Eq)]
pub struct Admitted<T> {
    /// The newcomer's place.
    pub place: Place,
    /// The ticket of the one who had to make room.
    pub evicted: Option<T>,
}

/// There is no place now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("every place is taken")]
pub struct Crowded {
    /// When there may be one.
    pub retry_after: Duration,
}

/// The places, and who has them. Each holder leaves a ticket, which comes back when it has to go.
#[derive(Debug)]
pub struct Places<K, T> {
    room: Room,
    next: u64,
    holders: HashMap<Place, Holder<K, T>>,
    by_key: HashMap<K, BTreeSet<(Instant, Place)>>,
    /// Keys by how many places they have; only those of more than one.
    by_count: BTreeSet<(usize, K)>,
    by_age: BTreeSet<(Instant, Place)>,
}

#[derive(Debug)]
struct Holder<K, T> {
    key: K,
    since: Instant,
    ticket: T,
}

impl<K: Clone + Eq + Hash + Ord, T> Places<K, T> {
    /// All free.
    pub fn new(room: Room) -> Self {
        Places {
            room: Room {
                total: room.total.max(1),
                of_a_key: room.of_a_key.clamp(1, room.total.max(1)),
                ..room
            },
            next: 0,
            holders: HashMap::new(),
            by_key: HashMap::new(),
            by_count: BTreeSet::new(),
            by_age: BTreeSet::new(),
        }
    }

    /// Gives the key one more place, if need be another's.
    pub fn admit(&mut self, key: K, now: Instant, ticket: T) -> Result<Admitted<T>, Crowded> {
        let own = self.by_key.get(&key).map_or(0, BTreeSet::len);
        let leaving = if own >= self.room.of_a_key {
            let oldest = self.by_key.get(&key).and_then(BTreeSet::first).copied();
            Some(self.past_its_time(oldest, now)?)
        } else if self.holders.len() >= self.room.total {
            match self.of_the_greedier(own) {
                Some(place) => Some(place),
                None => Some(self.past_its_time(self.by_age.first().copied(), now)?),
            }
        } else {
            None
        };
        let evicted = leaving.and_then(|place| self.release(place));
        let place = Place(self.next);
        self.next += 1;
        self.put(place, Holder { key, since: now, ticket });
        Ok(Admitted { place, evicted })
    }

    /// Makes a place count as new: its holder did something with it.
    pub fn renew(&mut self, place: Place, now: Instant) {
        if let Some(holder) = self.take(place) {
            self.put(place, Holder { since: now, ..holder });
        }
    }

    /// Frees a place, and returns its holder's ticket if it was taken.
    pub fn release(&mut self, place: Place) -> Option<T> {
        self.take(place).map(|holder| holder.ticket)
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.holders.len()
    }

    /// How many are taken by a key.
    pub fn taken_by(&self, key: &K) -> usize {
        self.by_key.get(key).map_or(0, BTreeSet::len)
    }

    /// The oldest place of the key that has most, if that still has no fewer than the newcomer then.
    fn of_the_greedier(&self, own: usize) -> Option<Place> {
        let (count, key) = self.by_count.last()?;
        (*count > own + 1).then(|| self.by_key.get(key)?.first().map(|(_, place)| *place)).flatten()
    }

    fn past_its_time(&self, oldest: Option<(Instant, Place)>, now: Instant) -> Result<Place, Crowded> {
        let (since, place) = oldest.ok_or(Crowded { retry_after: self.room.safe_for })?;
        match self.room.safe_for.checked_sub(now.saturating_duration_since(since)) {
            Some(left) if !left.is_zero() => Err(Crowded { retry_after: left }),
            _ => Ok(place),
        }
    }

    fn put(&mut self, place: Place, holder: Holder<K, T>) {
        let (key, aged) = (holder.key.clone(), (holder.since, place));
        let places = self.by_key.entry(key.clone()).or_default();
        places.insert(aged);
        let count = places.len();
        self.recount(key, count - 1, count);
        self.by_age.insert(aged);
        self.holders.insert(place, holder);
    }

    fn take(&mut self, place: Place) -> Option<Holder<K, T>> {
        let holder = self.holders.remove(&place)?;
        let aged = (holder.since, place);
        self.by_age.remove(&aged);
        if let Some(places) = self.by_key.get_mut(&holder.key) {
            places.remove(&aged);
            let count = places.len();
            if count == 0 {
                self.by_key.remove(&holder.key);
            }
            self.recount(holder.key.clone(), count + 1, count);
        }
        Some(holder)
    }

    fn recount(&mut self, key: K, before: usize, now: usize) {
        let mut entry = (before, key);
        self.by_count.remove(&entry);
        entry.0 = now;
        if now > 1 {
            self.by_count.insert(entry);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAFE: Duration = Duration::from_secs(3);

    fn places(total: usize, of_a_key: usize) -> Places<u8, u64> {
        Places::new(Room { total, of_a_key, safe_for: SAFE })
    }

    #[test]
    fn finding_7_and_8_whoever_takes_many_places_makes_room_for_whoever_has_none() {
        let now = Instant::now();
        let mut places = places(6, 6);
        for ticket in 0..6 {
            assert_eq!(places.admit(1, now, ticket).unwrap().evicted, None);
        }
        for (key, of_one) in [(2, 5), (3, 4)] {
            assert!(places.admit(key, now, 9).unwrap().evicted.is_some());
            assert_eq!(places.taken_by(&1), of_one);
        }
        // It has as many as it may, and its own are new.
        let mut few = self::places(6, 2);
        assert!((0..2).all(|ticket| few.admit(1, now, ticket).is_ok()));
        assert_eq!(few.admit(1, now, 2), Err(Crowded { retry_after: SAFE }));
        assert_eq!(few.admit(1, now + SAFE, 2).unwrap().evicted, Some(0));
    }

    #[test]
    fn among_equals_each_has_its_time() {
        let now = Instant::now();
        let mut places = places(2, 2);
        let first = places.admit(1, now, 1).unwrap().place;
        places.admit(2, now + SAFE / 3, 2).unwrap();
        assert_eq!(places.admit(3, now + SAFE / 3, 3), Err(Crowded { retry_after: SAFE * 2 / 3 }));
        places.renew(first, now + SAFE);
        assert_eq!(places.admit(3, now + SAFE * 2, 3).unwrap().evicted, Some(2));
        places.release(first);
        assert_eq!(places.taken(), 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Admit(u8),
        Renew(usize),
        Release(usize),
        Wait(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u8..5).prop_map(Step::Admit),
            1 => any::<usize>().prop_map(Step::Renew),
            2 => any::<usize>().prop_map(Step::Release),
            2 => (0u64..4).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn places_are_bounded_fair_and_given_back(
            steps in proptest::collection::vec(step(), 0..200), total in 1usize..8, of_a_key in 1usize..8,
        ) {
            let (mut places, mut now) = (places(total, of_a_key), Instant::now());
            let mut held: Vec<(u8, Place, u64)> = Vec::new();
            for (ticket, step) in (0..).zip(steps) {
                match step {
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::Renew(which) if !held.is_empty() => places.renew(held[which % held.len()].1, now),
                    Step::Release(which) if !held.is_empty() => {
                        let (_, place, ticket) = held.swap_remove(which % held.len());
                        prop_assert_eq!(places.release(place), Some(ticket));
                        prop_assert_eq!(places.release(place), None);
                    }
                    Step::Renew(_) | Step::Release(_) => {}
                    Step::Admit(key) => {
                        let count = |of: u8| held.iter().filter(|(key, ..)| *key == of).count();
                        let (own, most) = (count(key), (0..5).map(count).max().unwrap_or(0));
                        match places.admit(key, now, ticket) {
                            Ok(Admitted { place, evicted }) => {
                                held.retain(|(.., ticket)| Some(*ticket) != evicted);
                                held.push((key, place, ticket));
                            }
                            Err(Crowded { retry_after }) => {
                                prop_assert!(retry_after <= SAFE && !retry_after.is_zero());
                                let has_its_share = own >= of_a_key.min(total);
                                let all_taken = held.len() >= total;
                                prop_assert!(has_its_share || (all_taken && most <= own + 1));
                            }
                        }
                    }
                }
                prop_assert_eq!(places.taken(), held.len());
                prop_assert!(held.len() <= total);
                for key in 0..5 {
                    let count = held.iter().filter(|(held, ..)| *held == key).count();
                    prop_assert_eq!(places.taken_by(&key), count);
                    prop_assert!(count <= of_a_key.min(total));
                }
            }
            for (_, place, ticket) in held {
                prop_assert_eq!(places.release(place), Some(ticket));
            }
            prop_assert!(places.by_key.is_empty() && places.by_count.is_empty() && places.by_age.is_empty());
        }
    }
}
