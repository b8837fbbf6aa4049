//! The form in which evidence is kept: one byte for its version, then each field after its length.
//!
//! The first version was the edge protocol's own messages (protobuf). What it wrote is still read, here and nowhere else.

use assay_evidence::request::{BankStatement, DeviceIdentity, Evidence, Quote};
use assay_evidence::tpm::pcr::PcrValues;
use assay_evidence::{Digest, HashAlgorithm, PcrIndex};
use bytes::Bytes;

/// Files that say who vouches for TPMs, each as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EndorserFiles {
    pub ek_anchors: Vec<Vec<u8>>,
    pub idevid_anchors: Vec<Vec<u8>>,
    pub lists: Vec<Vec<u8>>,
}

/// A quote, and what came with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptQuote {
    pub quote: Quote,
    /// What user space measured.
    pub measure_log: Option<Bytes>,
    /// The TPM's word on its banks.
    pub banks: Option<BankStatement>,
}

pub(crate) fn write_quote(evidence: &Evidence) -> Vec<u8> {
    let Evidence { quote, measure_log, banks, .. } = evidence;
    let mut form = Writer::new();
    form.field(&quote.message);
    form.field(&quote.signature);
    let values = quote
        .pcrs
        .iter()
        .map(|(bank, index, digest)| [&[bank_number(bank), index.get()], digest.as_bytes()].concat());
    form.list(values.collect::<Vec<_>>());
    if measure_log.is_some() || banks.is_some() {
        form.field(measure_log.as_deref().unwrap_or_default());
    }
    if let Some(BankStatement { nonce, capability, message, signature }) = banks {
        [nonce, capability, message, signature].into_iter().for_each(|field| form.field(field));
    }
    form.0
}

pub(crate) fn read_quote(form: &Bytes) -> Option<KeptQuote> {
    let mut reader = match form.first()? {
        &VERSION => Reader(form.slice(1..)),
        _ => {
            return first::quote(form).map(|quote| KeptQuote { quote, measure_log: None, banks: None });
        }
    };
    let (message, signature) = (reader.field()?, reader.field()?);
    let mut pcrs = PcrValues::new();
    for value in reader.list()? {
        let (&[bank, index], digest) = value.split_first_chunk::<2>()?;
        let bank = HashAlgorithm::ALL.into_iter().find(|known| bank_number(*known) == bank)?;
        insert(&mut pcrs, bank, index.into(), digest)?;
    }
    // What was kept before such logs were told ends here, and what was before banks were asked for after them.
    let measure_log = if reader.0.is_empty() { None } else { Some(reader.field()?) };
    let banks = if reader.0.is_empty() { None } else { Some(reader.banks()?) };
    reader.end()?;
    let measure_log = measure_log.filter(|log| !log.is_empty());
    Some(KeptQuote { quote: Quote { message, signature, pcrs }, measure_log, banks })
}

pub(crate) fn write_identity(shown: &DeviceIdentity) -> Vec<u8> {
    let mut form = Writer::new();
    form.field(&shown.ek_public);
    form.field(&shown.ek_certificate);
    form.list(&shown.ek_intermediates);
    for field in [&shown.iak_public, &shown.iak_certificate, &shown.idevid_public, &shown.idevid_certificate]
    {
        form.field(field);
    }
    form.list(&shown.idevid_intermediates);
    form.0
}

pub(crate) fn read_identity(form: &Bytes) -> Option<DeviceIdentity> {
    let mut reader = match form.first()? {
        &VERSION => Reader(form.slice(1..)),
        _ => return first::identity(form),
    };
    let shown = DeviceIdentity {
        ek_public: reader.field()?,
        ek_certificate: reader.field()?,
        ek_intermediates: reader.list()?,
        iak_public: reader.field()?,
        iak_certificate: reader.field()?,
        idevid_public: reader.field()?,
        idevid_certificate: reader.field()?,
        idevid_intermediates: reader.list()?,
    };
    reader.end()?;
    Some(shown)
}

pub(crate) fn write_endorsers(files: &EndorserFiles) -> Vec<u8> {
    let mut form = Writer::new();
    for list in [&files.ek_anchors, &files.idevid_anchors, &files.lists] {
        form.list(list);
    }
    form.0
}

pub(crate) fn read_endorsers(form: &[u8]) -> Option<EndorserFiles> {
    let form = Bytes::copy_from_slice(form);
    let mut reader = match form.first() {
        Some(&VERSION) => Reader(form.slice(1..)),
        _ => return first::endorsers(&form),
    };
    let mut files = || Some(reader.list()?.into_iter().map(Vec::from).collect());
    let files = EndorserFiles { ek_anchors: files()?, idevid_anchors: files()?, lists: files()? };
    reader.end()?;
    Some(files)
}

struct Writer(Vec<u8>);

impl Writer {
    fn new() -> Writer {
        Writer(vec![VERSION])
    }

    fn number(&mut self, number: usize) {
        // Fields come out of messages and files whose sizes are bounded far below.
        self.0.extend(u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
    }

    fn field(&mut self, field: &[u8]) {
        self.number(field.len());
        self.0.extend_from_slice(field);
    }

    fn list(&mut self, list: impl IntoIterator<Item = impl AsRef<[u8]>, IntoIter: ExactSizeIterator>) {
        let list = list.into_iter();
        self.number(list.len());
        list.for_each(|field| self.field(field.as_ref()));
    }
}

struct Reader(Bytes);

impl Reader {
    fn take(&mut self, bytes: usize) -> Option<Bytes> {
        (bytes <= self.0.len()).then(|| self.0.split_to(bytes))
    }

    fn number(&mut self) -> Option<usize> {
        let number = self.take(4)?;
        usize::try_from(u32::from_be_bytes(number.as_ref().try_into().ok()?)).ok()
    }

    fn field(&mut self) -> Option<Bytes> {
        let length = self.number()?;
        self.take(length)
    }

    fn list(&mut self) -> Option<Vec<Bytes>> {
        // Each field takes four bytes at least, so that a count says no more than the bytes do.
        let count = self.number()?;
        (0..count).map(|_| self.field()).collect()
    }

    fn banks(&mut self) -> Option<BankStatement> {
        let mut field = || self.field();
        Some(BankStatement { nonce: field()?, capability: field()?, message: field()?, signature: field()? })
    }

    fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

fn insert(pcrs: &mut PcrValues, bank: HashAlgorithm, index: u32, digest: &[u8]) -> Option<()> {
    pcrs.insert(PcrIndex::new(index)?, Digest::new(bank, digest)?).is_none().then_some(())
}

/// TCG Algorithm Registry, TPM_ALG_ID, in one byte.
fn bank_number(bank: HashAlgorithm) -> u8 {
    match bank {
        HashAlgorithm::Sha1 => 0x04,
        HashAlgorithm::Sha256 => 0x0b,
        HashAlgorithm::Sha384 => 0x0c,
        HashAlgorithm::Sha512 => 0x0d,
    }
}

/// No protobuf message begins with it: there is no field 0.
const VERSION: u8 = 2;

/// The first version: messages of the edge protocol.
mod first {
    use super::*;

    /// A field of a message: its number, and its bytes or its value.
    enum Field {
        Bytes(u32, Bytes),
        Number(u32, u64),
    }

    pub(super) fn quote(message: &Bytes) -> Option<Quote> {
        let mut quote = Quote::default();
        for field in fields(message.clone())? {
            match field {
                Field::Bytes(1, bytes) => quote.message = bytes,
                Field::Bytes(2, bytes) => quote.signature = bytes,
                Field::Bytes(3, bytes) => pcr_value(&mut quote.pcrs, bytes)?,
                _ => {}
            }
        }
        Some(quote)
    }

    fn pcr_value(pcrs: &mut PcrValues, message: Bytes) -> Option<()> {
        let (mut bank, mut index, mut digest) = (Bytes::new(), 0, Bytes::new());
        for field in fields(message)? {
            match field {
                Field::Bytes(1, bytes) => bank = bytes,
                Field::Number(2, number) => index = number,
                Field::Bytes(3, bytes) => digest = bytes,
                _ => {}
            }
        }
        let bank = HashAlgorithm::from_name(std::str::from_utf8(&bank).ok()?)?;
        insert(pcrs, bank, u32::try_from(index).ok()?, &digest)
    }

    pub(super) fn identity(message: &Bytes) -> Option<DeviceIdentity> {
        let mut shown = DeviceIdentity::default();
        for field in fields(message.clone())? {
            match field {
                Field::Bytes(1, bytes) => shown.ek_public = bytes,
                Field::Bytes(2, bytes) => shown.ek_certificate = bytes,
                Field::Bytes(3, bytes) => shown.ek_intermediates.push(bytes),
                Field::Bytes(8, bytes) => shown.iak_public = bytes,
                Field::Bytes(9, bytes) => shown.iak_certificate = bytes,
                Field::Bytes(10, bytes) => shown.idevid_public = bytes,
                Field::Bytes(11, bytes) => shown.idevid_certificate = bytes,
                Field::Bytes(12, bytes) => shown.idevid_intermediates.push(bytes),
                _ => {}
            }
        }
        Some(shown)
    }

    pub(super) fn endorsers(message: &Bytes) -> Option<EndorserFiles> {
        let mut files = EndorserFiles::default();
        for field in fields(message.clone())? {
            match field {
                Field::Bytes(1, bytes) => files.ek_anchors.push(bytes.into()),
                Field::Bytes(2, bytes) => files.idevid_anchors.push(bytes.into()),
                Field::Bytes(3, bytes) => files.lists.push(bytes.into()),
                _ => {}
            }
        }
        Some(files)
    }

    /// Protocol Buffers, Encoding: a tag of number and wire type, then a varint or a length and bytes.
    fn fields(mut message: Bytes) -> Option<Vec<Field>> {
        let mut fields = Vec::new();
        while !message.is_empty() {
            let tag = varint(&mut message)?;
            let number = u32::try_from(tag >> 3).ok()?;
            let value = varint(&mut message)?;
            match tag & 7 {
                0 => fields.push(Field::Number(number, value)),
                2 => {
                    let length = usize::try_from(value).ok().filter(|length| *length <= message.len())?;
                    fields.push(Field::Bytes(number, message.split_to(length)));
                }
                _ => return None,
            }
        }
        Some(fields)
    }

    fn varint(message: &mut Bytes) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = message.first().copied()?;
            *message = message.slice(1..);
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use assay_wire::edge;
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn quote(message: Vec<u8>, digests: &[[u8; 32]]) -> Quote {
        let values = digests.iter().zip(0..).map(|(digest, index)| {
            (PcrIndex::new(index).unwrap(), Digest::new(HashAlgorithm::Sha256, digest).unwrap())
        });
        Quote { signature: message.clone().into(), message: message.into(), pcrs: values.collect() }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            message in any::<Vec<u8>>(), log_bytes in any::<Vec<u8>>(), digests in prop::collection::vec(any::<[u8; 32]>(), 0..24),
        ) {
            let quote = quote(message, &digests);
            let log = Some(Bytes::from(log_bytes.clone())).filter(|log| !log.is_empty());
            let stated = BankStatement {
                nonce: log_bytes.clone().into(),
                capability: quote.message.clone(),
                message: log_bytes.into(),
                signature: quote.signature.clone(),
            };
            for (measure_log, banks) in [(None, None), (log.clone(), None), (None, Some(stated.clone())), (log, Some(stated))] {
                let kept = KeptQuote { quote: quote.clone(), measure_log, banks };
                let KeptQuote { quote, measure_log, banks } = kept.clone();
                let form = write_quote(&Evidence { quote, measure_log, banks, ..Evidence::default() }).into();
                prop_assert_eq!(read_quote(&form), Some(kept));
            }
            let first = edge::Quote {
                message: quote.message.clone(),
                signature: quote.signature.clone(),
                pcrs: assay_wire::pcr::values_to_wire(&quote.pcrs),
            };
            prop_assume!(!quote.message.is_empty());
            prop_assert_eq!(read_quote(&first.encode_to_vec().into()).map(|kept| kept.quote), Some(quote));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in any::<Vec<u8>>()) {
            read_endorsers(&bytes);
            read_quote(&bytes.clone().into());
            read_identity(&bytes.into());
        }

        #[test]
        fn identities_of_both_versions_read_alike(fields in prop::collection::vec(any::<[u8; 9]>(), 9)) {
            let field = |number: usize| Bytes::copy_from_slice(&fields[number]);
            let shown = DeviceIdentity {
                ek_public: field(0),
                ek_certificate: field(1),
                ek_intermediates: vec![field(2), field(3)],
                iak_public: field(4),
                iak_certificate: field(5),
                idevid_public: field(6),
                idevid_certificate: field(7),
                idevid_intermediates: vec![field(8)],
            };
            prop_assert_eq!(read_identity(&write_identity(&shown).into()), Some(shown.clone()));
            let first = edge::EnrollBegin {
                ek_public: field(0),
                ek_certificate: field(1),
                ek_intermediates: vec![field(2), field(3)],
                iak_public: field(4),
                iak_certificate: field(5),
                idevid_public: field(6),
                idevid_certificate: field(7),
                idevid_intermediates: vec![field(8)],
                ..edge::EnrollBegin::default()
            };
            prop_assert_eq!(read_identity(&first.encode_to_vec().into()), Some(shown));
        }
    }

    #[test]
    fn a_form_ends_where_it_says() {
        let files = EndorserFiles { lists: vec![vec![7; 3]], ..EndorserFiles::default() };
        let form = write_endorsers(&files);
        assert_eq!(read_endorsers(&form), Some(files));
        assert!(read_endorsers(&form[..form.len() - 1]).is_none());
        assert!(read_endorsers(&[&form[..], &[0]].concat()).is_none());
    }
}
