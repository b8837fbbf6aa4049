//! What a revocation list changes.

use assay_identity::crl::{CRL_BYTES_MAX, CRL_SERIALS_MAX, CrlError};
use assay_identity::{Crl, CrlSet, Moment, PrivateKey, Serial, SvidError, UnixTime, verify_svid};

use crate::authority::{Domain, NOW, at};

fn check(lists: &[Vec<u8>], domain: &Domain, now: UnixTime, expected: Result<(), SvidError>) {
    let chain = domain.chain("/a", &PrivateKey::generate().unwrap());
    let crls = CrlSet::from_der(lists).unwrap();
    // Twice: the second look-up goes by the remembered signature.
    for _ in 0..2 {
        assert_eq!(verify_svid(&chain, &domain.bundle(), &crls, now).map(|_| ()), expected);
    }
}

#[test]
fn a_listed_serial_is_revoked() {
    let (domain, namesake) = (Domain::new("example.org"), Domain::new("example.org"));
    let listed = Serial::from_random([0x5e; 16]);
    let other = Serial::from_random([0x11; 16]);
    let revoked = Err(SvidError::Revoked);
    check(&[], &domain, NOW, Err(SvidError::NoRevocationList));
    check(&[domain.crl(1, &[])], &domain, NOW, Ok(()));
    check(&[domain.crl(1, &[&other])], &domain, NOW, Ok(()));
    check(&[domain.crl(1, &[&other, &listed])], &domain, NOW, revoked.clone());
    // Another authority of the same name has no say, and cannot hide our list behind a higher number.
    check(&[namesake.crl(9, &[&listed]), domain.crl(1, &[])], &domain, NOW, Ok(()));
    check(&[namesake.crl(9, &[]), domain.crl(1, &[&listed])], &domain, NOW, revoked);
}

#[test]
fn the_newest_list_counts() {
    let domain = Domain::new("example.org");
    let listed = Serial::from_random([0x5e; 16]);
    check(&[domain.crl(2, &[&listed]), domain.crl(1, &[])], &domain, NOW, Err(SvidError::Revoked));
    check(&[domain.crl(2, &[]), domain.crl(3, &[])], &domain, NOW, Ok(()));
}

#[test]
fn a_stale_list_leaves_nothing_certain() {
    let domain = Domain::new("example.org");
    let listed = Serial::from_random([0x5e; 16]);
    check(&[domain.crl(1, &[])], &domain, at(599), Ok(()));
    check(
        &[domain.crl(1, &[])],
        &domain,
        at(600),
        Err(SvidError::OldRevocationList { ended: Moment(at(600)), now: Moment(at(600)) }),
    );
    check(&[domain.crl(1, &[&listed])], &domain, at(600), Err(SvidError::Revoked));
}

#[test]
fn finding_4_no_list_is_refusal_but_for_whoever_says_that_there_can_be_none_yet() {
    let (domain, namesake) = (Domain::new("example.org"), Domain::new("example.org"));
    let chain = domain.chain("/a", &PrivateKey::generate().unwrap());
    let of = |crls: &CrlSet| verify_svid(&chain, &domain.bundle(), crls, NOW).map(|_| ());
    assert_eq!(of(&CrlSet::default()), Err(SvidError::NoRevocationList));
    assert_eq!(of(&CrlSet::from_der([namesake.crl(1, &[])]).unwrap()), Err(SvidError::NoRevocationList));
    assert_eq!(of(&CrlSet::bootstrapping()), Ok(()));
    // What an earlier list named is revoked, however old the list is.
    let had = |list: Vec<u8>| CrlSet::bootstrapping_with(vec![Crl::parse(&list).unwrap()]);
    let later = |crls: &CrlSet| verify_svid(&chain, &domain.bundle(), crls, at(600)).map(|_| ());
    assert_eq!(later(&had(domain.crl(1, &[]))), Ok(()));
    assert_eq!(later(&had(domain.crl(1, &[&Serial::from_random([0x5e; 16])]))), Err(SvidError::Revoked));
}

#[test]
fn a_list_reads_back_and_knows_its_signer() {
    let domain = Domain::new("example.org");
    let serial = Serial::from_random([7; 16]);
    let list = Crl::parse(&domain.crl(42, &[&serial])).unwrap();
    assert_eq!((list.number(), list.next_update()), (42, at(600)));
    assert!(list.revokes(&serial) && !list.revokes(&Serial::from_random([8; 16])));
    assert_eq!(list.verify(domain.root.certificate()), Err(CrlError::Signature));
    assert_eq!(list.verify(domain.issuing.certificate()), Ok(()));
    assert_eq!(list.verify(Domain::new("example.org").issuing.certificate()), Err(CrlError::Signature));
}

#[test]
fn a_changed_list_is_not_its_authoritys() {
    let domain = Domain::new("example.org");
    let der = domain.crl(1, &[&Serial::from_random([7; 16])]);
    for index in 0..der.len() {
        let mut changed = der.clone();
        changed[index] ^= 0x01;
        let holds = Crl::parse(&changed).and_then(|list| list.verify(domain.issuing.certificate()));
        assert!(holds.is_err(), "byte {index}");
    }
}

#[test]
fn finding_11_a_list_of_all_that_may_be_issued_is_read() {
    let domain = Domain::new("example.org");
    // The longest serial numbers there are: none of ours is as long.
    let serials: Vec<Serial> =
        (0..CRL_SERIALS_MAX).map(|i| Serial::from_hex(&format!("ff{i:038x}")).unwrap()).collect();
    let list = domain.crl(1, &serials.iter().collect::<Vec<_>>());
    assert!(list.len() <= CRL_BYTES_MAX, "{}", list.len());
    assert!(list.len() > CRL_BYTES_MAX / 16 * 14, "{}: and little room is wasted", list.len());
    Crl::parse(&list).unwrap();
}
