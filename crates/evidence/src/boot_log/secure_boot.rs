//! PCR 7: how Secure Boot was set up, what images were trusted by, and what firmware and shim say of protections.
//!
//! The specification orders the PCR: SecureBoot, PK, KEK, db, dbx, more variables, separator, and then what images were
//! trusted by. An attacker who booted without Secure Boot can append to it and relabel what is there, but cannot give
//! the digests at its beginning other data. So an event is what its covered data says wherever it stands, its type is
//! never asked, and the configuration is what was measured before the separator, once.

use super::{
    Authority, BootLog, Coverage, Event, Guid, SecureBootVariables, SignatureKind, Statement, Variable,
    signature_lists,
};
use crate::text::escaped;
use crate::{Digest, HashAlgorithm};

/// What all of PCR 7 says.
#[derive(Debug, Default)]
pub(super) struct SecureBootRecord {
    /// `None` where PCR 7 does not begin with the whole configuration.
    pub(super) variables: Option<SecureBootVariables>,
    pub(super) authorities: Vec<Authority>,
    pub(super) statements: Vec<Statement>,
    /// Configuration that was measured again: the first value was not the one in force to the end.
    pub(super) remeasured: Vec<String>,
    pub(super) unexplained: Vec<usize>,
    pub(super) sbat_level: Option<String>,
    pub(super) is_shim_validation_off: bool,
}

/// Reads the events of PCR 7 by the digests of `bank`.
pub(super) fn read<'a>(log: &BootLog<'a>, bank: HashAlgorithm) -> SecureBootRecord {
    let mut record = SecureBootRecord::default();
    let mut configuration: Vec<(usize, Variable<'a>)> = Vec::new();
    let (mut is_open, mut is_readable) = (true, true);
    let closes = separators(bank);
    for (event, pcr, digest) in super::facts::extends(log, bank) {
        if pcr.get() != SECURE_BOOT_PCR {
            continue;
        }
        if is_open && closes.contains(&digest) {
            is_open = false;
            continue;
        }
        match meaning(event, bank) {
            Meaning::Configuration(variable) if is_open => configuration.push((event.number(), variable)),
            Meaning::Configuration(variable) => record.remeasured.push(escaped(&variable.name).into_owned()),
            Meaning::Authority(variable) => record.add_authority(event.number(), &variable),
            Meaning::Statement(text) => record.statements.push(Statement { event: event.number(), text }),
            Meaning::Unknown => {
                // It may have been any of the variables.
                is_readable &= !is_open;
                record.unexplained.push(event.number());
            }
        }
    }
    for (vendor, name) in SETTINGS {
        if configuration.iter().filter(|(_, variable)| variable.is(vendor, name)).count() > 1 {
            record.remeasured.push(name.to_owned());
        }
    }
    record.variables =
        Some(configuration).filter(|_| is_readable && !is_open).and_then(|found| variables(&found));
    record
}

/// What an event of PCR 7 is, by the data that its digest covers.
enum Meaning<'a> {
    /// A variable that configures the firmware.
    Configuration(Variable<'a>),
    /// What an image was trusted by, or how shim trusts.
    Authority(Variable<'a>),
    /// A text.
    Statement(String),
    /// The digest covers nothing that we can read.
    Unknown,
}

fn meaning<'a>(event: &Event<'a>, bank: HashAlgorithm) -> Meaning<'a> {
    let Coverage::Covered(data) = event.coverage(bank) else { return Meaning::Unknown };
    if let Some(text) = statement(data) {
        return Meaning::Statement(text);
    }
    match Variable::parse(data) {
        Ok(variable) if is_configuration(&variable) => Meaning::Configuration(variable),
        Ok(variable) => Meaning::Authority(variable),
        Err(_) => Meaning::Unknown,
    }
}

/// Whether a variable says how the firmware is set up. db is both: as a whole it is a list of lists, and of an image it
/// is the one entry that the image was trusted by.
fn is_configuration(variable: &Variable<'_>) -> bool {
    match variable.vendor {
        Guid::GLOBAL_VARIABLE => true,
        Guid::IMAGE_SECURITY_DATABASE => signature_lists(variable.data).is_ok(),
        Guid::SHIM_LOCK => false,
        _ => authority_signature(variable.data).is_none(),
    }
}

/// Printable text, as firmware writes what it has to say (Platform Firmware Profile, 10.4.4), with or without its NUL.
fn statement(data: &[u8]) -> Option<String> {
    let text = data.strip_suffix(&[0]).unwrap_or(data);
    let is_text = !text.is_empty()
        && text.len() <= STATEMENT_BYTES_MAX
        && text.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    is_text.then(|| String::from_utf8_lossy(text).into_owned())
}

impl SecureBootRecord {
    fn add_authority(&mut self, event: usize, variable: &Variable<'_>) {
        if variable.is(Guid::SHIM_LOCK, "SbatLevel") {
            let text = String::from_utf8_lossy(variable.data).into_owned();
            self.sbat_level.get_or_insert(text);
        }
        // shim, mok.c: set by who switched off shim's own checks at its menu.
        let is_state = ["MokSBState", "MokSBStateRT"].iter().any(|name| variable.is(Guid::SHIM_LOCK, name));
        self.is_shim_validation_off |= is_state && variable.data != [0];
        self.authorities.push(Authority {
            event,
            variable: escaped(&variable.name).into_owned(),
            vendor: variable.vendor,
            signature: authority_signature(variable.data),
        });
    }
}

/// SecureBoot comes first, and of all that it stands on each is there exactly once.
fn variables(configuration: &[(usize, Variable<'_>)]) -> Option<SecureBootVariables> {
    let once = |vendor, name| {
        let mut named = configuration.iter().filter(|(_, variable)| variable.is(vendor, name));
        named.next().filter(|_| named.next().is_none())
    };
    let database = |vendor, name| signature_lists(once(vendor, name)?.1.data).ok();
    let (_, secure_boot) = once(Guid::GLOBAL_VARIABLE, "SecureBoot")?;
    let (dbx_event, _) = once(Guid::IMAGE_SECURITY_DATABASE, "dbx")?;
    let is_enabled = match secure_boot.data {
        [1] => true,
        [0] | [] => false,
        _ => return None,
    };
    configuration.first().filter(|(_, first)| first == secure_boot)?;
    Some(SecureBootVariables {
        is_enabled,
        pk: database(Guid::GLOBAL_VARIABLE, "PK")?,
        kek: database(Guid::GLOBAL_VARIABLE, "KEK")?,
        db: database(Guid::IMAGE_SECURITY_DATABASE, "db")?,
        dbx: database(Guid::IMAGE_SECURITY_DATABASE, "dbx")?,
        dbx_event: *dbx_event,
    })
}

/// EFI_SIGNATURE_DATA with a certificate or a digest, or (shim's own) a certificate alone.
pub(super) fn authority_signature(data: &[u8]) -> Option<SignatureKind> {
    let is_der = |bytes: &[u8]| bytes.starts_with(&[0x30, 0x82]);
    let owned = data.get(GUID_BYTES..).unwrap_or_default();
    match (is_der(data), is_der(owned)) {
        (true, _) => Some(SignatureKind::certificate(data)),
        (_, true) => Some(SignatureKind::certificate(owned)),
        _ => Digest::new(HashAlgorithm::Sha256, owned).map(SignatureKind::ImageDigest),
    }
}

/// What a separator extends when nothing went wrong: Platform Firmware Profile, 3.3.2.2 and 10.4.1, zeros or ones.
pub(super) fn separators(bank: HashAlgorithm) -> [Digest; 2] {
    SEPARATORS.map(|data| bank.hash(&[&data]))
}

const SEPARATORS: [[u8; 4]; 2] = [[0; 4], [0xff; 4]];
/// What Secure Boot stands on.
const SETTINGS: [(Guid, &str); 5] = [
    (Guid::GLOBAL_VARIABLE, "SecureBoot"),
    (Guid::GLOBAL_VARIABLE, "PK"),
    (Guid::GLOBAL_VARIABLE, "KEK"),
    (Guid::IMAGE_SECURITY_DATABASE, "db"),
    (Guid::IMAGE_SECURITY_DATABASE, "dbx"),
];
/// Where firmware and shim measure Secure Boot.
const SECURE_BOOT_PCR: u8 = 7;
/// The longest string of the profile has 47 bytes.
const STATEMENT_BYTES_MAX: usize = 128;
const GUID_BYTES: usize = 16;
