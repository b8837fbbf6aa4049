//! An X.509-SVID with its chain, bundle and CRL, one of them hostile.
#![no_main]

use std::time::Duration;

use assay_fuzz::{part, vector};
use assay_identity::{Bundle, CrlSet, TrustDomain, UnixTime, verify_svid};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (number, bytes) = part(data, 4);
    let pick = |of: u8, good: &'static [u8]| if number == of { bytes } else { good };
    let chain = [pick(0, vector!("identity/svid.der")), pick(1, vector!("identity/issuing.der"))];
    let trust_domain = TrustDomain::parse("example.org").expect("a trust domain");
    let bundle = Bundle::from_der(trust_domain, pick(2, vector!("identity/root.der")));
    let crls = CrlSet::from_der([pick(3, vector!("identity/crl.der"))]);
    let now = UnixTime::since_unix_epoch(Duration::from_secs(1_800_000_000));
    if let (Ok(bundle), Ok(crls)) = (bundle, crls) {
        let _ = verify_svid(&chain, &bundle, &crls, now);
    }
});
