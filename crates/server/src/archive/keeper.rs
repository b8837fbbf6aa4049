//! What an attester knows to be kept of its device's boot, and what it adds.
//!
//! Of a boot that is kept, a device is asked only for what is new, even when everything has to be judged anew: what
//! was kept is put before it, and the whole replays to the fresh quote or counts for nothing.

use assay_evidence::boot_log::LOG_BYTES_MAX;
use assay_evidence::ima::LIST_BYTES_MAX;
use assay_evidence::request::{Evidence, Quote};
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::attest::{Attest, BootCounters};
use assay_evidence::verify::ImaLog;
use bytes::Bytes;

use super::form::{read_quote, write_identity, write_quote};
use crate::device::Device;
use crate::store::{
    BlobHash, EvidenceColumns, EvidenceRecord, Kept, NewBlob, NewBoot, NewEvidence, NewPart, Store,
    StoreError, ToldBoot, blob_hash,
};

/// An attester's view of what is kept.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    progress: Option<Progress>,
    /// What the evidence kept last said of the TPM.
    seen: Option<BlobHash>,
    /// Whether what is kept may be damaged.
    is_doubtful: bool,
}

/// The boot that is kept, and how far.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    boot: u64,
    /// Evidence of it that verifies by itself.
    evidence: u64,
    /// Attested entries of its list.
    pub entries: u64,
    is_ascii: bool,
    boot_log: Option<BlobHash>,
    /// Its reset and restart counters.
    pub clock: (u32, u32),
    /// The last entries of the list again, which the device sends until they are good: from which on, and their
    /// hash.
    again: Option<(u64, BlobHash)>,
}

/// Evidence that was judged.
#[derive(Debug)]
pub(crate) struct JudgedEvidence {
    /// As it was judged: with what was kept before it.
    pub evidence: Evidence,
    /// Whom the endorsement was verified with.
    pub endorsers: Bytes,
    /// Entries that were known to be good; `None`: nothing was known of the boot.
    pub known_entries: Option<u64>,
    /// How many bytes of the list were kept already.
    pub kept_bytes: Option<usize>,
    pub last_counters: Option<BootCounters>,
    pub policy_revision: u64,
    pub at: UnixTime,
    /// Entries since boot that the quote attests, and those past them; `None`: it did not verify.
    pub attested: Option<(u64, usize)>,
    /// Entries that are known to be good now.
    pub good: u64,
}

/// What to keep of a piece of evidence.
#[derive(Debug)]
pub(crate) struct Draft {
    repairs: bool,
    boot: Option<(u64, u64)>,
    part: Option<(u64, Bytes)>,
    rest: Bytes,
    boot_log: BootLog,
    ak_public: Vec<u8>,
    endorsement: Vec<u8>,
    endorsers: Bytes,
    is_ascii: bool,
    columns: EvidenceColumns,
    clock: (u32, u32),
}

#[derive(Debug)]
enum BootLog {
    None,
    Known(BlobHash),
    Judged(Bytes),
}

impl Keeper {
    /// Looks up what is kept of the device's last boot. That it cannot be read is as good as nothing.
    pub(crate) async fn of(store: &Store, device: &Device, endorsers: &[u8]) -> Keeper {
        let last = match store.last_verified_evidence(device.id.as_str()).await {
            Ok(last) => last,
            Err(error) => {
                tracing::warn!(device = %device.id, %error, "kept evidence cannot be read");
                None
            }
        };
        let seen = last.as_ref().and_then(EvidenceRecord::quote);
        Keeper {
            seen: seen.as_ref().map(fingerprint),
            progress: last.filter(|last| last.is_told_by(device, endorsers)).as_ref().and_then(Progress::of),
            is_doubtful: false,
        }
    }

    /// The boot that is kept, if there is one.
    pub(crate) fn progress(&self) -> Option<&Progress> {
        self.progress.as_ref()
    }

    /// What is kept is of another boot.
    pub(crate) fn forget(&mut self) {
        self.progress = None;
    }

    /// What is kept cannot be read or does not replay: it is kept anew.
    pub(crate) fn doubt(&mut self) {
        self.progress = None;
        self.is_doubtful = true;
    }

    /// Whether evidence that changed nothing is worth keeping: the TPM says something new, or nothing was kept yet.
    pub(crate) fn wants(&self, judged: &JudgedEvidence) -> bool {
        let is_first = self.progress.is_none() && judged.attested.is_some() && judged.known_entries.is_none();
        is_first || self.seen != Some(fingerprint(&judged.evidence.quote))
    }

    /// What to keep; `None`: it cannot be told apart from what is missing.
    pub(crate) fn draft(&self, device: &Device, judged: &JudgedEvidence) -> Option<Draft> {
        let list = &judged.evidence.ima_log;
        let undecided = match judged.attested {
            Some((attested, _)) => list.len().saturating_sub(judged.offset(attested)?),
            None => list.len(),
        };
        // It is the device's word for nothing yet, and may be as long as it likes.
        if undecided > UNDECIDED_BYTES_MAX {
            return None;
        }
        let whole = |shared| Draft::new(self, device, judged, None, shared);
        let Some((attested, _)) = judged.attested else {
            return match judged.known_entries {
                None => Some(whole(0).with_rest(list.clone())),
                Some(_) => {
                    let progress = self.progress.as_ref()?;
                    let draft = Draft::new(self, device, judged, Some(progress), 0).with_rest(list.clone());
                    Some(draft.based_on(progress))
                }
            };
        };
        let end = judged.offset(attested)?;
        let (attested_list, rest) = (list.slice(..end), list.slice(end..));
        match (&self.progress, judged.known_entries, judged.kept_bytes) {
            (Some(progress), None, Some(kept)) if attested >= progress.entries && kept <= end => {
                let draft = Draft::new(self, device, judged, Some(progress), attested).with_rest(rest);
                Some(draft.with_part(progress.entries, attested, list.slice(kept..end)))
            }
            (_, None, _) => Some(whole(attested).with_rest(rest).with_part(0, attested, attested_list)),
            (Some(progress), Some(_), _) => Some(match progress.goes_on(judged, attested) {
                Some(new) => Draft::new(self, device, judged, Some(progress), attested)
                    .with_rest(rest)
                    .with_part(progress.entries, attested, list.slice(new..end)),
                None => {
                    let draft = Draft::new(self, device, judged, Some(progress), 0).with_rest(list.clone());
                    if judged.evidence.ima_from_entry == 0 { draft } else { draft.based_on(progress) }
                }
            }),
            (None, Some(_), _) => None,
        }
    }

    /// Notes where evidence was put; `None`: it was not.
    pub(crate) fn kept(&mut self, draft: &Draft, judged: &JudgedEvidence, kept: Option<Kept>) {
        let Some(kept) = kept else {
            self.progress = None;
            return;
        };
        self.seen = Some(fingerprint(&judged.evidence.quote));
        self.is_doubtful = false;
        if judged.attested.is_none() {
            return;
        }
        let entries = match (&draft.part, draft.boot) {
            (Some((to_entry, _)), _) => *to_entry,
            (None, Some((_, entries))) => entries,
            (None, None) => 0,
        };
        self.progress = Some(Progress {
            boot: kept.boot,
            evidence: draft.columns.basis.unwrap_or(kept.id),
            entries,
            is_ascii: match &self.progress {
                Some(progress) if progress.boot == kept.boot => progress.is_ascii,
                _ => draft.is_ascii,
            },
            boot_log: draft.boot_log.hash(),
            clock: draft.clock,
            again: None,
        });
    }

    /// Notes which entries the device will send again although they are kept.
    pub(crate) fn expect_again(&mut self, judged: &JudgedEvidence) {
        let Some(progress) = &mut self.progress else { return };
        if judged.attested.is_none() || progress.again.is_some_and(|(from, _)| from == judged.good) {
            return;
        }
        progress.again = judged
            .offset(judged.good)
            .zip(judged.offset(progress.entries))
            .and_then(|(from, to)| judged.evidence.ima_log.get(from..to))
            .map(|entries| (judged.good, blob_hash(entries)));
    }
}

impl Progress {
    fn of(last: &EvidenceRecord) -> Option<Progress> {
        let quote = last.quote()?;
        Some(Progress {
            boot: last.boot,
            evidence: last.judged.basis.unwrap_or(last.id),
            entries: last.told.ima_entries,
            is_ascii: last.told.ima_ascii,
            boot_log: last.boot_log,
            clock: clock(&quote)?,
            again: None,
        })
    }

    /// Whether the boot log has to be sent.
    pub(crate) fn boot_log_wanted(&self) -> bool {
        self.boot_log.is_none()
    }

    /// Puts what is kept before what is new; also says how many bytes of the list that is. `None`: they are not of
    /// one form.
    pub(crate) async fn complete(
        &self,
        store: &Store,
        mut evidence: Evidence,
    ) -> Result<Option<(Evidence, Option<usize>)>, StoreError> {
        if let (None, Some(known)) = (&evidence.boot_log, &self.boot_log) {
            evidence.boot_log = Some(store.blob(known, LOG_BYTES_MAX).await?.into());
        }
        if evidence.ima_from_entry != self.entries || self.entries == 0 {
            return Ok(Some((evidence, None)));
        }
        if evidence.ima_log.is_empty() {
            evidence.ima_ascii = self.is_ascii;
        }
        if evidence.ima_ascii != self.is_ascii {
            return Ok(None);
        }
        let mut list = store.ima_list(self.boot, self.entries).await?;
        if list.len().saturating_add(evidence.ima_log.len()) > LIST_BYTES_MAX {
            return Ok(None);
        }
        let kept = list.len();
        list.extend_from_slice(&evidence.ima_log);
        (evidence.ima_log, evidence.ima_from_entry) = (list.into(), 0);
        Ok(Some((evidence, Some(kept))))
    }

    /// Where in the list that was sent the first entry is that is not kept; `None`: the list is not this one's
    /// continuation.
    fn goes_on(&self, judged: &JudgedEvidence, attested: u64) -> Option<usize> {
        let evidence = &judged.evidence;
        let is_form = evidence.ima_log.is_empty() || evidence.ima_ascii == self.is_ascii;
        if !is_form || attested < self.entries || judged.known_entries != Some(evidence.ima_from_entry) {
            return None;
        }
        let kept = judged.offset(self.entries)?;
        let (from, hash) = self.again.unwrap_or((self.entries, blob_hash(&[])));
        let is_same = from == evidence.ima_from_entry && blob_hash(evidence.ima_log.get(..kept)?) == hash;
        is_same.then_some(kept)
    }
}

impl JudgedEvidence {
    /// The attested entries of its list from `entry` on, and how many there are since boot; `None`: it does not have them.
    pub(crate) fn attested_from(&self, entry: u64) -> Option<(Bytes, u64)> {
        let (attested, _) = self.attested?;
        let (from, to) = (self.offset(entry)?, self.offset(attested)?);
        (from <= to).then(|| (self.evidence.ima_log.slice(from..to), attested))
    }

    /// Bytes of its list up to an entry, counted from boot.
    fn offset(&self, entry: u64) -> Option<usize> {
        let list = &self.evidence.ima_log;
        let within = entry.checked_sub(self.evidence.ima_from_entry)?;
        if self.attested == Some((entry, 0)) {
            return Some(list.len());
        }
        let list = if self.evidence.ima_ascii { ImaLog::Ascii(list) } else { ImaLog::Binary(list) };
        list.offset(within)
    }
}

impl Draft {
    fn new(
        keeper: &Keeper,
        device: &Device,
        judged: &JudgedEvidence,
        boot: Option<&Progress>,
        shared: u64,
    ) -> Draft {
        let sent = judged.evidence.boot_log.clone().filter(|log| !log.is_empty());
        let boot_log = match (sent, boot.and_then(|boot| boot.boot_log)) {
            (Some(log), _) => BootLog::Judged(log),
            (None, Some(known)) if judged.known_entries.is_some() => BootLog::Known(known),
            (None, _) => BootLog::None,
        };
        Draft {
            repairs: keeper.is_doubtful,
            boot: boot.map(|boot| (boot.boot, boot.entries)),
            part: None,
            rest: Bytes::new(),
            columns: EvidenceColumns {
                at: judged.at,
                policy_revision: judged.policy_revision,
                last_counters: judged.last_counters,
                nonce: judged.evidence.nonce.to_vec(),
                quote: write_quote(&judged.evidence),
                boot_log_judged: matches!(boot_log, BootLog::Judged(_)),
                known_entries: judged.known_entries,
                ima_from: judged.evidence.ima_from_entry,
                ima_shared: shared,
                ima_ascii: judged.evidence.ima_ascii,
                attested: judged.attested.map(|(entries, _)| entries),
                basis: None,
            },
            boot_log,
            ak_public: device.record.ak_public.clone(),
            endorsement: write_identity(&device.shown()),
            endorsers: judged.endorsers.clone(),
            is_ascii: judged.evidence.ima_ascii,
            clock: clock(&judged.evidence.quote).unwrap_or_default(),
        }
    }

    fn with_rest(self, rest: Bytes) -> Draft {
        Draft { rest, ..self }
    }

    fn with_part(self, from_entry: u64, to_entry: u64, entries: Bytes) -> Draft {
        let entries = match entries.last() {
            // The last line may have come without its newline, and another will follow it.
            Some(last) if self.is_ascii && *last != b'\n' => [&entries, b"\n".as_slice()].concat().into(),
            _ => entries,
        };
        Draft { part: (to_entry > from_entry).then_some((to_entry, entries)), ..self }
    }

    fn based_on(mut self, progress: &Progress) -> Draft {
        self.columns.basis = Some(progress.evidence);
        self
    }

    /// Packs it.
    pub(crate) async fn pack(
        &self,
        store: &Store,
        (bytes_max, device_bytes_max): (u64, u64),
    ) -> Result<NewEvidence, StoreError> {
        let new_blob = |content| store.new_blob(content, self.repairs);
        let boot = match self.boot {
            Some((id, entries)) => ToldBoot::Known { id, entries },
            None => ToldBoot::New(NewBoot {
                ak_public: self.ak_public.clone(),
                endorsement: new_blob(&self.endorsement).await?,
                anchors: new_blob(&self.endorsers).await?,
                ima_ascii: self.is_ascii,
            }),
        };
        let part = match &self.part {
            Some((to_entry, entries)) => {
                Some(NewPart { to_entry: *to_entry, blob: new_blob(entries).await? })
            }
            None => None,
        };
        Ok(NewEvidence {
            boot,
            part,
            boot_log: match &self.boot_log {
                BootLog::None => None,
                BootLog::Known(hash) => Some(NewBlob::known(*hash)),
                BootLog::Judged(log) => Some(new_blob(log).await?),
            },
            ima_rest: if self.rest.is_empty() { None } else { Some(new_blob(&self.rest).await?) },
            judged: self.columns.clone(),
            bytes_max,
            device_bytes_max,
        })
    }
}

impl BootLog {
    fn hash(&self) -> Option<BlobHash> {
        match self {
            BootLog::None => None,
            BootLog::Known(hash) => Some(*hash),
            BootLog::Judged(log) => Some(blob_hash(log)),
        }
    }
}

impl EvidenceRecord {
    /// Whether the device still has the keys it told this with, and the same people are asked about its EK.
    fn is_told_by(&self, device: &Device, endorsers: &[u8]) -> bool {
        self.told.ak_public == device.record.ak_public
            && self.told.endorsement == blob_hash(&write_identity(&device.shown()))
            && self.told.anchors == blob_hash(endorsers)
    }

    /// The quote, if it reads.
    fn quote(&self) -> Option<Quote> {
        read_quote(&Bytes::copy_from_slice(&self.judged.quote)).map(|kept| kept.quote)
    }
}

/// What a quote says of the TPM apart from its clock: the boot, and every PCR. Signature and message are of the moment.
fn fingerprint(quote: &Quote) -> BlobHash {
    let (reset_count, _) = clock(quote).unwrap_or_default();
    let mut said = reset_count.to_be_bytes().to_vec();
    for (bank, index, value) in quote.pcrs.iter() {
        said.extend_from_slice(&bank.tpm_id().to_be_bytes());
        said.push(index.get());
        said.extend_from_slice(value.as_bytes());
    }
    blob_hash(&said)
}

/// The reset and restart counters that a quote states.
pub(crate) fn clock(quote: &Quote) -> Option<(u32, u32)> {
    let clock = Attest::parse(&quote.message).ok()?.clock_info;
    Some((clock.reset_count, clock.restart_count))
}

/// Bytes of a list that no quote attests yet which are kept with what was judged of it: some hundred entries.
const UNDECIDED_BYTES_MAX: usize = 64 << 10;
