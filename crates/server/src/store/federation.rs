//! Other trust domains: where their bundles are found, and the bundle of each that counts.

use assay_evidence::time::UnixTime;

use super::entries::{self, FederatedEntries};
use super::sql::{Row, query};
use super::{Said, Store, StoreError, Transaction, Unit, Withdrawn, loaded, stored};
use crate::audit::{Kind, Line};

/// Another trust domain as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignDomainRecord {
    /// Its name.
    pub trust_domain: String,
    /// Where its bundle is fetched; empty: nowhere.
    pub url: String,
    /// Who is to answer there; empty: whoever the web knows by the URL's name.
    pub endpoint_id: String,
    /// Its bundle, a document as the standard has it; empty: there is none yet.
    pub document: String,
    /// The document's own number.
    pub sequence: u64,
    /// When it last became another.
    pub changed_at: UnixTime,
}

/// Makes another trust domain what it is to be.
#[derive(Clone, Debug)]
pub struct PutForeignDomain {
    /// As it was when that was decided; `None`: it must not be there.
    pub from: Option<ForeignDomainRecord>,
    /// As it is to be. One without place and bundle is no more.
    pub to: ForeignDomainRecord,
    /// What happens with that.
    pub kind: Kind,
    /// What becomes of the entries that federate with it.
    pub entries: FederatedEntries,
    /// Whose word it is.
    pub said: Said,
}

/// What came of it.
#[derive(Clone, Debug)]
pub enum PutForeign {
    /// It is so now, and what entries gave that were removed is withdrawn.
    Done(Withdrawn),
    /// So many entries federate with it.
    InUse(u64),
}

impl Transaction for PutForeignDomain {
    type Output = PutForeign;

    async fn apply(self, unit: &mut Unit) -> Result<PutForeign, StoreError> {
        let PutForeignDomain { from, to, kind, entries, said } = self;
        if from.is_none() {
            let row =
                query("SELECT COUNT(*) AS domains FROM foreign_domains").fetch_one(unit.connection()).await?;
            if loaded(row.try_get("domains")?, "count")? >= DOMAINS_MAX {
                return Err(StoreError::Full { noun: "other trust domains", limit: DOMAINS_MAX });
            }
        }
        if entries == FederatedEntries::Refuse {
            let federating = entries::federating(unit, &to.trust_domain).await?.len();
            if federating > 0 {
                return Ok(PutForeign::InUse(u64::try_from(federating).unwrap_or(u64::MAX)));
            }
        }
        write(unit, from.as_ref(), &to).await?;
        unit.audit(Line {
            kind,
            at: said.at,
            actor: said.by.clone(),
            subject: format!("spiffe://{}", to.trust_domain),
            detail: detail(&to),
        })
        .await?;
        let withdrawn = entries::end_federating(unit, &to.trust_domain, entries, &said).await?;
        Ok(PutForeign::Done(withdrawn))
    }
}

async fn write(
    unit: &mut Unit,
    from: Option<&ForeignDomainRecord>,
    to: &ForeignDomainRecord,
) -> Result<(), StoreError> {
    let done = match from {
        None => query(
            "INSERT INTO foreign_domains (trust_domain, url, endpoint_id, document, sequence, changed_at)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (trust_domain) DO NOTHING",
        )
        .bind(&to.trust_domain)
        .bind(&to.url)
        .bind(&to.endpoint_id)
        .bind(&to.document)
        .bind(stored(to.sequence))
        .bind(stored(to.changed_at.0)),
        Some(from) if to.url.is_empty() && to.document.is_empty() => query(
            "DELETE FROM foreign_domains WHERE trust_domain = $1 AND url = $2 AND endpoint_id = $3 AND document = $4",
        )
        .bind(&from.trust_domain)
        .bind(&from.url)
        .bind(&from.endpoint_id)
        .bind(&from.document),
        Some(from) => query(
            "UPDATE foreign_domains SET url = $5, endpoint_id = $6, document = $7, sequence = $8, changed_at = $9
             WHERE trust_domain = $1 AND url = $2 AND endpoint_id = $3 AND document = $4",
        )
        .bind(&from.trust_domain)
        .bind(&from.url)
        .bind(&from.endpoint_id)
        .bind(&from.document)
        .bind(&to.url)
        .bind(&to.endpoint_id)
        .bind(&to.document)
        .bind(stored(to.sequence))
        .bind(stored(to.changed_at.0)),
    };
    let done = done.execute(unit.connection()).await?;
    if done.rows_affected() == 1 { Ok(()) } else { Err(StoreError::Conflict) }
}

/// A bundle is public, and the trail needs to say which one it was.
fn detail(to: &ForeignDomainRecord) -> String {
    let hash = |document: &str| data_encoding::HEXLOWER.encode(&assay_telemetry::sha256(document.as_bytes()));
    serde_json::json!({
        "url": to.url,
        "endpoint_spiffe_id": to.endpoint_id,
        "bundle_sha256": Some(to.document.as_str()).filter(|document| !document.is_empty()).map(hash),
        "sequence": to.sequence,
    })
    .to_string()
}

impl Store {
    /// Every other trust domain, in the order of their names.
    pub async fn foreign_domains(&self) -> Result<Vec<ForeignDomainRecord>, StoreError> {
        let rows =
            query("SELECT * FROM foreign_domains ORDER BY trust_domain").fetch_all(&self.readers).await?;
        rows.iter().map(domain).collect()
    }

    /// The one of this name.
    pub async fn foreign_domain(&self, name: &str) -> Result<Option<ForeignDomainRecord>, StoreError> {
        let row = query("SELECT * FROM foreign_domains WHERE trust_domain = $1")
            .bind(name)
            .fetch_optional(&self.readers)
            .await?;
        row.as_ref().map(domain).transpose()
    }
}

fn domain(row: &Row) -> Result<ForeignDomainRecord, StoreError> {
    Ok(ForeignDomainRecord {
        trust_domain: row.try_get("trust_domain")?,
        url: row.try_get("url")?,
        endpoint_id: row.try_get("endpoint_id")?,
        document: row.try_get("document")?,
        sequence: loaded(row.try_get("sequence")?, "foreign_domains.sequence")?,
        changed_at: UnixTime(loaded(row.try_get("changed_at")?, "foreign_domains.changed_at")?),
    })
}

/// Whom a site federates with, and each is fetched by itself and held in memory.
const DOMAINS_MAX: u64 = 256;
