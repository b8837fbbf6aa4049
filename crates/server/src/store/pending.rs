//! Devices that were never here: they wait for an operator's word in a bounded room, and get nothing.

use assay_evidence::time::UnixTime;

use super::budget::Spending;
use super::sql::{Row, query};
use super::{Store, StoreError, Transaction, Unit, loaded, stored};
use crate::audit::{Kind, Line};

/// A device that was never here, and what it showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingRecord {
    /// Its SPIFFE ID, which its TPM has proven.
    pub id: String,
    /// What it calls itself.
    pub name: String,
    /// Who made its TPM; empty where no certificate says so, as with what follows.
    pub ek_manufacturer: String,
    /// Who signed its EK certificate.
    pub ek_issuer: String,
    /// The certificate's serial number, hex.
    pub ek_serial: String,
    /// The machine's serial number, as its IDevID has it.
    pub serial: String,
    /// The IDevID's subject.
    pub idevid_subject: String,
    /// Where it came from, as its gateway says.
    pub address: String,
    /// When it came first.
    pub first_at: UnixTime,
    /// When it came last.
    pub last_at: UnixTime,
    /// What an operator said of it.
    pub word: Word,
    /// When.
    pub word_at: UnixTime,
    /// Why, where it was denied.
    pub reason: String,
}

/// What an operator said of a device that was never here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// Nothing yet.
    Waiting,
    /// It may enroll.
    Admitted,
    /// It may not.
    Denied,
}

impl Word {
    /// As it is stored and shown.
    pub fn name(self) -> &'static str {
        match self {
            Word::Waiting => "waiting",
            Word::Admitted => "admitted",
            Word::Denied => "denied",
        }
    }

    fn from_name(name: &str) -> Result<Word, StoreError> {
        let words = [Word::Waiting, Word::Admitted, Word::Denied];
        let word = words.into_iter().find(|word| word.name() == name);
        word.ok_or(StoreError::Corrupt { column: "pending.word" })
    }
}

/// Notes that a device waits. What came before stays as it was, but for when it came last and from where.
#[derive(Clone, Debug)]
pub struct NotePending {
    /// What it showed.
    pub pending: PendingRecord,
    /// How many there may be.
    pub devices_max: u64,
}

impl Transaction for NotePending {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let NotePending { pending, devices_max } = self;
        let known = query("UPDATE pending SET last_at = $2, address = $3, name = $4 WHERE id = $1")
            .bind(&pending.id)
            .bind(stored(pending.last_at.0))
            .bind(&pending.address)
            .bind(&pending.name)
            .execute(unit.connection())
            .await?;
        if known.rows_affected() > 0 {
            return Ok(());
        }
        make_room(unit, devices_max).await?;
        query(
            "INSERT INTO pending (id, name, ek_manufacturer, ek_issuer, ek_serial, serial, idevid_subject, address,
                 first_at, last_at, word, word_at, reason)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 0, '')",
        )
        .bind(&pending.id)
        .bind(&pending.name)
        .bind(&pending.ek_manufacturer)
        .bind(&pending.ek_issuer)
        .bind(&pending.ek_serial)
        .bind(&pending.serial)
        .bind(&pending.idevid_subject)
        .bind(&pending.address)
        .bind(stored(pending.first_at.0))
        .bind(stored(pending.last_at.0))
        .bind(Word::Waiting.name())
        .execute(unit.connection())
        .await?;
        // Where many come one after the other, that is all that is kept of some.
        if unit.spend(NEWCOMERS, Spending::Fate, pending.first_at).is_ok() {
            let detail = serde_json::json!({
                "name": pending.name, "ek_manufacturer": pending.ek_manufacturer, "ek_serial": pending.ek_serial,
                "serial": pending.serial, "address": pending.address,
            });
            let (kind, actor) = (Kind::DeviceWaiting, "server".to_owned());
            let line =
                Line { kind, at: pending.first_at, actor, subject: pending.id, detail: detail.to_string() };
            unit.audit(line).await?;
        }
        Ok(())
    }
}

/// Whose share of the trail the arrival of those is that were never here: one of all of them.
const NEWCOMERS: &str = "newcomers";

/// The one that was heard of longest ago makes room: of those that wait, which come again as long as they are there, and
/// then of those that were denied. What was admitted stays.
async fn make_room(unit: &mut Unit, devices_max: u64) -> Result<(), StoreError> {
    let row = query("SELECT COUNT(*) AS pending FROM pending").fetch_one(unit.connection()).await?;
    if loaded(row.try_get("pending")?, "count")? < devices_max {
        return Ok(());
    }
    for word in [Word::Waiting, Word::Denied] {
        let gone = query(
            "DELETE FROM pending WHERE id = (SELECT id FROM pending WHERE word = $1 ORDER BY last_at, id LIMIT 1)",
        )
        .bind(word.name())
        .execute(unit.connection())
        .await?;
        if gone.rows_affected() > 0 {
            return Ok(());
        }
    }
    Err(StoreError::Full { noun: "devices that an operator's word is known of", limit: devices_max })
}

/// Says whether a device that waits may enroll.
#[derive(Clone, Debug)]
pub struct SayOfPending {
    /// Which.
    pub id: String,
    /// Whether it may.
    pub word: Word,
    /// Why not.
    pub reason: String,
    /// When.
    pub at: UnixTime,
    /// Who says so.
    pub by: String,
}

impl Transaction for SayOfPending {
    type Output = ();

    async fn apply(self, unit: &mut Unit) -> Result<(), StoreError> {
        let SayOfPending { id, word, reason, at, by } = self;
        let done = query("UPDATE pending SET word = $2, word_at = $3, reason = $4 WHERE id = $1")
            .bind(&id)
            .bind(word.name())
            .bind(stored(at.0))
            .bind(&reason)
            .execute(unit.connection())
            .await?;
        if done.rows_affected() != 1 {
            return Err(StoreError::Unknown("device that waits for admission"));
        }
        let kind = if word == Word::Admitted { Kind::DeviceAdmitted } else { Kind::DeviceDenied };
        let detail = serde_json::json!({ "reason": reason }).to_string();
        unit.audit(Line { kind, at, actor: by, subject: id, detail }).await?;
        Ok(())
    }
}

/// Takes a device that enrolls out of those that wait. One whose way in is an operator's word has to have it still, and
/// nobody comes in against it.
pub(super) async fn leave(unit: &mut Unit, id: &str, on_word: bool) -> Result<(), StoreError> {
    let gone = query("DELETE FROM pending WHERE id = $1 RETURNING word")
        .bind(id)
        .fetch_optional(unit.connection())
        .await?;
    let word = gone.map(|row| Word::from_name(row.try_get("word")?)).transpose()?;
    match word {
        Some(Word::Admitted) => Ok(()),
        None | Some(Word::Waiting) if !on_word => Ok(()),
        None | Some(Word::Waiting | Word::Denied) => Err(StoreError::Conflict),
    }
}

impl Store {
    /// A device that was never here, if it is known to wait.
    pub async fn pending(&self, id: &str) -> Result<Option<PendingRecord>, StoreError> {
        let row = query("SELECT * FROM pending WHERE id = $1").bind(id).fetch_optional(&self.readers).await?;
        row.as_ref().map(pending).transpose()
    }

    /// How many wait.
    pub async fn waiting(&self) -> Result<u64, StoreError> {
        let row = query("SELECT COUNT(*) AS waiting FROM pending WHERE word = $1")
            .bind(Word::Waiting.name())
            .fetch_one(&self.readers)
            .await?;
        loaded(row.try_get("waiting")?, "count")
    }

    /// All of them, in the order in which they came.
    pub async fn all_pending(&self) -> Result<Vec<PendingRecord>, StoreError> {
        let rows = query("SELECT * FROM pending ORDER BY first_at, id").fetch_all(&self.readers).await?;
        rows.iter().map(pending).collect()
    }
}

fn pending(row: &Row) -> Result<PendingRecord, StoreError> {
    let time =
        |column| -> Result<UnixTime, StoreError> { Ok(UnixTime(loaded(row.try_get(column)?, column)?)) };
    Ok(PendingRecord {
        id: row.try_get("id")?,
        name: row.try_get("name")?,
        ek_manufacturer: row.try_get("ek_manufacturer")?,
        ek_issuer: row.try_get("ek_issuer")?,
        ek_serial: row.try_get("ek_serial")?,
        serial: row.try_get("serial")?,
        idevid_subject: row.try_get("idevid_subject")?,
        address: row.try_get("address")?,
        first_at: time("first_at")?,
        last_at: time("last_at")?,
        word: Word::from_name(row.try_get("word")?)?,
        word_at: time("word_at")?,
        reason: row.try_get("reason")?,
    })
}
