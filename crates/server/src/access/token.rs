//! Access tokens: what programs, and people at a shell, prove themselves by. Each has a name for the trail, a role, perhaps a
//! scope, and an end. What is shown is kept nowhere: its hash is.

use assay_evidence::time::UnixTime;
use assay_telemetry::sha256;
use assay_trust::labels::Selector;
use data_encoding::BASE64URL_NOPAD;
use thiserror::Error;

use crate::actor::Actor;
use crate::in_force::access::PREFIX;
use crate::keys::{KeysError, random};
use crate::outcome::{Kind, Outcome};
use crate::principal::Role;
use crate::store::{AccessTokenRecord, CreateAccessToken, RevokeAccessToken, Said, Store, StoreError};

/// A token that is to be.
#[derive(Clone, Debug)]
pub(crate) struct NewToken {
    /// What the trail calls whoever shows it, behind `token/`.
    pub name: String,
    pub role: Role,
    pub scope: Selector,
    /// How long it is good for.
    pub seconds: u64,
}

/// Makes one. What to show is told this once.
pub(crate) async fn create(
    store: &Store,
    new: NewToken,
    (by, now): (Actor, UnixTime),
) -> Result<(AccessTokenRecord, String), TokenError> {
    let NewToken { name, role, scope, seconds } = new;
    if !is_name(&name) {
        return Err(TokenError::Name);
    }
    if !(SECONDS_MIN..=SECONDS_MAX).contains(&seconds) {
        return Err(TokenError::Life { seconds });
    }
    if role == Role::Admin && !scope.is_empty() {
        return Err(TokenError::ScopedAdmin);
    }
    let shown = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&random::<32>()?));
    let token = AccessTokenRecord {
        sha256: sha256(shown.as_bytes()),
        role: role.name().to_owned(),
        scope: scope.to_string(),
        created_by: by.name().to_owned(),
        created_at: now,
        expires_at: now.plus(seconds),
        revoked_at: None,
        name,
    };
    let said = Said { by: by.name().to_owned(), at: now };
    match store.commit_and_follow(CreateAccessToken { token: token.clone(), said }).await? {
        true => {
            tracing::info!(token = token.name, role = token.role, %by, "access token created");
            Ok((token, shown))
        }
        false => Err(TokenError::There { name: token.name }),
    }
}

/// Ends one.
pub(crate) async fn revoke(
    store: &Store,
    name: &str,
    (by, now): (Actor, UnixTime),
) -> Result<(), TokenError> {
    let said = Said { by: by.name().to_owned(), at: now };
    match store.commit_and_follow(RevokeAccessToken { name: name.to_owned(), said }).await? {
        true => {
            tracing::info!(token = name, %by, "access token revoked");
            Ok(())
        }
        false => Err(TokenError::Unknown { name: name.to_owned() }),
    }
}

/// What the trail can call a token.
fn is_name(text: &str) -> bool {
    let is_fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._".contains(c);
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.chars().all(is_fit)
}

/// Why it was not done.
#[derive(Debug, Error)]
pub(crate) enum TokenError {
    #[error(
        "a token's name has 1 to {NAME_BYTES_MAX} lower-case letters, digits, dashes, dots and underscores"
    )]
    Name,
    #[error("a token is good for a minute to 90 days, and not for {seconds} s")]
    Life { seconds: u64 },
    #[error(
        "an admin's token cannot have a scope: whoever decides who may do what decides over every device"
    )]
    ScopedAdmin,
    #[error("there is a token {name} already, or was of late: the trail has to tell them apart")]
    There { name: String },
    #[error("no token that is good is called {name}: assay token list shows those that there are")]
    Unknown { name: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Keys(#[from] KeysError),
}

impl Outcome for TokenError {
    fn told(&self) -> (Kind, &'static str) {
        match self {
            TokenError::Name => (Kind::Malformed, "token-name"),
            TokenError::Life { .. } => (Kind::Malformed, "token-life"),
            TokenError::ScopedAdmin => (Kind::Malformed, "scoped-admin"),
            TokenError::There { .. } => (Kind::Duplicate, "token-exists"),
            TokenError::Unknown { .. } => (Kind::NotFound, "unknown-token"),
            TokenError::Store(error) => error.told(),
            TokenError::Keys(error) => error.told(),
        }
    }
}

/// With the word before it, what the trail bears.
const NAME_BYTES_MAX: usize = 48;
const SECONDS_MIN: u64 = 60;
const SECONDS_MAX: u64 = 90 * 86_400;
