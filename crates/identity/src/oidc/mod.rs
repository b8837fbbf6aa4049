//! How people sign in with OpenID Connect: the relying party's half of the authorization code flow, as pure functions.
//!
//! OpenID Connect Core 1.0 §3.1 with PKCE (RFC 7636) and the issuer in answers (RFC 9207); Discovery 1.0 §3 and §4.3. Whoever
//! asks the provider passes in what it answered; here it is read, and what it says is held against what was asked.

mod id_token;
mod provider;

use thiserror::Error;

pub use id_token::{Expected, IdToken, Keys};
pub use provider::{Attempt, Client, Provider, TokenAnswer, is_safe};

/// Why somebody cannot be signed in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OidcError {
    /// What the provider says of itself cannot be read.
    #[error("the provider's configuration is not one: {why}")]
    Configuration {
        /// What is wrong with it.
        why: &'static str,
    },
    /// It speaks for another issuer than the one that was asked.
    #[error("the provider calls itself {found:?}, and the configuration names {expected:?}")]
    Issuer {
        /// Whom we know.
        expected: String,
        /// Who answers.
        found: String,
    },
    /// An endpoint that would be reached in the clear.
    #[error("the provider's {endpoint} is not https: {url:?}")]
    Endpoint {
        /// Which.
        endpoint: &'static str,
        /// Where it is said to be.
        url: String,
    },
    /// Not what a token endpoint answers.
    #[error("the provider gave no ID token")]
    NoToken,
    /// Not a set of keys, or none in it that is of use.
    #[error("the provider publishes no key that ID tokens can be signed with")]
    NoKey,
    /// Not a token in compact form.
    #[error("the ID token is not a signed token")]
    Form,
    /// Signed by no method that counts.
    #[error("the ID token is signed by {found:?}, which does not count")]
    Algorithm {
        /// What it says.
        found: String,
    },
    /// Its key is not published, or was only just.
    #[error("the ID token is signed with a key that the provider does not publish")]
    UnknownKey,
    /// Its signature is not that key's.
    #[error("the ID token's signature does not verify")]
    Signature,
    /// Of another issuer, for another client, or for another attempt.
    #[error("the ID token's {claim} is another's")]
    Foreign {
        /// Which claim says so.
        claim: &'static str,
    },
    /// Outside its time.
    #[error("the ID token is out of its time: check this machine's clock and the provider's")]
    Time,
    /// It says nothing where it has to say something.
    #[error("the ID token has no {claim}")]
    Missing {
        /// Which claim.
        claim: &'static str,
    },
}
