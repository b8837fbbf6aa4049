//! The head of the ledger as text, which the server signs and devices remember.

use data_encoding::BASE64;

/// The end of the ledger's chain at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerHead {
    /// Leaves so far.
    pub leaves: u64,
    /// SHA-256 of the last one and everything before it; zero before the first.
    pub hash: [u8; 32],
}

impl LedgerHead {
    /// Three lines, as a signed note has them: what it is of, how many leaves, and the hash in base64.
    pub fn to_text(&self) -> String {
        format!("{ORIGIN}\n{}\n{}\n", self.leaves, BASE64.encode(&self.hash))
    }

    /// Reads such a text; the same head has no other.
    pub fn from_text(text: &str) -> Option<LedgerHead> {
        let mut lines = text.lines();
        let (origin, leaves, hash) = (lines.next()?, lines.next()?, lines.next()?);
        let hash = BASE64.decode(hash.as_bytes()).ok()?.try_into().ok()?;
        let head = LedgerHead { leaves: leaves.parse().ok()?, hash };
        (origin == ORIGIN && head.to_text() == text).then_some(head)
    }
}

/// A hash of this chain, not the root of a tree.
const ORIGIN: &str = "assay-audit-chain-v1";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_one_text() {
        let head = LedgerHead { leaves: 7, hash: [9; 32] };
        let text = head.to_text();
        assert_eq!(LedgerHead::from_text(&text), Some(head));
        for other in [
            text.replace('7', "07"),
            format!("{text}\n"),
            text.replace("v1", "v2"),
            text.trim_end().to_owned(),
        ] {
            assert_eq!(LedgerHead::from_text(&other), None, "{other}");
        }
    }
}
