//! A key that only its TPM can load, as OpenSSL's providers for TPMs and other programs read it: `TSS2 PRIVATE KEY`
//! (draft-bottomley-tpm2-keys, 3.1), below the primary that has a template of its own.

use assay_identity::bundle::pem;

use crate::tpm::keys::OWNER;

/// The file of a blob: TPM2B_PUBLIC, then TPM2B_PRIVATE.
///
/// `TPMKey ::= SEQUENCE { type OBJECT IDENTIFIER, emptyAuth [0] BOOLEAN, parent INTEGER, pubkey OCTET STRING, privkey OCTET STRING }`
pub(super) fn tss2(blob: &[u8]) -> String {
    let public = blob.get(..2).and_then(|size| <[u8; 2]>::try_from(size).ok()).map_or(0, u16::from_be_bytes);
    let (public, private) = blob.split_at_checked(2 + usize::from(public)).unwrap_or((blob, &[]));
    let parent = OWNER.value().to_be_bytes();
    let contents = [
        tlv(0x06, LOADABLE_KEY),
        tlv(0xa0, &tlv(0x01, &[0xff])),
        tlv(0x02, &parent),
        tlv(0x04, public),
        tlv(0x04, private),
    ];
    pem("TSS2 PRIVATE KEY", &tlv(0x30, &contents.concat()))
}

/// DER of less than 64 KiB, as a TPM's blobs are.
fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(contents.len()).unwrap_or(u16::MAX).to_be_bytes();
    let header = match contents.len() {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    };
    [header.as_slice(), contents].concat()
}

/// 2.23.133.10.1.3, TPM Loadable Key.
const LOADABLE_KEY: &[u8] = &[0x67, 0x81, 0x05, 0x0a, 0x01, 0x03];

#[cfg(test)]
mod tests {
    use data_encoding::BASE64;

    use super::*;

    #[test]
    fn the_file_has_both_parts_below_the_owners_storage_key() {
        let text = tss2(&[0, 3, 1, 2, 3, 0, 2, 8, 9]);
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let expected = [
            [0x30, 0x20, 0x06, 0x06].as_slice(),
            LOADABLE_KEY,
            &[0xa0, 3, 1, 1, 0xff],
            &[0x02, 4, 0x40, 0, 0, 0x01],
            &[0x04, 5, 0, 3, 1, 2, 3],
            &[0x04, 4, 0, 2, 8, 9],
        ];
        assert_eq!(BASE64.decode(body.as_bytes()).unwrap(), expected.concat());
        assert!(text.starts_with("-----BEGIN TSS2 PRIVATE KEY-----\n"));
    }
}
