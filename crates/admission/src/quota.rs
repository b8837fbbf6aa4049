//! An amount, shared out by key: bytes that wait in memory for the rest of their message.

use std::collections::HashMap;
use std::hash::Hash;

use thiserror::Error;

/// What is spent of an amount, of all and of each key.
#[derive(Debug)]
pub struct Quota<K> {
    total: usize,
    of_a_key: usize,
    spent: usize,
    by_key: HashMap<K, usize>,
}

/// The amount is spent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("as many bytes as there may be wait for the rest of their messages")]
pub struct Spent;

impl<K: Clone + Eq + Hash> Quota<K> {
    /// So much of all, and of each key.
    pub fn new(total: usize, of_a_key: usize) -> Self {
        Quota { total, of_a_key, spent: 0, by_key: HashMap::new() }
    }

    /// Spends some of it on a key, or nothing.
    pub fn spend(&mut self, key: &K, amount: usize) -> Result<(), Spent> {
        let of_key = self.by_key.get(key).copied().unwrap_or(0);
        let fits = |spent: usize, bound: usize| spent.checked_add(amount).is_some_and(|sum| sum <= bound);
        if !fits(self.spent, self.total) || !fits(of_key, self.of_a_key) {
            return Err(Spent);
        }
        if amount > 0 {
            self.spent += amount;
            self.by_key.insert(key.clone(), of_key + amount);
        }
        Ok(())
    }

    /// Gives back what was spent on a key.
    pub fn give_back(&mut self, key: &K, amount: usize) {
        let Some(of_key) = self.by_key.get_mut(key) else { return };
        let amount = amount.min(*of_key);
        *of_key -= amount;
        self.spent -= amount;
        if *of_key == 0 {
            self.by_key.remove(key);
        }
    }

    /// How much is spent.
    pub fn spent(&self) -> usize {
        self.spent
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn finding_7_nobody_spends_what_is_anothers() {
        let mut quota = Quota::new(100, 40);
        assert_eq!(quota.spend(&1, 40), Ok(()));
        assert_eq!(quota.spend(&1, 1), Err(Spent));
        assert_eq!(quota.spend(&2, 40), Ok(()));
        assert_eq!(quota.spend(&3, 21), Err(Spent), "and all together no more than there is");
        quota.give_back(&1, 40);
        assert_eq!(quota.spend(&3, 40), Ok(()));
        assert_eq!(quota.spend(&3, usize::MAX), Err(Spent));
    }

    proptest! {
        #[test]
        fn what_is_spent_is_the_sum_and_within_bounds(
            steps in proptest::collection::vec((any::<bool>(), 0u8..4, 0usize..50), 0..100),
        ) {
            let mut quota = Quota::new(100, 40);
            let mut spent = [0usize; 4];
            for (spends, key, amount) in steps {
                let of_key = &mut spent[usize::from(key)];
                match spends {
                    true if quota.spend(&key, amount).is_ok() => *of_key += amount,
                    true => {}
                    false => {
                        quota.give_back(&key, amount);
                        *of_key = of_key.saturating_sub(amount);
                    }
                }
                prop_assert!(spent.iter().all(|spent| *spent <= 40));
                prop_assert_eq!(quota.spent(), spent.iter().sum::<usize>());
                prop_assert!(quota.spent() <= 100);
            }
        }
    }
}
