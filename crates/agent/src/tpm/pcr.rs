//! Reading PCRs and quoting them.

use assay_evidence::digest::{Digest, HashAlgorithm, PcrIndex};
use assay_evidence::tpm::pcr::{PcrSelection, PcrValues};
use assay_evidence::tpm::quote::Quoted;
use tpm2_protocol::basic::TpmHandle;
use tpm2_protocol::data::{
    Tpm2bData, TpmAlgId, TpmlPcrSelection, TpmsPcrSelect, TpmsPcrSelection, TpmtSigScheme,
};
use tpm2_protocol::frame::{TpmPcrReadCommand, TpmQuoteCommand};

use super::command::{argument, empty_password};
use super::keys::Key;
use super::{Tpm, TpmError};

/// A quote with the values that it is over.
#[derive(Clone, Debug)]
pub struct Quote {
    /// TPMS_ATTEST as signed.
    pub message: Vec<u8>,
    /// TPMT_SIGNATURE.
    pub signature: Vec<u8>,
    /// The values of the PCRs when they were quoted.
    pub values: PcrValues,
}

impl Tpm {
    /// Reads the selected PCRs; the TPM returns eight at a time.
    pub fn read_pcrs(&self, selection: &PcrSelection) -> Result<PcrValues, TpmError> {
        let mut values = PcrValues::new();
        for (bank, indexes) in selection.banks() {
            let indexes: Vec<PcrIndex> = indexes.iter().collect();
            for chunk in indexes.chunks(PCRS_PER_READ) {
                self.read_chunk(bank, chunk, &mut values)?;
            }
        }
        Ok(values)
    }

    fn read_chunk(
        &self,
        bank: HashAlgorithm,
        indexes: &[PcrIndex],
        values: &mut PcrValues,
    ) -> Result<(), TpmError> {
        let chunk = [(bank, indexes.iter().copied().collect())].into_iter().collect();
        let command = TpmPcrReadCommand { handles: [], pcr_selection_in: encode_selection(&chunk)? };
        let response = self.run("PCR_Read", &command, &[], 0)?;
        let digests = response.read(|reader| {
            reader.u32_be()?;
            for _ in 0..reader.u32_be()?.min(SELECTIONS_MAX) {
                reader.u16_be()?;
                let size = reader.u8()?;
                reader.bytes(usize::from(size))?;
            }
            let count = reader.u32_be()?.min(DIGESTS_MAX);
            (0..count).map(|_| Ok(reader.tpm2b()?.to_vec())).collect::<Result<Vec<_>, _>>()
        })?;
        // A bank that is switched off answers with an empty list, not with an error.
        if digests.len() != indexes.len() {
            return Err(TpmError::NoBank { bank });
        }
        for (index, digest) in indexes.iter().zip(&digests) {
            let digest = Digest::new(bank, digest).ok_or(TpmError::NoBank { bank })?;
            values.insert(*index, digest);
        }
        Ok(())
    }

    /// Quotes the selected PCRs with `ak` over `nonce`, together with the values the quote is over.
    ///
    /// They are read after the quote, and the quote says whether they are those. A PCR may have been extended in between:
    /// then `earlier` is asked for what they were, and where it does not know, both are done again.
    pub fn quote(
        &self,
        ak: &Key,
        nonce: &[u8],
        selection: &PcrSelection,
        mut earlier: impl FnMut(&Quoted, &PcrValues) -> Option<PcrValues>,
    ) -> Result<Quote, TpmError> {
        for _ in 0..QUOTE_TRIES {
            let (message, signature) = self.sign_quote(ak, nonce, selection)?;
            let read = self.read_pcrs(selection)?;
            let Some(quoted) = Quoted::parse(&message, &signature) else { continue };
            let found = if quoted.is_over(&read) { Some(read) } else { earlier(&quoted, &read) };
            if let Some(values) = found.filter(|values| quoted.is_over(values)) {
                return Ok(Quote { message, signature, values });
            }
        }
        Err(TpmError::PcrsChanging { tries: QUOTE_TRIES })
    }

    fn sign_quote(
        &self,
        ak: &Key,
        nonce: &[u8],
        selection: &PcrSelection,
    ) -> Result<(Vec<u8>, Vec<u8>), TpmError> {
        let command = TpmQuoteCommand {
            handles: [TpmHandle::new(ak.handle())],
            qualifying_data: Tpm2bData::try_from(nonce).map_err(argument("Quote"))?,
            in_scheme: TpmtSigScheme::default(),
            pcr_select: encode_selection(selection)?,
        };
        self.run("Quote", &command, &[empty_password()], 0)?
            .read(|reader| Ok((reader.tpm2b()?.to_vec(), reader.rest().to_vec())))
    }
}

pub(super) fn encode_selection(selection: &PcrSelection) -> Result<TpmlPcrSelection, TpmError> {
    let refused = argument("PCR selection");
    let mut list = TpmlPcrSelection::new();
    for (bank, indexes) in selection.banks() {
        let mut bits = [0u8; PCR_SELECT_BYTES];
        for index in indexes.iter() {
            if let Some(byte) = bits.get_mut(usize::from(index.get() / 8)) {
                *byte |= 1 << (index.get() % 8);
            }
        }
        let hash = TpmAlgId::try_from(bank.tpm_id()).map_err(&refused)?;
        let pcr_select = TpmsPcrSelect::try_from(bits.as_slice()).map_err(&refused)?;
        list.try_push(TpmsPcrSelection { hash, pcr_select }).map_err(&refused)?;
    }
    Ok(list)
}

/// 24 PCRs.
const PCR_SELECT_BYTES: usize = 3;
/// TPML_DIGEST holds eight.
const PCRS_PER_READ: usize = 8;
const DIGESTS_MAX: u32 = 8;
/// Banks a response may name; TPMs have five at most.
const SELECTIONS_MAX: u32 = 16;
/// What is measured meanwhile the list tells; other PCRs are extended now and then.
const QUOTE_TRIES: u32 = 8;
