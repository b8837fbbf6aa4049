//! The nonces that are out: each for one key, where it says which, for one submission, and for five minutes.
//!
//! How many there are is bounded, for each key and in all; where there are too many the oldest go. Pure: the time and the random
//! bytes are arguments.

use std::collections::{HashMap, VecDeque};

/// Nonces that were handed out and not taken back.
#[derive(Debug)]
pub struct Nonces {
    out: HashMap<String, Out>,
    /// By age, with those that were taken meanwhile.
    order: VecDeque<(u64, String)>,
    /// Of those that were drawn for a key, by key.
    of_keys: HashMap<String, VecDeque<String>>,
    all_max: usize,
}

#[derive(Clone, Debug)]
struct Out {
    key: Option<String>,
    ends_at: u64,
}

/// What came of drawing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drawn {
    /// The nonce: hexadecimal digits.
    pub nonce: String,
}

/// A nonce that came back in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The hash of the key that it was drawn for; `None`: it was drawn for nobody in particular.
    pub key: Option<String>,
    ends_at: u64,
}

impl Nonces {
    /// None yet, and never more than so many.
    pub fn new(all_max: usize) -> Nonces {
        Nonces { out: HashMap::new(), order: VecDeque::new(), of_keys: HashMap::new(), all_max }
    }

    /// Hands one out, made of these random bytes, for whoever has this key.
    pub fn draw(&mut self, key: Option<&str>, random: &[u8], now: u64) -> Drawn {
        self.forget_old(now);
        let of_key = key.and_then(|key| self.of_keys.get(key)).filter(|nonces| nonces.len() >= OF_A_KEY_MAX);
        if let Some(oldest) = of_key.and_then(|nonces| nonces.front().cloned()) {
            self.remove(&oldest);
        }
        while self.out.len() >= self.all_max.max(1) {
            let Some((_, oldest)) = self.order.pop_front() else { break };
            self.remove(&oldest);
        }
        let nonce = data_encoding::HEXLOWER.encode(random);
        if let Some(key) = key {
            self.of_keys.entry(key.to_owned()).or_default().push_back(nonce.clone());
        }
        self.order.push_back((now, nonce.clone()));
        let key = key.map(str::to_owned);
        self.out.insert(nonce.clone(), Out { key, ends_at: now.saturating_add(NONCE_SECONDS) });
        self.tidy();
        Drawn { nonce }
    }

    /// Takes one back: nobody is given it twice. `None`: it is not out, or was out for too long.
    pub fn take(&mut self, nonce: &str, now: u64) -> Option<Taken> {
        let out = self.remove(nonce)?;
        (now <= out.ends_at).then_some(Taken { key: out.key, ends_at: out.ends_at })
    }

    /// Hands one out once more that came to nothing, for as long as it had; where there is no room for it, it is gone.
    pub fn give_back(&mut self, nonce: &str, Taken { key, ends_at }: Taken) {
        let of_key = key.as_ref().and_then(|key| self.of_keys.get(key));
        if self.out.len() >= self.all_max || of_key.is_some_and(|nonces| nonces.len() >= OF_A_KEY_MAX) {
            return;
        }
        if let Some(key) = &key {
            self.of_keys.entry(key.clone()).or_default().push_front(nonce.to_owned());
        }
        self.order.push_front((ends_at.saturating_sub(NONCE_SECONDS), nonce.to_owned()));
        self.out.insert(nonce.to_owned(), Out { key, ends_at });
        self.tidy();
    }

    /// Whether it is out.
    #[cfg(test)]
    fn has(&self, nonce: &str) -> bool {
        self.out.contains_key(nonce)
    }

    /// Forgets those that were out for too long, and says how many.
    pub fn forget_old(&mut self, now: u64) -> usize {
        let before = self.out.len();
        while self.order.front().is_some_and(|(at, _)| at.saturating_add(NONCE_SECONDS) < now) {
            let Some((_, nonce)) = self.order.pop_front() else { break };
            self.remove(&nonce);
        }
        before - self.out.len()
    }

    /// How many are out.
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether none is out.
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    fn remove(&mut self, nonce: &str) -> Option<Out> {
        let out = self.out.remove(nonce)?;
        if let Some(key) = &out.key
            && let Some(nonces) = self.of_keys.get_mut(key)
        {
            nonces.retain(|other| other != nonce);
            if nonces.is_empty() {
                self.of_keys.remove(key);
            }
        }
        Some(out)
    }

    /// Those that were taken leave a place in the order of ages, which is not let grow.
    fn tidy(&mut self) {
        if self.order.len() > 2 * self.out.len() + OF_A_KEY_MAX {
            let out = &self.out;
            self.order.retain(|(_, nonce)| out.contains_key(nonce));
        }
    }
}

/// The original's five minutes.
pub const NONCE_SECONDS: u64 = 300;
/// More than a device has under way; whoever asks in its name costs it its oldest.
const OF_A_KEY_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn random(number: u64) -> [u8; 16] {
        u128::from(number).to_be_bytes()
    }

    #[test]
    fn a_nonce_is_for_one_key_one_submission_and_five_minutes() {
        let mut nonces = Nonces::new(1000);
        let Drawn { nonce } = nonces.draw(Some("a"), &random(1), 100);
        assert_eq!((nonce.len(), nonces.len()), (32, 1));
        let taken = nonces.take(&nonce, 400).unwrap();
        assert_eq!((taken.key.as_deref(), nonces.len()), (Some("a"), 0));
        nonces.give_back(&nonce, taken);
        assert_eq!((nonces.len(), nonces.has(&nonce)), (1, true));
        assert_eq!(nonces.take(&nonce, 400).unwrap().key.as_deref(), Some("a"));
        assert_eq!((nonces.take(&nonce, 400), nonces.len()), (None, 0));
        let Drawn { nonce } = nonces.draw(None, &random(2), 100);
        assert_eq!(nonces.take(&nonce, 401), None, "too late, and gone");
        assert_eq!(nonces.take("", 0), None);
        nonces.draw(None, &random(3), 100);
        assert_eq!((nonces.forget_old(400), nonces.forget_old(401), nonces.len()), (0, 1, 0));
    }

    #[test]
    fn however_many_are_drawn_it_stays_small_and_one_key_costs_no_other() {
        let mut nonces = Nonces::new(500);
        let Drawn { nonce: kept } = nonces.draw(Some("quiet"), &random(1), 0);
        for number in 0..400 {
            nonces.draw(Some("loud"), &random(10 + number), 0);
        }
        assert_eq!(nonces.len(), OF_A_KEY_MAX + 1);
        assert!(nonces.has(&kept));
        for number in 0..5000 {
            let Drawn { nonce } = nonces.draw(None, &random(1000 + number), 1);
            if number % 2 == 0 {
                nonces.take(&nonce, 1);
            }
            assert!(nonces.len() <= 500 && nonces.order.len() <= 1100 && nonces.of_keys.len() <= 3);
        }
    }
}
