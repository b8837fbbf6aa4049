//! The limit of every figure here: signatures this machine verifies in a second, on one core, and entries it hashes.

use std::hint::black_box;
use std::time::Duration;

use anyhow::Result;
use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self, KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256};
use serde::Serialize;

use super::sig::{MESSAGE, Signature, thread_time};

/// What one core does in a second.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limit {
    /// RSASSA with a 2048-bit key and SHA-256.
    pub rsa_2048: f64,
    /// ECDSA on P-256 with SHA-256.
    pub p256: f64,
    /// IMA entries hashed as replaying them takes: SHA-1 and SHA-256 of the template data, and one extension.
    pub ima_entries: f64,
}

impl Limit {
    /// Measures it, in about half a second.
    pub fn measure() -> Result<Limit> {
        let random = SystemRandom::new();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048)?;
        let mut rsa_signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&signature::RSA_PKCS1_SHA256, &random, MESSAGE, &mut rsa_signature)?;
        let rsa_key = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, rsa.public_key().as_ref())?;

        let p256 = Signature::new()?;
        Ok(Limit {
            rsa_2048: per_second(|| rsa_key.verify_sig(MESSAGE, &rsa_signature).is_ok())?,
            p256: per_second(|| p256.verify())?,
            ima_entries: per_second(|| {
                let hashed = [
                    digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, TEMPLATE_DATA),
                    digest::digest(&digest::SHA256, TEMPLATE_DATA),
                    digest::digest(&digest::SHA256, PCR_AND_DIGEST),
                ];
                black_box(hashed).iter().all(|digest| !digest.as_ref().is_empty())
            })?,
        })
    }

    /// Signatures that take as long as hashing so many entries.
    pub fn hashing_sig(&self, entries: usize) -> f64 {
        entries as f64 * self.p256 / self.ima_entries
    }
}

fn per_second(run: impl Fn() -> bool) -> Result<f64> {
    let start = thread_time()?;
    let mut runs = 0u32;
    loop {
        for _ in 0..RUNS_PER_LOOK {
            black_box(run());
        }
        runs += RUNS_PER_LOOK;
        let took = thread_time()?.saturating_sub(start);
        if took >= MEASURED_FOR {
            return Ok(f64::from(runs) / took.as_secs_f64());
        }
    }
}

/// As long as that of a file with its SHA-256.
const TEMPLATE_DATA: &[u8] = &[0x5a; 88];
const PCR_AND_DIGEST: &[u8] = &[0x5a; 64];
const MEASURED_FOR: Duration = Duration::from_millis(200);
/// The clock is looked at this rarely, so that looking does not count.
const RUNS_PER_LOOK: u32 = 32;
