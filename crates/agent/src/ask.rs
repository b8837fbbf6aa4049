//! What a door asks the server for while a caller waits: tokens for audiences that nobody named before.
//!
//! Whoever speaks with the server takes the questions; while nobody does they wait, and a caller waits no longer than
//! [`ANSWER_WITHIN`].

use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::holding::Token;

/// A question.
#[derive(Debug)]
pub struct Ask {
    /// The entry that entitles to it.
    pub entry_id: String,
    /// For whom the token is to be.
    pub audience: Vec<String>,
    /// Where the answer goes; closed when nobody waits any more.
    pub answer: oneshot::Sender<Result<Token, NoToken>>,
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NoToken {
    /// The server said no.
    #[error("the server denied the token")]
    Denied,
    /// The server did not answer, or there is none to ask.
    #[error("the server could not be asked")]
    Unavailable,
}

/// Whom doors ask.
#[derive(Clone, Debug)]
pub struct Asker(mpsc::Sender<Ask>);

/// The questions, for whoever speaks with the server.
pub type Asks = mpsc::Receiver<Ask>;

impl Asker {
    /// Both ends.
    pub fn new() -> (Asker, Asks) {
        let (sender, asks) = mpsc::channel(WAITING_MAX);
        (Asker(sender), asks)
    }

    /// Asks for a token and waits for it.
    pub(crate) async fn token(&self, entry_id: &str, audience: &[String]) -> Result<Token, NoToken> {
        let (answer, answered) = oneshot::channel();
        let ask = Ask { entry_id: entry_id.to_owned(), audience: audience.to_vec(), answer };
        // With so many before it, it would not be answered in time.
        self.0.try_send(ask).map_err(|_| NoToken::Unavailable)?;
        match timeout(ANSWER_WITHIN, answered).await {
            Ok(Ok(answer)) => answer,
            _ => Err(NoToken::Unavailable),
        }
    }
}

/// Questions that wait to be taken.
const WAITING_MAX: usize = 64;
/// A TPM signs within a second, and others may be before us.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
