//! What a server's refusal means for whoever looks after the device.
//!
//! A server tells a device the family and a code, and keeps the sentence, which may say more than a stranger should know, to
//! its own log. What a code asks for is the same everywhere, and said here.

use tonic::Status;

/// The status, and where its code is known what to do about it.
pub(super) fn told(status: &Status) -> String {
    let code = status.metadata().get("assay-reason").and_then(|code| code.to_str().ok());
    let said = format!("{}: {}", status.code(), status.message());
    match code.and_then(advice) {
        Some(advice) => format!("{said} ({advice})"),
        None => said,
    }
}

fn advice(code: &str) -> Option<&'static str> {
    Some(match code {
        "admission-pending" => {
            "the device waits for an operator: `assay device pending` shows it there, `assay device admit` lets it in"
        }
        "admission-denied" => "an operator keeps this device out: `assay device admit` takes that back",
        "not-listed" => {
            "this device is not on the server's enrollment_manifest: `assay-agent tpm detect` shows its EK's hash"
        }
        "revoked" => "an operator ended this device: `assay device readmit` takes it back",
        "name" => "the device's name is none: set `name` to letters, digits, dots, dashes and underscores",
        "ek-chain" => {
            "the server trusts nobody who vouches for this TPM: its maker's certificates belong into ek_anchors, or its EK into \
             a policy; `assay-agent tpm detect` shows what the TPM has"
        }
        "ek-public" | "ek-signature" | "ek-validity" | "ek-eku" | "ek-certificate-key" => {
            "the EK or its certificate is not as it should be: `assay-agent tpm detect` shows what the TPM has"
        }
        "idevid-chain" | "idevid-validity" | "idevid-revoked" | "idevid-certificate" | "idevid-key"
        | "iak-certify" => {
            "the identity that the device's maker gave it does not hold: look at [identity] of the configuration, and at the \
             server's idevid_anchors"
        }
        "ek-revoked" => "the maker revoked this TPM's certificate: ask the maker",
        "credential-activation" => {
            "this TPM could not show that the EK is its own: was the TPM cleared or replaced while the agent ran?"
        }
        "size" | "certificates" => "the TPM's certificates are longer than any the server reads",
        "store" | "unsettled" => "the server's own fault: its log says which",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn year_11_a_refusal_says_what_to_do_where_it_is_known() {
        let mut status = Status::permission_denied("refused: ek-chain");
        assert!(told(&status).ends_with("refused: ek-chain"), "{}", told(&status));
        status.metadata_mut().insert("assay-reason", "ek-chain".parse().unwrap());
        assert!(told(&status).contains("ek_anchors"), "{}", told(&status));
        status.metadata_mut().insert("assay-reason", "something-new".parse().unwrap());
        assert!(told(&status).ends_with("refused: ek-chain"), "{}", told(&status));
    }
}
