//! Boots that a policy accepts each as a whole.

use assay_evidence::{Check, Digest, HashAlgorithm, PcrIndex};
use assay_trust::policy::{Effect, PcrSection, diff, merge};
use assay_trust::rollout::unite;
use assay_trust::{Policy, Tier};

use crate::{appraise_by, claims, learned};

fn another_value() -> Digest {
    HashAlgorithm::Sha256.hash(&[b"another"])
}

/// The learned policy with another value in the place of a PCR's own.
fn with_another(index: u32) -> Policy {
    let mut policy = learned();
    let mut pcr = PcrSection::default();
    for (_, pinned, values) in policy.pcr.iter() {
        let is_changed = PcrIndex::new(index) == Some(pinned);
        let values = if is_changed { vec![another_value()] } else { values.to_vec() };
        values.into_iter().for_each(|value| pcr.allow(pinned, value));
    }
    policy.pcr = pcr;
    policy
}

#[test]
fn half_of_one_boot_and_half_of_another_is_refused_by_their_merge() {
    let (old, new) = (with_another(4), with_another(8));
    let device = claims("sb-good-1");
    for policy in [old.clone(), new.clone(), merge("edge", &[old.clone(), new.clone()]).unwrap().policy] {
        let result = appraise_by(policy, &device);
        assert_eq!(result.tier(), Tier::Contraindicated);
        // Told by one of them, not by both.
        assert_eq!(result.findings().iter().filter(|finding| finding.check == Check::PcrPolicy).count(), 1);
    }
    let result = appraise_by(unite(&old, &new).unwrap().policy, &device);
    assert_eq!(result.tier(), Tier::Contraindicated);
}

#[test]
fn either_boot_is_good_as_a_whole() {
    let union = unite(&with_another(4), &learned()).unwrap();
    assert_eq!(union.strains, []);
    assert_eq!(appraise_by(union.policy, &claims("sb-good-1")).tier(), Tier::Affirming);
}

#[test]
fn the_nearest_boot_is_told() {
    let mut far = with_another(4);
    for index in [0, 1, 2].map(|index| PcrIndex::new(index).unwrap()) {
        let mut pcr = PcrSection::default();
        far.pcr.iter().filter(|(_, pinned, _)| *pinned != index).for_each(|(_, pinned, values)| {
            values.iter().for_each(|value| pcr.allow(pinned, *value));
        });
        pcr.allow(index, another_value());
        far.pcr = pcr;
    }
    let merged = merge("edge", &[far, with_another(8)]).unwrap().policy;
    let result = appraise_by(merged, &claims("sb-good-1"));
    let told: Vec<&str> = result.findings().iter().map(|finding| finding.claim.as_str()).collect();
    assert_eq!(told, ["PCR 8"]);
}

#[test]
fn a_boot_that_is_no_longer_accepted_is_said() {
    let both = merge("edge", &[with_another(4), with_another(8)]).unwrap().policy;
    let effects = |from: &Policy, to: &Policy| {
        let of_boots = diff(from, to).into_iter().filter(|change| change.field.to_string() == "alternative");
        of_boots.map(|change| change.effect).collect::<Vec<_>>()
    };
    let one = with_another(4);
    assert_eq!(effects(&both, &one), [Effect::Refused]);
    assert_eq!(effects(&one, &both), [Effect::Allowed]);
}

#[test]
fn what_is_written_is_read_again_and_bounded() {
    let merged = merge("edge", &[with_another(4), with_another(8)]).unwrap().policy;
    assert_eq!(Policy::from_toml(&merged.to_toml()), Ok(merged.clone()));
    let mut many = merged;
    many.alternative = vec![many.alternative.first().unwrap().clone(); 16];
    let error = Policy::from_toml(&many.to_toml()).unwrap_err().to_string();
    assert!(error.starts_with("alternative: 17 boots would be accepted"), "{error}");
}
