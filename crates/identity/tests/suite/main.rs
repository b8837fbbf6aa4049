//! Identities from outside: what is issued verifies, and every lie is refused for its own reason.
#![expect(clippy::unwrap_used, reason = "tests")]

mod authority;
mod bundle;
mod openssl;
mod parsers;
mod revocation;
mod signed_message;
mod svid;
mod tls;
