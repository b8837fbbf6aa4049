//! What the gateway lets through: the edge protocol's methods, by name.

/// One method of `assay.edge.v1.Edge`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) path: &'static str,
    /// A standing stream: as long and as large as both ends like, message by message.
    pub(crate) standing: bool,
}

/// The method with this path.
pub(crate) fn find(path: &str) -> Option<Route> {
    ROUTES.iter().find(|route| route.path == path).copied()
}

const ROUTES: &[Route] = &[
    Route { path: "/assay.edge.v1.Edge/Enroll", standing: false },
    Route { path: "/assay.edge.v1.Edge/Attach", standing: true },
    Route { path: "/assay.edge.v1.Edge/Submit", standing: false },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_names_match() {
        assert!(find("/assay.edge.v1.Edge/Attach").is_some_and(|route| route.standing));
        assert!(find("/assay.edge.v1.Edge/Submit").is_some_and(|route| !route.standing));
        for stranger in ["", "/", "/assay.edge.v1.Edge/", "/assay.edge.v1.Edge/Attach/", "/metrics"] {
            assert_eq!(find(stranger), None, "{stranger}");
        }
    }
}
