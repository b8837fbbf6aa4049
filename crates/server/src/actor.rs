//! Who has something done, as it goes on record.

use std::fmt;

use assay_identity::SpiffeId;

/// Whoever caused a change. Doors say who asks; what the clock brings is the server's own doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Actor {
    /// Whoever shows the operator's token.
    Operator,
    /// Somebody who showed a certificate or a token of their own, or whom the provider vouched for.
    Named(Name),
    /// The server itself.
    Server,
}

/// What somebody is called, behind a word for what they showed: `operator/`, `token/` or `person/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    bytes: [u8; NAME_BYTES_MAX],
    length: usize,
}

impl Actor {
    /// The operator whose ID this is; `None`: it is nobody's of them.
    pub(crate) fn named(id: &SpiffeId) -> Option<Actor> {
        Actor::behind("operator/", id.operator_name()?)
    }

    /// Whoever shows the token of this name.
    pub(crate) fn by_token(name: &str) -> Option<Actor> {
        Actor::behind("token/", name)
    }

    /// Somebody whom the provider vouched for.
    pub(crate) fn person(name: &str) -> Option<Actor> {
        Actor::behind("person/", name)
    }

    /// `None`: it is too long for the trail, or nothing.
    fn behind(prefix: &str, name: &str) -> Option<Actor> {
        let name = Some(name).filter(|name| !name.is_empty()).map(|name| [prefix, name].concat())?;
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

/// Of a name, what stands before it included.
const NAME_BYTES_MAX: usize = 128;

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
        assert_eq!(named(&format!("operator/{}", "a".repeat(119))).map(|name| name.len()), Some(128));
        assert_eq!(named(&format!("operator/{}", "a".repeat(120))), None);
        assert_eq!(Actor::by_token("ci").map(|actor| actor.to_string()), Some("token/ci".to_owned()));
        assert_eq!(Actor::person(""), None);
    }
}
