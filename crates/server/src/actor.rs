//! Who has something done, as it goes on record.

use std::fmt;

/// Whoever caused a change. Doors say who asks; what the clock brings is the server's own doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// Whoever shows the operator's token.
    Operator,
    /// The server itself.
    Server,
}

impl Actor {
    /// As the trail has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Actor::Operator => "operator",
            Actor::Server => "server",
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
