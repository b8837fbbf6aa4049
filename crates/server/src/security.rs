//! Refusals that say somebody tries what they may not: typed here, all of them counted by cause, and now and then said at WARN
//! and put on record, with who and from where.
//!
//! Whoever tries decides how often; so the log and the trail, which is never cut, have a share that is bounded
//! (`rarely.rs`), and each says how many went by without a word. What was shown (a token, a key, evidence) is in neither.

use std::sync::Arc;

use assay_evidence::time::UnixTime;

use crate::metrics::Metrics;
use crate::outcome::chain;
use crate::rarely::Rarely;
use crate::store::{NoteSecurity, Store};

macro_rules! causes {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $sentence:literal;)*) => {
        /// What was tried.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Cause { $($(#[$doc])* $variant,)* }

        impl Cause {
            /// All that there are.
            pub(crate) const ALL: &[Cause] = &[$(Cause::$variant,)*];

            /// Its stable name.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Cause::$variant => $name,)* }
            }

            /// What it is, for people.
            fn sentence(self) -> &'static str {
                match self { $(Cause::$variant => $sentence,)* }
            }
        }
    };
}

causes! {
    /// Somebody showed a token that is not the operator's.
    OperatorToken => "operator-token", "a token that is not the operator's was shown";
    /// Somebody came back from the provider whom it does not vouch for, or who may do nothing here.
    SignIn => "sign-in", "somebody could not be signed in who came from the provider";
    /// Somebody showed a certificate that is no operator's, or no longer.
    OperatorCertificate => "operator-certificate", "a certificate was shown that is no operator's";
    /// A device was not let in.
    Enrollment => "enrollment", "an enrollment was refused";
    /// What came in a device's name was not its evidence.
    Evidence => "evidence", "what came in a device's name was not its evidence";
    /// A certificate or token was asked for in a device's name, and not by it.
    Request => "request", "a request in a device's name was not signed by it";
    /// A request to the console was signed in a node's name, and does not hold.
    Message => "message", "a request that was signed in a node's name does not hold";
    /// A batch came in a device's name, and not from it.
    Telemetry => "telemetry", "a batch in a device's name was not signed by it";
    /// A device that was ended came again.
    RevokedDevice => "revoked-device", "a revoked device came again";
    /// A node that does not quote was not let in.
    SpireAgent => "spire-agent", "a node that does not quote was not let in";
    /// Somebody came to the door for gateways who is none, or none any more.
    Gateway => "gateway", "who is no gateway, or none any more, came to the gateways' door";
}

/// Something that was refused.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    pub cause: Cause,
    /// In whose name: a SPIFFE ID, or nothing where none was said.
    pub who: String,
    /// From where: an address, or whose certificate was shown there.
    pub from: String,
    /// The code, or what did not hold.
    pub why: String,
}

/// Where they are noted.
#[derive(Debug)]
pub(crate) struct Security {
    store: Store,
    metrics: Arc<Metrics>,
    rarely: Rarely,
}

impl Security {
    pub(crate) fn new(store: Store, metrics: Arc<Metrics>) -> Security {
        Security { store, metrics, rarely: Rarely::default() }
    }

    /// Notes it. Nobody waits for it to be on record.
    pub(crate) fn note(&self, refused: Refused, now: UnixTime) {
        let Refused { cause, who, from, why } = refused;
        self.metrics.refused(cause);
        let about = if who.is_empty() { &from } else { &who };
        let Some(unsaid) = self.rarely.says(cause.name(), about, now) else { return };
        let why: String = why.chars().take(WHY_CHARACTERS_MAX).collect();
        tracing::warn!(cause = cause.name(), who, from, why, unsaid, "security: {}", cause.sentence());
        let note = NoteSecurity { at: now, cause: cause.name(), who, from, why, unsaid };
        let store = self.store.clone();
        tokio::spawn(async move {
            if let Err(error) = store.commit(note).await {
                tracing::warn!(cause = cause.name(), error = %chain(&error), "a refusal could not be put on record");
            }
        });
    }
}

/// Of a sentence that may hold names that others chose.
const WHY_CHARACTERS_MAX: usize = 300;
