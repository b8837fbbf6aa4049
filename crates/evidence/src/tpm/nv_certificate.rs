//! A certificate as an NV index holds it: some makers put a header before it, and the index is often larger than it.
//!
//! Only the certificate is signed and only it is read; what is around it says nothing and is passed over.

use super::certificate::CertificateError;

/// The bytes of an NV index, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NvCertificate<'a> {
    /// What stands before the certificate; empty for most makers.
    pub header: &'a [u8],
    /// The certificate, as far as its own length goes.
    pub certificate: &'a [u8],
    /// What fills up the index.
    pub filling: &'a [u8],
}

impl<'a> NvCertificate<'a> {
    /// Finds the certificate; `None` where no SEQUENCE of DER fits that begins in the first bytes and is followed by
    /// nothing but bytes of zeros or of ones, which no certificate begins with and none ends with.
    pub fn find(bytes: &'a [u8]) -> Option<Self> {
        (0..=HEADER_BYTES_MAX.min(bytes.len())).find_map(|start| {
            let (header, rest) = bytes.split_at_checked(start)?;
            let (certificate, filling) = rest.split_at_checked(sequence_bytes(rest)?)?;
            let is_filling = filling.iter().all(|byte| matches!(byte, 0 | 0xff));
            let is_whole = written(certificate, certificate.len()) == certificate.len();
            (is_filling && is_whole).then_some(NvCertificate { header, certificate, filling })
        })
    }

    /// What is wrong with an index of which no certificate can be read, as far as its bytes show.
    pub fn fault(bytes: &[u8]) -> CertificateError {
        unreadable(bytes)
    }
}

/// What is wrong with bytes of which no certificate can be read, where that is known: it is packed, or its end is missing.
pub(super) fn unreadable(bytes: &[u8]) -> CertificateError {
    if bytes.starts_with(GZIP_MAGIC) {
        return CertificateError::Packed;
    }
    let begun = (0..=HEADER_BYTES_MAX).find_map(|start| {
        let rest = bytes.get(start..)?;
        // A certificate begins with two SEQUENCEs: itself, and what of it is signed.
        let (stated, signed) = (sequence_bytes(rest)?, sequence_bytes(rest.get(4..)?)?);
        let found = written(rest, stated);
        (signed < stated && found < stated).then_some(CertificateError::CutShort { stated, found })
    });
    begun.unwrap_or(CertificateError::Der)
}

/// How many of the first `stated` bytes somebody wrote: an index that was written in part ends with what it was made of. A
/// certificate ends with a signature, of which so many equal bytes are no part.
fn written(bytes: &[u8], stated: usize) -> usize {
    let bytes = bytes.get(..stated).unwrap_or(bytes);
    let Some(last) = bytes.last().filter(|last| matches!(last, 0 | 0xff)) else { return bytes.len() };
    let filled = bytes.iter().rev().take_while(|byte| *byte == last).count();
    if filled < FILLED_BYTES_MIN { bytes.len() } else { bytes.len() - filled }
}

/// Bytes of the DER SEQUENCE that begins here, with its tag and length. No certificate has fewer than 256.
fn sequence_bytes(bytes: &[u8]) -> Option<usize> {
    let (tag, length) = bytes.split_first_chunk::<2>()?;
    let (length, _) = length.split_first_chunk::<2>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    (tag == SEQUENCE_OF_TWO_LENGTH_BYTES && length > 0xff).then_some(length + 4)
}

/// By chance, one signature in 2^127 ends so.
const FILLED_BYTES_MIN: usize = 16;
/// RFC 1952, 2.3.1.
const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const SEQUENCE_OF_TWO_LENGTH_BYTES: &[u8; 2] = &[0x30, 0x82];
/// TCG_PCCLIENT_STORED_CERT and TCG_FULL_CERT (TCG PC Client Specific Implementation for TPM 1.2, 7.3) take seven bytes,
/// a length of its own two or four.
const HEADER_BYTES_MAX: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn certificate() -> Vec<u8> {
        [&[0x30, 0x82, 0x01, 0x2c], [7; 300].as_slice()].concat()
    }

    #[test]
    fn header_and_filling_are_found() {
        // A stored full certificate; a length of two bytes, of four in either order; what looks like a certificate and is short.
        let headers: [&[u8]; 6] = [
            &[],
            &[0x10, 1, 0, 1, 0x32, 0x10, 2],
            &[1, 0x30],
            &[0, 0, 1, 0x30],
            &[0x30, 1, 0, 0],
            &[0x30, 0x82, 0, 0, 0, 1],
        ];
        // Some makers end the certificate with zeros, in an index that was all ones.
        let fillings: [&[u8]; 4] = [&[], &[0; 40], &[0xff; 1], &[0, 0, 0xff, 0xff, 0]];
        for (header, filling) in headers.into_iter().flat_map(|h| fillings.map(|f| (h, f))) {
            let certificate = certificate();
            let bytes = [header, &certificate, filling].concat();
            let found = NvCertificate::find(&bytes).unwrap();
            assert_eq!(found, NvCertificate { header, certificate: &certificate, filling });
        }
    }

    #[test]
    fn what_is_no_filling_is_refused() {
        let with = |rest: &[u8]| [certificate().as_slice(), rest].concat();
        assert_eq!(NvCertificate::find(&with(&[0, 1])), None);
        assert_eq!(NvCertificate::find(&with(&[0, 0xff, 1])), None);
        assert_eq!(NvCertificate::find(&with(&[0xa5])), None);
        assert_eq!(NvCertificate::find(&with(&certificate())), None);
        let cut = certificate();
        assert_eq!(NvCertificate::find(cut.get(..200).unwrap()), None);
        let late = [[0; 17].as_slice(), &certificate()].concat();
        assert_eq!(NvCertificate::find(&late), None);
    }

    #[test]
    fn a_missing_end_is_told_from_bytes_that_are_no_certificate() {
        let certificate = [&[0x30, 0x82, 0x02, 0x58, 0x30, 0x82, 0x01, 0x40], [7; 596].as_slice()].concat();
        let headers: [&[u8]; 3] = [&[], &[0x10, 1, 0, 1, 0x32, 0x10, 2], &[0x30, 1, 0, 0]];
        for (header, kept) in headers.into_iter().flat_map(|header| [8, 300, 603].map(|kept| (header, kept)))
        {
            let bytes = [header, certificate.get(..kept).unwrap()].concat();
            assert_eq!(unreadable(&bytes), CertificateError::CutShort { stated: 604, found: kept });
        }
        // Written in part, into an index that was made of zeros or ones.
        for (filling, kept) in [(0, 40), (0xff, 300), (0xff, 588)] {
            let mut bytes = [certificate.get(..kept).unwrap(), &[filling; 900]].concat();
            bytes.truncate(900);
            assert_eq!(NvCertificate::find(&bytes), None);
            assert_eq!(unreadable(&bytes), CertificateError::CutShort { stated: 604, found: kept });
        }
        assert_eq!(unreadable(&certificate), CertificateError::Der);
        assert_eq!(unreadable(&[0xff; 40]), CertificateError::Der);
        assert_eq!(unreadable(b""), CertificateError::Der);
        assert_eq!(unreadable(&[0x1f, 0x8b, 8]), CertificateError::Packed);
    }

    proptest! {
        #[test]
        fn the_parts_are_the_whole(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let bytes = [bytes.as_slice(), &certificate()].concat();
            if let Some(found) = NvCertificate::find(&bytes) {
                prop_assert_eq!([found.header, found.certificate, found.filling].concat(), bytes);
            }
        }
    }
}
