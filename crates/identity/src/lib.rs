//! SPIFFE identities: names, certificates, bundles, revocation lists, and what TLS makes of them.
//!
//! Pure: times are arguments, nothing here opens a file or a socket. Three things draw randomness inside the
//! cryptography library: [`PrivateKey::generate`], [`signed_note::NoteSigner::generate`] and ECDSA signing.
//! Start at `spiffe_id.rs`; `x509_svid/` issues, `verify.rs` verifies, `tls.rs` puts verification into rustls; signed
//! tokens are in `jws.rs`, JWT-SVIDs in `jwt_svid.rs`, signed notes in `signed_note.rs`, the ledger's heads that
//! are such notes in `ledger.rs`, messages
//! between programs in `signed_message/`, how people sign in with a provider in `oidc/`. `selector/` says what entries may ask of a
//! workload.

pub mod acme;
pub mod ak_certificate;
pub mod authority;
pub mod bundle;
pub mod classic;
pub mod crl;
pub mod csr;
pub mod foreign_bundle;
pub mod hpke;
pub mod jws;
pub mod jwt_svid;
pub mod key;
pub mod ledger;
mod life;
pub mod oidc;
pub mod secret;
pub mod selector;
mod serial;
mod signature;
pub mod signed_message;
pub mod signed_note;
pub mod spiffe_id;
pub mod tlog;
pub mod tls;
mod verify;
pub mod x509_svid;
pub mod x509pop;

pub use authority::Issuer;
pub use bundle::Bundle;
pub use crl::{Crl, CrlSet};
pub use csr::Csr;
pub use foreign_bundle::ForeignBundle;
pub use key::PrivateKey;
pub use life::{Life, Moment, Stage};
pub use rustls_pki_types::UnixTime;
pub use selector::Selector;
pub use serial::Serial;
pub use spiffe_id::{SpiffeId, TrustDomain};
pub use verify::{SvidError, VerifiedPeer, verify_svid};
