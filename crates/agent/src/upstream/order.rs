//! The order of a stream: what may be said on it when. One state, which only the stream's own loop moves.
//!
//! A stream is opened, the server names it with its first challenge, and once evidence has shown whose stream it is, the
//! server says what it believes. Only then does the device ask for anything: earlier, it would be out of turn, and the
//! server ends the stream.

/// How far a stream has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Order {
    /// Hello is on its way.
    #[default]
    Opened,
    /// The server has named the stream and waits for evidence.
    Challenged {
        /// The server's name of the stream.
        stream: Vec<u8>,
    },
    /// The server has said something that it says to nobody who has not shown who they are.
    Proven {
        /// The server's name of the stream.
        stream: Vec<u8>,
    },
}

impl Order {
    /// A challenge came; later ones prove nothing and take nothing back.
    pub(super) fn challenged(&mut self, stream: &[u8]) {
        *self = match self {
            Order::Opened | Order::Challenged { .. } => Order::Challenged { stream: stream.to_vec() },
            Order::Proven { .. } => Order::Proven { stream: stream.to_vec() },
        };
    }

    /// The server said something signed. To a device that is revoked it does so unasked: that proves nothing.
    pub(super) fn believed(&mut self) {
        if let Order::Challenged { stream } = self {
            *self = Order::Proven { stream: std::mem::take(stream) };
        }
    }

    /// The stream to ask on, if anything may be asked for.
    pub(super) fn may_ask(&self) -> Option<&[u8]> {
        match self {
            Order::Opened | Order::Challenged { .. } => None,
            Order::Proven { stream } => Some(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What can happen on a stream.
    const EVENTS: [char; 3] = ['c', 'b', 'C'];

    fn after(events: &str) -> Order {
        let mut order = Order::default();
        for event in events.chars() {
            match event {
                'c' => order.challenged(b"one"),
                'C' => order.challenged(b"two"),
                _ => order.believed(),
            }
        }
        order
    }

    #[test]
    fn year_2_in_every_order_nothing_is_asked_for_before_the_server_believes_a_challenged_stream() {
        let mut sequences = vec![String::new()];
        for _ in 0..7 {
            let longer = |sequence: &String| EVENTS.map(|event| format!("{sequence}{event}"));
            let next: Vec<String> = sequences.iter().flat_map(longer).collect();
            for events in &next {
                // The rule, said another way: some word of the server comes after some challenge.
                let first_challenge = events.find(['c', 'C']);
                let proven = first_challenge.is_some_and(|at| events[at..].contains('b'));
                let last = events.chars().rev().find(|event| *event != 'b');
                let stream: &[u8] = if last == Some('C') { b"two" } else { b"one" };
                assert_eq!(after(events).may_ask(), proven.then_some(stream), "{events}");
            }
            sequences = next;
        }
    }
}
