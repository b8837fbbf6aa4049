//! The limit of every figure here: signatures this machine verifies in a second, on one core.

use std::hint::black_box;
use std::time::{Duration, Instant};

use anyhow::Result;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256,
};
use serde::Serialize;

/// Signature verifications per second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limit {
    /// RSASSA with a 2048-bit key and SHA-256.
    pub rsa_2048: f64,
    /// ECDSA on P-256 with SHA-256.
    pub p256: f64,
}

impl Limit {
    /// Measures it, in about half a second.
    pub fn measure() -> Result<Limit> {
        let random = SystemRandom::new();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048)?;
        let mut rsa_signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&signature::RSA_PKCS1_SHA256, &random, MESSAGE, &mut rsa_signature)?;
        let rsa_key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, rsa.public_key().as_ref())?;

        let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let ecdsa_signature = ecdsa.sign(&random, MESSAGE)?;
        let ecdsa_key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, ecdsa.public_key().as_ref())?;

        Ok(Limit {
            rsa_2048: per_second(|| rsa_key.verify_sig(MESSAGE, &rsa_signature).is_ok()),
            p256: per_second(|| ecdsa_key.verify_sig(MESSAGE, ecdsa_signature.as_ref()).is_ok()),
        })
    }
}

fn per_second(run: impl Fn() -> bool) -> f64 {
    let start = Instant::now();
    let mut runs = 0u32;
    while start.elapsed() < MEASURED_FOR {
        for _ in 0..RUNS_PER_LOOK {
            black_box(run());
        }
        runs += RUNS_PER_LOOK;
    }
    f64::from(runs) / start.elapsed().as_secs_f64()
}

/// As long as a quote usually is.
const MESSAGE: &[u8] = &[0x5a; 145];
const MEASURED_FOR: Duration = Duration::from_millis(200);
/// The clock is looked at this rarely, so that looking does not count.
const RUNS_PER_LOOK: u32 = 32;
