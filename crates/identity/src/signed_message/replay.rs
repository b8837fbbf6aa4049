//! Which messages were there before.
//!
//! Each is remembered for as long as it could be said again. What was said before the memory begins is refused: it may
//! have been heard by whoever stood here then.

use std::collections::{BTreeMap, HashMap, HashSet};

use thiserror::Error;

use super::{NodeId, Once, Opened, WINDOW_SECONDS};
use crate::UnixTime;

/// The messages of the last minutes, by node.
#[derive(Debug)]
pub struct Replays {
    since: u64,
    nodes: HashMap<NodeId, Node>,
    /// What is to be forgotten after which second.
    ends: BTreeMap<u64, Vec<(NodeId, [u8; 32])>>,
    messages: usize,
    /// Times that some were forgotten, and how many.
    forgotten: (u64, u64),
}

#[derive(Debug, Default)]
struct Node {
    messages: HashSet<[u8; 32]>,
    /// The highest number said.
    sequence: Option<u64>,
}

/// Why a message does not count although it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReplayError {
    /// It was there before.
    #[error("the message was there before")]
    Again,
    /// Its number is not above that of the message before.
    #[error("the message's sequence is {found}, and that of one before is {before}")]
    Order {
        /// The highest before.
        before: u64,
        /// This one's.
        found: u64,
    },
    /// It was said before anything is remembered.
    #[error("the message is from before this receiver started, and may have been heard then: say it again")]
    BeforeMemory,
    /// One node says more than can be remembered.
    #[error(
        "node {0} said {NODE_MESSAGES_MAX} messages in the last minutes, more are not remembered: wait, or use a sequence"
    )]
    NodeIsFull(NodeId),
    /// All nodes together do.
    #[error("{MESSAGES_MAX} messages are remembered, more cannot be: wait")]
    Full,
}

impl Replays {
    /// A memory that begins now.
    pub fn new(now: UnixTime) -> Self {
        Replays {
            since: now.as_secs(),
            nodes: HashMap::new(),
            ends: BTreeMap::new(),
            messages: 0,
            forgotten: (0, 0),
        }
    }

    /// Takes a message, once.
    pub fn take(&mut self, message: &Opened, now: UnixTime) -> Result<(), ReplayError> {
        self.forget(now.as_secs());
        let said_at = message.said_at.as_secs();
        if said_at < self.since {
            return Err(ReplayError::BeforeMemory);
        }
        match message.once {
            Once::Bytes(digest) => self.take_bytes(message.from, digest, said_at),
            Once::Sequence(sequence) => self.take_sequence(message.from, sequence),
        }
    }

    /// Times that messages were forgotten as too old, and how many so far.
    pub fn forgotten(&self) -> (u64, u64) {
        self.forgotten
    }

    /// How many messages are remembered.
    pub fn len(&self) -> usize {
        self.messages
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.messages == 0
    }

    fn take_bytes(&mut self, from: NodeId, digest: [u8; 32], said_at: u64) -> Result<(), ReplayError> {
        if self.nodes.get(&from).is_some_and(|node| node.messages.contains(&digest)) {
            return Err(ReplayError::Again);
        }
        if self.messages >= MESSAGES_MAX {
            return Err(ReplayError::Full);
        }
        let node = self.nodes.entry(from).or_default();
        if node.messages.len() >= NODE_MESSAGES_MAX {
            return Err(ReplayError::NodeIsFull(from));
        }
        node.messages.insert(digest);
        self.messages += 1;
        self.ends.entry(said_at.saturating_add(WINDOW_SECONDS)).or_default().push((from, digest));
        Ok(())
    }

    /// Of numbers only the highest is remembered, and for good: a node has one counter, which rises.
    fn take_sequence(&mut self, from: NodeId, sequence: u64) -> Result<(), ReplayError> {
        let node = self.nodes.entry(from).or_default();
        if let Some(before) = node.sequence.filter(|before| sequence <= *before) {
            return Err(ReplayError::Order { before, found: sequence });
        }
        node.sequence = Some(sequence);
        Ok(())
    }

    fn forget(&mut self, now: u64) {
        let before = self.messages;
        // What was said a window ago is too old to be said again a second later.
        while let Some(entry) = self.ends.first_entry().filter(|entry| *entry.key() < now) {
            for (from, digest) in entry.remove() {
                let Some(node) = self.nodes.get_mut(&from) else { continue };
                self.messages -= usize::from(node.messages.remove(&digest));
                if node.messages.is_empty() && node.sequence.is_none() {
                    self.nodes.remove(&from);
                }
            }
        }
        if let Some(forgotten) = before.checked_sub(self.messages).filter(|count| *count > 0) {
            self.forgotten.0 += 1;
            self.forgotten.1 += u64::try_from(forgotten).unwrap_or(u64::MAX);
        }
    }
}

/// Of one node, until they are too old to be said again.
const NODE_MESSAGES_MAX: usize = 10_000;
/// Of all.
const MESSAGES_MAX: usize = 1_000_000;
