//! Who may do what: access tokens, people, and whoever asks.

use assay_evidence::time::UnixTime;
use serde::{Deserialize, Serialize};

/// An access token that is to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateToken {
    /// What the trail calls whoever shows it, behind `token/`: 1 to 48 lower-case letters, digits, dashes, dots and underscores.
    pub name: String,
    /// `viewer`, `operator`, `policy-author` or `admin`.
    pub role: String,
    /// The labels of the devices that it is for, `key=value,key=value`; empty: all.
    #[serde(default)]
    pub scope: String,
    /// How long it is good for: a minute to 90 days.
    pub seconds: u64,
}

/// A token that was made.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// As it is on record.
    pub token: Token,
    /// What to show. It is told this once.
    pub shown: String,
}

/// Every token on record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// In the order of their names.
    pub tokens: Vec<Token>,
}

/// A token, without what is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// What the trail calls whoever shows it.
    pub name: String,
    /// What it may do.
    pub role: String,
    /// The labels of the devices that it is for; empty: all.
    pub scope: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created_at: UnixTime,
    /// When it ends by itself.
    pub expires_at: UnixTime,
    /// When somebody ended it.
    pub revoked_at: Option<UnixTime>,
    /// When it was shown last, since the server started.
    pub used_at: Option<UnixTime>,
}

/// A token that was ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Which.
    pub name: String,
}

/// Everybody who ever signed in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct People {
    /// In the order of their names.
    pub people: Vec<Person>,
}

/// Somebody whom the provider vouched for, as they signed in last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// What the trail calls them.
    pub name: String,
    /// Who vouches for them.
    pub issuer: String,
    /// Who they are to the issuer.
    pub subject: String,
    /// What they may do.
    pub role: String,
    /// The labels of the devices that they may see; empty: all.
    pub scope: String,
    /// When they signed in first.
    pub first_at: UnixTime,
    /// When they signed in last.
    pub last_at: UnixTime,
}

/// Whoever asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Whoami {
    /// What the trail calls them.
    pub name: String,
    /// What they may do.
    pub role: String,
    /// The labels of the devices that they may see; empty: all.
    pub scope: String,
}
