//! Appraisal, trust state, grants.
