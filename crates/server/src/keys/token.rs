//! The operator's token: made on first start, shown once in a file, remembered as a hash.

use std::path::Path;

use assay_telemetry::sha256;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use super::files::{read, write_private};
use super::{KeysError, random};

/// What tells an operator from everyone else.
#[derive(Debug)]
pub(crate) struct OperatorToken {
    sha256: Vec<u8>,
}

impl OperatorToken {
    /// Loads the hash, or makes a token and leaves it in `<data>/operator.token`.
    ///
    /// The file is the operator's: it may be taken away, and deleting the hash makes a new token.
    pub(crate) fn open(data: &Path, keys: &Path) -> Result<OperatorToken, KeysError> {
        let hash_file = keys.join("operator.sha256");
        let stored = read(&hash_file)?.and_then(|hex| HEXLOWER.decode(hex.trim_ascii()).ok());
        if let Some(sha256) = stored.filter(|sha256| sha256.len() == 32) {
            return Ok(OperatorToken { sha256 });
        }
        let token = BASE64URL_NOPAD.encode(&random::<32>()?);
        let hash = sha256(token.as_bytes()).to_vec();
        write_private(&data.join("operator.token"), format!("{token}\n").as_bytes())?;
        write_private(&hash_file, format!("{}\n", HEXLOWER.encode(&hash)).as_bytes())?;
        Ok(OperatorToken { sha256: hash })
    }

    /// Whether this is the token.
    pub(crate) fn is(&self, candidate: &str) -> bool {
        candidate.len() <= TOKEN_BYTES_MAX
            && verify_slices_are_equal(&sha256(candidate.as_bytes()), &self.sha256).is_ok()
    }
}

/// 32 bytes take 43 characters.
const TOKEN_BYTES_MAX: usize = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_in_the_file_is_the_token_and_stays_it() {
        let folder = tempfile::tempdir().unwrap();
        let token = OperatorToken::open(folder.path(), folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("operator.token")).unwrap();
        assert!(token.is(text.trim()));
        assert!(!token.is("") && !token.is(&text.trim()[1..]) && !token.is(&"a".repeat(1000)));
        let hash = std::fs::read_to_string(folder.path().join("operator.sha256")).unwrap();
        assert!(!hash.contains(text.trim()));
        std::fs::remove_file(folder.path().join("operator.token")).unwrap();
        assert!(OperatorToken::open(folder.path(), folder.path()).unwrap().is(text.trim()));
    }
}
