//! The attestation object of a key in a TPM as WebAuthn has it, and ACME's `device-attest-01` with it.
//!
//! W3C Web Authentication 2, 6.5.4 and 8.3, format `tpm`; draft-ietf-acme-device-attest, 5, leaves `authData` out. CBOR in the canonical
//! form of CTAP2: definite lengths, the shortest encoding, keys by length and then by their bytes.

/// What is said of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TpmStatement<'a> {
    /// How the AK signs.
    pub algorithm: Algorithm,
    /// The certificate of the AK and those above it, DER.
    pub x5c: &'a [Vec<u8>],
    /// TPMT_SIGNATURE.
    pub signature: &'a [u8],
    /// TPMS_ATTEST of TPM2_Certify.
    pub cert_info: &'a [u8],
    /// TPMT_PUBLIC of the key.
    pub pub_area: &'a [u8],
}

/// COSE's numbers of what an AK signs with; SHA-1 is none of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with SHA-256.
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl TpmStatement<'_> {
    /// The attestation object, CBOR.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        head(&mut bytes, MAP, 2);
        text(&mut bytes, "fmt");
        text(&mut bytes, "tpm");
        text(&mut bytes, "attStmt");
        head(&mut bytes, MAP, 6);
        text(&mut bytes, "alg");
        // A negative number n is written as -1 - n.
        head(
            &mut bytes,
            NEGATIVE,
            match self.algorithm {
                Algorithm::Es256 => 6,
                Algorithm::Rs256 => 256,
            },
        );
        text(&mut bytes, "sig");
        string(&mut bytes, self.signature);
        text(&mut bytes, "ver");
        text(&mut bytes, "2.0");
        text(&mut bytes, "x5c");
        head(&mut bytes, ARRAY, self.x5c.len());
        self.x5c.iter().for_each(|certificate| string(&mut bytes, certificate));
        text(&mut bytes, "pubArea");
        string(&mut bytes, self.pub_area);
        text(&mut bytes, "certInfo");
        string(&mut bytes, self.cert_info);
        bytes
    }
}

fn text(bytes: &mut Vec<u8>, text: &str) {
    head(bytes, TEXT, text.len());
    bytes.extend(text.as_bytes());
}

fn string(bytes: &mut Vec<u8>, string: &[u8]) {
    head(bytes, BYTES, string.len());
    bytes.extend(string);
}

/// RFC 8949, 3: a major type in the upper three bits, and the number in the fewest bytes.
fn head(bytes: &mut Vec<u8>, major: u8, number: usize) {
    match (u8::try_from(number), u16::try_from(number), u32::try_from(number)) {
        (Ok(small @ 0..=23), ..) => bytes.push(major | small),
        (Ok(one), ..) => bytes.extend([major | 24, one]),
        (_, Ok(two), _) => {
            bytes.push(major | 25);
            bytes.extend(two.to_be_bytes());
        }
        (.., Ok(four)) => {
            bytes.push(major | 26);
            bytes.extend(four.to_be_bytes());
        }
        _ => {
            bytes.push(major | 27);
            bytes.extend(u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes());
        }
    }
}

const NEGATIVE: u8 = 1 << 5;
const BYTES: u8 = 2 << 5;
const TEXT: u8 = 3 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_written_as_the_standard_has_it() {
        let x5c = [vec![0xaa; 24], vec![0xbb]];
        let statement = TpmStatement {
            algorithm: Algorithm::Es256,
            x5c: &x5c,
            signature: &[1, 2],
            cert_info: &[4; 256],
            pub_area: &[3],
        };
        let mut expected = b"\xa2\x63fmt\x63tpm\x67attStmt\xa6\x63alg\x26\x63sig\x42\x01\x02".to_vec();
        expected.extend(b"\x63ver\x632.0\x63x5c\x82\x58\x18");
        expected.extend([0xaa; 24]);
        expected.extend(b"\x41\xbb\x67pubArea\x41\x03\x68certInfo\x59\x01\x00");
        expected.extend([4; 256]);
        assert_eq!(statement.encode(), expected);
        let rsa = TpmStatement { algorithm: Algorithm::Rs256, ..statement }.encode();
        assert!(rsa.windows(7).any(|part| part == b"\x63alg\x39\x01\x00"));
    }

    #[test]
    fn numbers_take_the_fewest_bytes() {
        for (number, written) in [
            (23, vec![0x57]),
            (24, vec![0x58, 24]),
            (255, vec![0x58, 255]),
            (256, vec![0x59, 1, 0]),
            (65_536, vec![0x5a, 0, 1, 0, 0]),
            (1 << 32, vec![0x5b, 0, 0, 0, 1, 0, 0, 0, 0]),
        ] {
            let mut bytes = Vec::new();
            head(&mut bytes, BYTES, number);
            assert_eq!(bytes, written, "{number}");
        }
    }
}
