//! Evidence in batches: loaded with what its boots have in common, and judged on a thread.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use assay_evidence::boot_log::LOG_BYTES_MAX;
use assay_evidence::ima::LIST_BYTES_MAX;
use assay_evidence::time::UnixTime;
use assay_evidence::tpm::endorsement::Endorsement;
use assay_trust::{AttestationResult, CompiledPolicy, Tier};
use bytes::Bytes;

use crate::archive::{CERTIFICATES_BYTES_MAX, Piece};
use crate::in_force::boot_logs::BootLogs;
use crate::in_force::endorsers::Endorsing;
use crate::store::{BlobHash, PartedList, Place, Store, StoreError, TriedBoot, TriedEvidence};

/// A batch to be judged.
#[derive(Debug)]
pub(super) struct Batch {
    pieces: Vec<Loaded>,
    /// How many there were to look at.
    pub seen: u64,
}

/// A piece of evidence, and its content if that can be read.
#[derive(Debug)]
struct Loaded {
    tried: TriedEvidence,
    piece: Option<Piece>,
}

/// What became of a piece of evidence under the policy.
#[derive(Debug)]
pub(super) struct Tried {
    pub tried: TriedEvidence,
    /// `None`: it cannot be judged again.
    pub result: Option<AttestationResult>,
}

/// Reads one batch after the other.
pub(super) struct Loader<'a> {
    store: &'a Store,
    since: UnixTime,
    after: Place,
    contents: Contents<'a>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(store: &'a Store, since: UnixTime) -> Loader<'a> {
        let contents = Contents { store, known: HashMap::new(), bytes: 0 };
        Loader { store, since, after: Place::default(), contents }
    }

    /// The next batch, if there is one: what is `concerned` of it.
    pub(super) async fn next(
        &mut self,
        concerned: impl Fn(&TriedEvidence) -> bool,
    ) -> Result<Option<Batch>, StoreError> {
        let mut rows = self.store.to_try(self.since, &self.after, PIECES_MAX).await?;
        rows.truncate(within_bytes(&rows));
        let Some(last) = rows.last() else { return Ok(None) };
        let to = (last.record.device_id.clone(), last.record.id);
        let boots = self.store.boots_to_try(self.since, &self.after, &to).await?;
        let boots = boots.into_iter().map(|(id, boot)| (id, SharedBoot::of(boot))).collect::<HashMap<_, _>>();
        self.after = to;
        let (mut pieces, seen) =
            (Vec::with_capacity(rows.len()), u64::try_from(rows.len()).unwrap_or(u64::MAX));
        for tried in rows.into_iter().filter(|row| concerned(row)) {
            let piece = match boots.get(&tried.record.boot) {
                Some(boot) => self.contents.piece(&tried, boot).await,
                None => None,
            };
            pieces.push(Loaded { tried, piece });
        }
        Ok(Some(Batch { pieces, seen }))
    }
}

/// A boot whose content many pieces share.
struct SharedBoot {
    endorsement: Option<Bytes>,
    /// The list, and where its parts end.
    list: Option<(Bytes, PartedList)>,
}

impl SharedBoot {
    fn of(boot: TriedBoot) -> SharedBoot {
        let list = boot.list.map(|mut list| (Bytes::from(list.take_bytes()), list));
        SharedBoot { endorsement: boot.endorsement.map(Bytes::from), list }
    }

    fn list(&self, entries: u64) -> Option<Bytes> {
        if entries == 0 {
            return Some(Bytes::new());
        }
        let (bytes, parts) = self.list.as_ref()?;
        let end = parts.end(entries).ok()?;
        (end <= bytes.len()).then(|| bytes.slice(..end))
    }
}

/// Contents that many boots share: boot logs and trust anchors.
struct Contents<'a> {
    store: &'a Store,
    known: HashMap<BlobHash, Bytes>,
    bytes: usize,
}

impl Contents<'_> {
    async fn piece(&mut self, tried: &TriedEvidence, boot: &SharedBoot) -> Option<Piece> {
        let record = &tried.record;
        let mut list = boot.list(record.judged.ima_shared)?;
        if let Some(rest) = &record.ima_rest {
            list = [list, self.store.blob(rest, LIST_BYTES_MAX).await.ok()?.into()].concat().into();
        }
        let boot_log = match &record.boot_log {
            Some(hash) => self.content(hash, LOG_BYTES_MAX).await?,
            None => Bytes::new(),
        };
        let anchors = self.content(&record.told.anchors, CERTIFICATES_BYTES_MAX).await?;
        Some(Piece::of(record, boot.endorsement.clone()?, anchors, boot_log, list))
    }

    async fn content(&mut self, hash: &BlobHash, bytes_max: usize) -> Option<Bytes> {
        if let Some(content) = self.known.get(hash) {
            return Some(content.clone());
        }
        let content = Bytes::from(self.store.blob(hash, bytes_max).await.ok()?);
        if self.bytes.saturating_add(content.len()) > CONTENTS_BYTES_MAX {
            self.known.clear();
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(content.len());
        self.known.insert(*hash, content.clone());
        Some(content)
    }
}

impl Batch {
    /// Judges every piece under a policy.
    pub(super) fn judge(self, policy: &Arc<CompiledPolicy>, boot_logs: &Arc<BootLogs>) -> Vec<Tried> {
        let mut endorsed = None;
        let judged = self.pieces.into_iter().map(|Loaded { tried, piece }| {
            let result = piece.and_then(|piece| {
                let endorsement = Endorsed::of(&mut endorsed, &tried, &piece);
                judge(&tried, &piece, policy, endorsement, boot_logs)
            });
            Tried { tried, result }
        });
        judged.collect()
    }
}

/// The endorsement of the piece before, as the pieces of a device come one after the other.
struct Endorsed {
    of: (BlobHash, BlobHash),
    at: UnixTime,
    by: Endorsing,
    endorsement: Option<Arc<Endorsement>>,
}

impl Endorsed {
    /// The endorsement of a piece, verified again where it may be another than that of the piece before.
    fn of(last: &mut Option<Endorsed>, tried: &TriedEvidence, piece: &Piece) -> Option<Arc<Endorsement>> {
        let of = (tried.record.told.endorsement, tried.record.told.anchors);
        let known = last.take().filter(|known| known.of == of);
        let known = match known {
            Some(known) if known.holds_at(piece.at) => known,
            known => {
                let by = known.map(|known| known.by).or_else(|| Endorsing::of_kept(&piece.anchors))?;
                let endorsement = piece.endorsement_by(&by).map(Arc::new);
                Endorsed { of, at: piece.at, by, endorsement }
            }
        };
        last.insert(known).endorsement.clone()
    }

    /// Whether it is the same at a later time: certificates expire. That lists grow old is for the policy to see.
    fn holds_at(&self, at: UnixTime) -> bool {
        let until = self.endorsement.as_ref().and_then(|endorsement| endorsement.valid_until());
        until.is_some_and(|until| (self.at..=until).contains(&at))
    }
}

/// Another policy may refuse what was known to be good, so everything is judged. What verified once and does no more
/// is not what was kept.
fn judge(
    tried: &TriedEvidence,
    piece: &Piece,
    policy: &Arc<CompiledPolicy>,
    endorsement: Option<Arc<Endorsement>>,
    boot_logs: &Arc<BootLogs>,
) -> Option<AttestationResult> {
    let verified = tried.record.judged.attested.is_some();
    let judged = piece.judge_whole(Some(policy.clone()), endorsement, boot_logs).ok()?;
    (judged.attested.is_some() || !verified).then_some(judged.result)
}

impl TriedEvidence {
    /// The tier it was given, or that stood.
    pub(super) fn before(&self) -> Tier {
        serde_json::from_value(self.tier.as_str().into()).unwrap_or_default()
    }
}

/// How many of these have lists that are within the bound together; one at least.
fn within_bytes(rows: &[TriedEvidence]) -> usize {
    let (mut bytes, mut seen) = (0_u64, HashSet::new());
    let fit = rows.iter().take_while(|row| {
        if seen.insert(row.record.boot) {
            bytes = bytes.saturating_add(row.record.told.ima_bytes);
        }
        bytes <= LISTS_BYTES_MAX
    });
    fit.count().max(1)
}

/// Pieces in a batch.
const PIECES_MAX: u32 = 256;
/// Bytes of the lists of a batch, unless the first alone has more.
const LISTS_BYTES_MAX: u64 = 4 << 20;
/// Boot logs are few and have some ten kilobytes.
const CONTENTS_BYTES_MAX: usize = 32 << 20;
