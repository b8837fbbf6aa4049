//! `assay policy sign` and `assay policy verify`: policies with a signature around them (DSSE).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use assay_evidence::ima::SigningKey;
use assay_trust::Policy;
use assay_trust::policy::{Envelope, EnvelopeError, PolicySigners};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::json;

use super::text;
use crate::case::{SMALL_BYTES_MAX, read_bounded};
use crate::output;

/// Arguments of `assay policy sign`.
#[derive(clap::Args)]
pub struct SignArgs {
    /// The policy, in TOML or JSON; one that is signed already gets a further signature.
    file: PathBuf,
    /// The private key: Ed25519, P-256 or P-384, PKCS#8 in PEM.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Where to write the signed policy; otherwise beside it, with the ending .dsse.json.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Arguments of `assay policy verify`.
#[derive(clap::Args)]
pub struct VerifyArgs {
    /// The signed policy.
    file: PathBuf,
    /// A key that may sign policies: a public key or certificate in PEM or DER (may be repeated).
    #[arg(long = "signer", value_name = "FILE", required = true)]
    signers: Vec<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Signs a policy that could be used.
pub fn sign(args: &SignArgs) -> Result<()> {
    let text = text::read_text_of(&args.file)?;
    let mut envelope = match Envelope::parse(&text) {
        Ok(signed) => signed,
        Err(EnvelopeError::Unsigned) => Envelope::new(text),
        Err(error) => return Err(error).with_context(|| args.file.display().to_string()),
    };
    let policy = Policy::from_text(envelope.payload()).with_context(|| args.file.display().to_string())?;
    let key = PolicyKey::read(&args.key).with_context(|| args.key.display().to_string())?;
    let signer = SigningKey::from_certificate_or_spki(&key.spki)?.spki_sha256();
    let signature = key.sign(&envelope.to_be_signed())?;
    envelope.add_signature(&signer, signature);

    // Sign, then look at what was signed.
    let signed = envelope.to_json();
    PolicySigners::new([&key.spki])?.open(&signed).context("nothing is written")?;
    let into = args.output.clone().unwrap_or_else(|| args.file.with_extension("dsse.json"));
    std::fs::write(&into, signed + "\n").with_context(|| into.display().to_string())?;
    if args.json {
        return output::json(&json!({ "file": into, "policy": policy.citation(), "signer": signer }));
    }
    output::out!("{}: policy {} signed by {signer}", into.display(), policy.citation());
    Ok(())
}

/// Says who signed a policy.
pub fn verify(args: &VerifyArgs) -> Result<()> {
    let read = |path: &PathBuf| -> Result<Vec<u8>> {
        let file = read_bounded(path, SMALL_BYTES_MAX)?;
        file.with_context(|| format!("{} is not there", path.display()))
    };
    let keys = args.signers.iter().map(read).collect::<Result<Vec<_>>>()?;
    for (key, path) in keys.iter().zip(&args.signers) {
        SigningKey::from_certificate_or_spki(key).with_context(|| path.display().to_string())?;
    }
    let accepted = PolicySigners::new(&keys)?;
    let file = || args.file.display().to_string();
    let text = text::read_text_of(&args.file)?;
    let policy = accepted.open(&text).with_context(file)?;
    let signers = Envelope::parse(&text)?.signed_by(&accepted)?;
    if args.json {
        return output::json(&json!({ "file": args.file, "policy": policy.citation(), "signers": signers }));
    }
    let names: Vec<String> = signers.iter().map(ToString::to_string).collect();
    output::out!("{}: policy {} is signed by {}", file(), policy.citation(), names.join(", "));
    Ok(())
}

/// A private key that signs policies.
struct PolicyKey {
    spki: Vec<u8>,
    pair: Pair,
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa(EcdsaKeyPair),
}

impl PolicyKey {
    fn read(path: &Path) -> Result<Self> {
        let pem = read_bounded(path, SMALL_BYTES_MAX)?.context("it is not there")?;
        let der = PrivatePkcs8KeyDer::from_pem_slice(&pem).map_err(|_| {
            anyhow!(
                "there is no PKCS#8 private key in PEM in it (-----BEGIN PRIVATE KEY-----, not encrypted)"
            )
        })?;
        let der = der.secret_pkcs8_der();
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            return Ok(PolicyKey { spki: spki(pair.public_key())?, pair: Pair::Ed25519(pair) });
        }
        for algorithm in [&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1_SIGNING] {
            if let Ok(pair) = EcdsaKeyPair::from_pkcs8(algorithm, der) {
                return Ok(PolicyKey { spki: spki(pair.public_key())?, pair: Pair::Ecdsa(pair) });
            }
        }
        bail!("it is neither an Ed25519 nor a P-256 or P-384 key")
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Ecdsa(pair) => {
                let signature = pair.sign(&SystemRandom::new(), message);
                Ok(signature.map_err(|_| anyhow!("the key does not sign"))?.as_ref().to_vec())
            }
        }
    }
}

fn spki(key: &impl AsDer<PublicKeyX509Der<'static>>) -> Result<Vec<u8>> {
    let der: PublicKeyX509Der<'_> = key.as_der().map_err(|_| anyhow!("its public key cannot be written"))?;
    Ok(der.as_ref().to_vec())
}
