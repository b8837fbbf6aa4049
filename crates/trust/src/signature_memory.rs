//! File signatures that were found good, so that a file of a whole fleet is verified once.
//!
//! This is a memory of answers and nothing more: whether it remembers changes how long an appraisal takes, never what it
//! says. It belongs to one compiled policy and dies with it. Only good signatures are kept, so that nobody without an
//! accepted key can fill it.

use std::collections::HashSet;
use std::mem;
use std::sync::{PoisonError, RwLock};

use assay_evidence::ima::{FileSignature, SigningKey};
use assay_evidence::{Digest, HashAlgorithm};

/// Good signatures. Read by every appraisal at once, written when one is new; never locked while one is verified.
#[derive(Debug)]
pub(crate) struct SignatureMemory {
    kept_max: usize,
    generations: RwLock<Generations>,
}

/// Two generations: when the newer is full it becomes the older, and what that held is forgotten.
#[derive(Debug, Default)]
struct Generations {
    newer: HashSet<Digest>,
    older: HashSet<Digest>,
}

impl Default for SignatureMemory {
    fn default() -> Self {
        SignatureMemory { kept_max: KEPT_MAX, generations: RwLock::default() }
    }
}

impl SignatureMemory {
    /// Whether this is the key's signature over a file with this digest.
    pub(crate) fn verify(&self, key: &SigningKey, signature: &FileSignature<'_>, digest: &Digest) -> bool {
        let question = question(key, signature, digest);
        if self.remembers(&question) {
            return true;
        }
        let good = key.verify_digest(signature, digest);
        if good {
            self.keep(question);
        }
        good
    }

    fn remembers(&self, question: &Digest) -> bool {
        let generations = self.generations.read().unwrap_or_else(PoisonError::into_inner);
        generations.newer.contains(question) || generations.older.contains(question)
    }

    fn keep(&self, question: Digest) {
        let mut generations = self.generations.write().unwrap_or_else(PoisonError::into_inner);
        if generations.newer.len() >= self.kept_max / 2 {
            generations.older = mem::take(&mut generations.newer);
        }
        generations.newer.insert(question);
    }
}

/// All that the answer depends on, under a hash that nobody can make collide. Every part but the last has a length that
/// the ones before it give.
fn question(key: &SigningKey, signature: &FileSignature<'_>, digest: &Digest) -> Digest {
    let FileSignature { form, hash, key_id, signature } = signature;
    let kinds = [*form as u8, *hash as u8, digest.algorithm() as u8];
    HashAlgorithm::Sha256.hash(&[key.spki_sha256().as_bytes(), &kinds, key_id, digest.as_bytes(), signature])
}

/// The files of a distribution with every kernel module, several times over; some 10 MiB.
const KEPT_MAX: usize = 1 << 17;

#[cfg(test)]
mod tests {
    use assay_evidence::ima::{List, SigningKeys, parse_binary};

    use super::*;

    fn list() -> List {
        parse_binary(include_bytes!("../../../vectors/ima/ima-sig/binary_runtime_measurements")).unwrap()
    }

    fn key() -> SigningKey {
        let certificate = include_bytes!("../../../vectors/ima/ima-sig/signing-cert.pem");
        SigningKey::from_certificate_or_spki(certificate).unwrap()
    }

    fn kept(memory: &SignatureMemory) -> usize {
        let generations = memory.generations.read().unwrap();
        generations.newer.len() + generations.older.len()
    }

    /// Judges every entry of the list; how many are signed.
    fn signed(keys: &SigningKeys, memory: &SignatureMemory) -> usize {
        let list = list();
        let verifies = |key: &SigningKey, signature: &FileSignature<'_>, digest: &Digest| {
            memory.verify(key, signature, digest)
        };
        list.iter().filter(|entry| keys.signer_by(entry, verifies).is_ok()).count()
    }

    #[test]
    fn what_it_remembers_is_what_was_verified() {
        let (keys, memory) = ([key()].into_iter().collect(), SignatureMemory::default());
        let alone = list().iter().filter(|entry| key().verify(entry)).count();
        assert!(alone > 0);
        assert_eq!(signed(&keys, &memory), alone);
        let after_once = kept(&memory);
        assert!((1..=alone).contains(&after_once));
        assert_eq!((signed(&keys, &memory), kept(&memory)), (alone, after_once));
    }

    #[test]
    fn it_answers_for_the_very_same_only() {
        let memory = SignatureMemory::default();
        let list = list();
        let entry = list.iter().find(|entry| key().verify(entry)).unwrap();
        let good = entry.signature().unwrap();
        let digest = entry.file_digest().unwrap();
        assert!(memory.verify(&key(), &good, &digest));
        let other = HashAlgorithm::Sha256.hash(&[b"another file"]);
        assert!(!memory.verify(&key(), &good, &other));
        let mut bytes = good.signature.to_vec();
        bytes[8] ^= 1;
        assert!(!memory.verify(&key(), &FileSignature { signature: &bytes, ..good }, &digest));
        assert!(!memory.verify(&key(), &FileSignature { key_id: [0; 4], ..good }, &digest));
        assert_eq!(kept(&memory), 1);
    }

    #[test]
    fn it_has_a_bound_and_forgets_the_oldest() {
        let memory = SignatureMemory { kept_max: 4, ..SignatureMemory::default() };
        let questions: Vec<Digest> = (0u8..9).map(|byte| HashAlgorithm::Sha256.hash(&[&[byte]])).collect();
        for question in &questions {
            memory.keep(*question);
            assert!(kept(&memory) <= 4 && memory.remembers(question));
        }
        assert!(!memory.remembers(&questions[0]) && memory.remembers(&questions[7]));
    }
}
