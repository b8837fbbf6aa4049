//! Who has something done, as it goes on record.

use std::fmt;

use assay_identity::SpiffeId;

/// Whoever caused a change. Doors say who asks; what the clock brings is the server's own doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// Whoever shows the operator's token.
    Operator,
    /// An operator who showed a certificate of their own.
    Named(Name),
    /// The server itself.
    Server,
}

/// What an operator is called, behind `operator/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Actor {
    /// The operator whose ID this is; `None`: it is nobody's of them.
    pub(crate) fn named(id: &SpiffeId) -> Option<Actor> {
        let name = [PREFIX, id.operator_name()?].concat();
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Actor::Named(Name { bytes, length: name.len() }))
    }

    /// As the trail has it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Actor::Operator => "operator",
            Actor::Named(Name { bytes, length }) => {
                bytes.get(..*length).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or("operator")
            }
            Actor::Server => "server",
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

const PREFIX: &str = "operator/";
/// Of an operator's name, what stands before it included.
pub(crate) const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_go_by_their_names() {
        let named = |path: &str| {
            let id = SpiffeId::parse(&format!("spiffe://td/assay/{path}")).unwrap();
            Actor::named(&id).map(|actor| actor.to_string())
        };
        assert_eq!(named("operator/ada"), Some("operator/ada".to_owned()));
        assert_eq!((named("gateway/ada"), named("operator"), named("server")), (None, None, None));
        assert_eq!(named(&format!("operator/{}", "a".repeat(55))).map(|name| name.len()), Some(64));
        assert_eq!(named(&format!("operator/{}", "a".repeat(56))), None);
    }
}
