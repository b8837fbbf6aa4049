//! Somebody who proved who they are: a name for the trail, a role, and the devices that they may see.

use std::fmt;
use std::str::FromStr;

use assay_trust::labels::{Labels, Selector};
use serde::Deserialize;
use thiserror::Error;

use crate::actor::Actor;

/// What somebody may do.
#[cfg_attr(test, derive(schemars::JsonSchema, serde::Serialize))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look at everything that is no secret.
    Viewer,
    /// Beside that, decide over devices, entries, secrets and tasks.
    Operator,
    /// Beside looking, say what is demanded of devices: policies and their roll-outs.
    PolicyAuthor,
    /// All of it, and who else may do what.
    Admin,
}

impl Role {
    /// Every role there is.
    pub(crate) const ALL: [Role; 4] = [Role::Viewer, Role::Operator, Role::PolicyAuthor, Role::Admin];

    /// Its stable name.
    pub fn name(self) -> &'static str {
        match self {
            Role::Viewer => "viewer",
            Role::Operator => "operator",
            Role::PolicyAuthor => "policy-author",
            Role::Admin => "admin",
        }
    }

    /// Whether whoever has it may do what this one is for.
    pub(crate) fn covers(self, wanted: Role) -> bool {
        self == wanted || self == Role::Admin || wanted == Role::Viewer
    }
}

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(text: &str) -> Result<Role, NotARole> {
        Role::ALL.into_iter().find(|role| role.name() == text).ok_or(NotARole)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A word is none of a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a role is viewer, operator, policy-author or admin")]
pub struct NotARole;

/// Somebody who proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Principal {
    /// As the trail has them.
    pub actor: Actor,
    pub role: Role,
    /// The labels of the devices that they may see; none: all.
    pub scope: Selector,
}

impl Principal {
    /// Whoever shows the first token of all.
    pub(crate) fn first() -> Principal {
        Principal { actor: Actor::Operator, role: Role::Admin, scope: Selector::default() }
    }

    /// Whether they may see a device with these labels.
    pub(crate) fn sees(&self, labels: &Labels) -> bool {
        self.scope.matches(labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_covers_what_it_is_for_and_no_more() {
        use Role::{Admin, Operator, PolicyAuthor, Viewer};
        let covers = |role: Role| Role::ALL.map(|wanted| role.covers(wanted));
        assert_eq!(covers(Viewer), [true, false, false, false]);
        assert_eq!(covers(Operator), [true, true, false, false]);
        assert_eq!(covers(PolicyAuthor), [true, false, true, false]);
        assert_eq!(covers(Admin), [true; 4]);
    }

    #[test]
    fn roles_go_by_their_names() {
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
            assert_eq!(serde_json::to_value(role).unwrap(), role.name());
        }
        assert_eq!("Admin".parse::<Role>(), Err(NotARole));
    }
}
