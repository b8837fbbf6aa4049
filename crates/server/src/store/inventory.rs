//! Every certificate that was issued, in the order in which they end: a page costs the same however many there are.

use assay_evidence::time::UnixTime;

use super::sql::{Row, query};
use super::svid::svid;
use super::{Store, StoreError, SvidRecord, loaded, stored};

/// A certificate, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// It.
    pub svid: SvidRecord,
    /// What people call the device that carries it; empty: none does, or none of ours.
    pub device_name: String,
    /// Where the trail has that it was issued.
    pub leaf: u64,
}

/// Which certificates are come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// All.
    End,
    /// Those that were not withdrawn.
    Standing,
    /// Those that were.
    Withdrawal,
    /// Those of a device, by its SPIFFE ID.
    Device(&'a str),
    /// Those that name this SPIFFE ID.
    Name(&'a str),
    /// Those whose serial number begins like this.
    Serial(&'a str),
}

/// A place in the order of their ends, after which to begin: when, and the serial number of one that ends then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfterEnd(pub UnixTime, pub String);

impl Store {
    /// The first certificates after a place that end no later than this.
    pub async fn issued(
        &self,
        by: By<'_>,
        after: &AfterEnd,
        until: UnixTime,
        limit: u32,
    ) -> Result<Vec<Issued>, StoreError> {
        let statement = query(by.statement())
            .bind(stored(after.0.0))
            .bind(after.1.as_str())
            .bind(stored(until.0))
            .bind(i64::from(limit));
        let statement = match by {
            By::End | By::Standing | By::Withdrawal => statement,
            By::Device(one) | By::Name(one) => statement.bind(one),
            By::Serial(beginning) => statement.bind(beginning).bind(format!("{beginning}g")),
        };
        statement.fetch_all(&self.readers).await?.iter().map(issued).collect()
    }
}

impl By<'_> {
    fn statement(self) -> &'static str {
        match self {
            By::End => BY_END,
            By::Standing => BY_STANDING,
            By::Withdrawal => BY_WITHDRAWAL,
            By::Device(_) => BY_DEVICE,
            By::Name(_) => BY_NAME,
            By::Serial(_) => BY_SERIAL,
        }
    }
}

fn issued(row: &Row) -> Result<Issued, StoreError> {
    Ok(Issued {
        svid: svid(row)?,
        device_name: row.try_get("device_name")?,
        leaf: loaded(row.try_get("leaf")?, "svids.leaf")?,
    })
}

macro_rules! in_the_order_of_their_ends {
    ($which:literal) => {
        in_the_order_of_their_ends!("svids", $which)
    };
    ($from:literal, $which:literal) => {
        concat!(
            "SELECT svids.*, COALESCE(devices.name, '') AS device_name
             FROM ",
            $from,
            " LEFT JOIN devices ON devices.id = svids.device_id
             WHERE (svids.not_after, svids.serial) > ($1, $2) AND svids.not_after <= $3",
            $which,
            " ORDER BY svids.not_after, svids.serial LIMIT $4"
        )
    };
}

const BY_END: &str = in_the_order_of_their_ends!("");
const BY_STANDING: &str = in_the_order_of_their_ends!(" AND svids.withdrawn_at = 0");
const BY_WITHDRAWAL: &str = in_the_order_of_their_ends!(" AND svids.withdrawn_at > 0");
const BY_DEVICE: &str = in_the_order_of_their_ends!(" AND svids.device_id = $5");
const BY_NAME: &str = in_the_order_of_their_ends!(" AND svids.spiffe_id = $5");
/// The beginning comes first: one of eight digits has few serial numbers.
const BY_SERIAL: &str = in_the_order_of_their_ends!(
    "(SELECT * FROM svids WHERE serial >= $5 AND serial < $6 ORDER BY serial LIMIT 1000) AS svids",
    ""
);

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::store::Database;

    /// What a page costs is what its rows cost: nothing is read through for it, and sorted is only what one device or name has.
    #[tokio::test]
    async fn pages_are_read_along_an_index() {
        let folder = TempDir::new().unwrap();
        let store = Store::open(&Database::File(folder.path().join(crate::store::FILE_NAME))).await.unwrap();
        for (by, index) in [
            (By::End, "svids_by_end"),
            (By::Standing, "svids_by_end"),
            (By::Withdrawal, "svids_withdrawn"),
            (By::Device(""), "svids_by_device"),
            (By::Name(""), "svids_by_spiffe_id"),
            (By::Serial(""), "autoindex_svids"),
        ] {
            let explain = format!("EXPLAIN QUERY PLAN {}", by.statement());
            let rows = query(Box::leak(explain.into_boxed_str())).fetch_all(&store.readers).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.try_get("detail").unwrap()).collect();
            assert!(plan.iter().any(|step| step.contains(index)), "{by:?}: {plan:?}");
            // The few that begin alike, and no table.
            let is_of_few = |step: &str| matches!(by, By::Serial(_)) && step == "SCAN svids";
            let mut steps = plan.iter();
            assert!(!steps.any(|step| step.starts_with("SCAN") && !is_of_few(step)), "{by:?}: {plan:?}");
            let is_along_ends = matches!(by, By::End | By::Standing | By::Withdrawal);
            assert!(
                !is_along_ends || !plan.iter().any(|step| step.contains("TEMP B-TREE")),
                "{by:?}: {plan:?}"
            );
        }
    }
}
