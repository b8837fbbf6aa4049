//! What a trust state stands on: quotes, or less than that.

use serde::{Deserialize, Serialize};

/// What was shown of a node. Only quotes say what it runs; everything else says at most who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Its TPM quotes, and evidence is appraised.
    #[default]
    Quote,
    /// A TPM activated a credential for its EK once: it is that TPM, and what runs beside it is not known.
    EkActivation,
    /// It holds the key of a certificate that an authority of the operator's signed.
    X509Pop,
    /// Whoever came first showed a token that an operator made.
    JoinToken,
}

impl Basis {
    /// The kebab-case word.
    pub fn name(self) -> &'static str {
        match self {
            Basis::Quote => "quote",
            Basis::EkActivation => "ek-activation",
            Basis::X509Pop => "x509-pop",
            Basis::JoinToken => "join-token",
        }
    }

    /// Whether what runs there is appraised.
    pub fn is_quote(&self) -> bool {
        *self == Basis::Quote
    }
}

impl std::fmt::Display for Basis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
