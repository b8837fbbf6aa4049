//! Operators with certificates of their own: for programs that know no token.

use serde::{Deserialize, Serialize};

pub use super::gateway::{Credentials, Ended, Enroll, Gateway as Operator};

/// Every operator with a certificate that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operators {
    /// By name.
    pub operators: Vec<Operator>,
}
