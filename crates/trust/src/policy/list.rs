//! Lists of a policy as sets of texts, for holding policies against each other.

use std::collections::{BTreeMap, BTreeSet};

use super::Field;

/// A list of a policy.
pub(super) struct List {
    pub(super) role: Role,
    /// Absent: anything is accepted.
    pub(super) items: Option<BTreeSet<String>>,
}

/// What a list of a policy is for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Each item lets more in. What is not there accepts nothing.
    Accepts,
    /// Each item lets more in. What is not there accepts anything.
    Restricts,
    /// Each item has to be there.
    Demands,
}

/// The lists of a section.
#[derive(Default)]
pub(super) struct Lists(BTreeMap<Field, List>);

impl Role {
    /// What a list says that is not there.
    pub(super) fn absent(self) -> Option<BTreeSet<String>> {
        match self {
            Role::Accepts | Role::Demands => Some(BTreeSet::new()),
            Role::Restricts => None,
        }
    }
}

impl Lists {
    /// A list of what is accepted; without it nothing is.
    pub(super) fn accepts<'a, T: ToString + 'a>(
        &mut self,
        field: Field,
        items: impl IntoIterator<Item = &'a T>,
    ) {
        self.0.insert(field, List { role: Role::Accepts, items: Some(texts(items)) });
    }

    /// A list of what is accepted; without it anything is.
    pub(super) fn restricts(&mut self, field: Field, items: Option<BTreeSet<String>>) {
        self.0.insert(field, List { role: Role::Restricts, items });
    }

    /// A list of what has to be there.
    pub(super) fn demands<'a, T: ToString + 'a>(
        &mut self,
        field: Field,
        items: impl IntoIterator<Item = &'a T>,
    ) {
        self.0.insert(field, List { role: Role::Demands, items: Some(texts(items)) });
    }

    pub(super) fn get(&self, field: &Field) -> Option<&List> {
        self.0.get(field)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Field, &List)> {
        self.0.iter()
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = &Field> {
        self.0.keys()
    }
}

/// The items of a list, as the policy writes them.
pub(super) fn texts<'a, T: ToString + 'a>(list: impl IntoIterator<Item = &'a T>) -> BTreeSet<String> {
    list.into_iter().map(ToString::to_string).collect()
}

/// The same list, whatever order its parts came in.
pub(super) fn sorted<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

/// The same for what has an order only as text.
pub(super) fn sorted_as_text<T: ToString + PartialEq>(list: &mut Vec<T>) {
    list.sort_by_cached_key(ToString::to_string);
    list.dedup();
}

/// What is absent demands nothing, so what is there holds.
pub(super) fn join_option<T: Clone>(mine: &mut Option<T>, other: &Option<T>, join: impl FnOnce(&mut T, &T)) {
    match (mine, other) {
        (Some(mine), Some(other)) => join(mine, other),
        (mine @ None, other) => mine.clone_from(other),
        (Some(_), None) => {}
    }
}
