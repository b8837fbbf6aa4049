//! Both databases are one: the same schema, and the same tests of the store. And what PostgreSQL alone can do to us.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use assay_testkit::postgres::{Cluster, TEST_DATABASE};
use tokio::time::{sleep, timeout};

use super::{Connection, Database, query_of};
use crate::config::Place;
use crate::ledger;
use crate::outcome::{Kind, Outcome};
use crate::store::tests::{Failing, NOW, appraise, enroll, svid, trust};
use crate::store::{RenewTrust, Store, StoreError};

/// Says where PostgreSQL is missing, which nothing may pass over where all of it has to be tested.
fn is_here() -> bool {
    if Cluster::is_installed() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "PostgreSQL is not installed: scripts/setup installs it");
    eprintln!("PostgreSQL is not installed, so this was not tested: scripts/setup installs it");
    false
}

fn at(url: &str) -> Database {
    Database::Postgres(Box::new(url.parse().unwrap()))
}

#[test]
fn everything_about_the_store_holds_on_postgresql_as_well() {
    if !is_here() || std::env::var_os(TEST_DATABASE).is_some() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let noted = folder.path().join("statements");
    let mut all = Command::new(std::env::current_exe().unwrap());
    let tests = ["store::", "in_force::policies::", "--skip", "store::sql::tests::"];
    let output = all.args(tests).env(TEST_DATABASE, "postgres").env(NOTED, &noted).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(" 0 passed"), "{said}");
    let noted = std::fs::read_to_string(&noted).unwrap();
    no_statement_is_without_an_index(&noted.lines().collect());
}

/// Where statements are noted that run on PostgreSQL, one a line.
const NOTED: &str = "ASSAY_TEST_STATEMENTS";

pub(super) fn note(statement: &str) {
    let Some(file) = std::env::var_os(NOTED) else { return };
    let line = statement.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    let mut file = std::fs::File::options().create(true).append(true).open(file).unwrap();
    file.write_all(line.as_bytes()).unwrap();
}

/// Reads the plan of each statement that the tests ran, for whatever it is given: where a table is read through though that is made
/// dear, no index would help, and there has to be a reason.
fn no_statement_is_without_an_index(statements: &BTreeSet<&str>) {
    assert!(statements.len() > 100, "{}", statements.len());
    let cluster = Cluster::start().unwrap();
    let url = cluster.database().unwrap();
    let schema = include_str!("../../../../../migrations/postgres/0001_schema.sql");
    cluster.sql(Cluster::name_of(&url), schema).unwrap();
    let mut found = Vec::new();
    for statement in statements {
        let parameters = (1..100).take_while(|number| statement.contains(&format!("${number}"))).count();
        let given = vec!["NULL"; parameters].join(", ");
        let given = if given.is_empty() { given } else { format!("({given})") };
        let sql = format!(
            "SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan;
             PREPARE it AS {statement}; EXPLAIN EXECUTE it{given}"
        );
        let plan = cluster.sql(Cluster::name_of(&url), &sql).unwrap();
        let scanned = plan.lines().filter(|step| step.contains("Seq Scan on "));
        if !READ_THROUGH.iter().any(|(of, _)| statement.contains(of)) {
            found.extend(scanned.map(|step| format!("{}: {statement}", step.trim())));
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// What a statement says that may read a table through, and why it may.
const READ_THROUGH: [(&str, &str); 11] = [
    (" AS n FROM ", "of a test"),
    ("2 * (SELECT COUNT(*) FROM boots)", "of a test"),
    ("SET name = 'broken'", "of a test"),
    ("FROM entries ORDER BY created_at, id", "all of them are asked for"),
    ("FROM policies WHERE name = $1", "an operator set each"),
    ("FROM plan LEFT JOIN assignments", "all of them are asked for"),
    ("FROM ledger_heads ORDER BY leaves", "all of them are asked for, by whoever verifies the ledger"),
    ("FROM ledger_checkpoints ORDER BY leaves", "all of them are asked for, by whoever verifies the ledger"),
    ("SELECT MAX(leaf) FROM svids", "of whoever verifies the ledger, who reads all of it"),
    ("FROM device_usage", "what all devices take together: a short row of each, now and then"),
    ("FROM telemetry_refusals WHERE $1 = ''", "an operator's list of the last few of each device"),
];

/// Tables with their columns: name, type, whether it may be missing, and its place in the primary key.
type Schema = BTreeMap<String, Vec<(String, String, bool, i64)>>;

async fn schema(connection: &mut Connection) -> Schema {
    let rows = query_of(
        "SELECT tables.name AS table_name, columns.name AS column_name, LOWER(columns.type) AS type,
             columns.\"notnull\" = 0 AS is_optional, CAST(columns.pk AS BIGINT) AS pk
         FROM sqlite_master AS tables, pragma_table_info(tables.name) AS columns
         WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite%' ORDER BY 1, 2",
        "SELECT CAST(columns.table_name AS TEXT) AS table_name, CAST(columns.column_name AS TEXT) AS column_name,
             CAST(columns.data_type AS TEXT) AS type, is_nullable = 'YES' AS is_optional, COALESCE((
                 SELECT CAST(keys.ordinal_position AS BIGINT)
                 FROM information_schema.key_column_usage AS keys JOIN information_schema.table_constraints AS held
                     ON held.constraint_name = keys.constraint_name AND held.constraint_type = 'PRIMARY KEY'
                 WHERE keys.table_name = columns.table_name AND keys.column_name = columns.column_name), 0) AS pk
         FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY 1, 2",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    let mut schema = Schema::new();
    for row in &rows {
        let table: String = row.try_get("table_name").unwrap();
        if table == "_sqlx_migrations" {
            continue;
        }
        let (name, kind): (String, String) =
            (row.try_get("column_name").unwrap(), row.try_get("type").unwrap());
        // What each calls the same.
        let kind = match kind.as_str() {
            "blob" | "bytea" => "bytes".to_owned(),
            "integer" | "bigint" => "number".to_owned(),
            _ => kind,
        };
        let column = (name, kind, row.try_get("is_optional").unwrap(), row.try_get("pk").unwrap());
        schema.entry(table).or_default().push(column);
    }
    schema
}

/// Indexes by name with the table that each is of.
async fn indexes(connection: &mut Connection) -> Vec<(String, String)> {
    let rows = query_of(
        "SELECT name, tbl_name AS of_table FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL ORDER BY name",
        "SELECT CAST(indexname AS TEXT) COLLATE \"C\" AS name, CAST(tablename AS TEXT) AS of_table FROM pg_indexes
         WHERE schemaname = current_schema() AND indexname NOT LIKE '%_pkey' AND indexname NOT LIKE '%_key'
         ORDER BY 1",
    )
    .fetch_all(connection)
    .await
    .unwrap();
    rows.iter().map(|row| (row.try_get("name").unwrap(), row.try_get("of_table").unwrap())).collect()
}

#[tokio::test]
async fn both_schemas_are_equal_table_by_table_and_column_by_column() {
    if !is_here() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start().unwrap();
    let mut sqlite = Database::File(folder.path().join("assay.db")).open().await.unwrap();
    let mut postgres = at(&cluster.database().unwrap()).open().await.unwrap();
    let (ours, theirs) = (schema(&mut sqlite).await, schema(&mut postgres).await);
    assert!(ours.len() > 40);
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (table, columns) in &ours {
        assert_eq!(columns, &theirs[table], "{table}");
    }
    assert_eq!(indexes(&mut sqlite).await, indexes(&mut postgres).await);
    postgres.close().await.unwrap();
}

#[tokio::test]
async fn a_second_server_is_refused_and_a_first_that_ended_is_followed() {
    if !is_here() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let database = at(&cluster.database().unwrap());
    let store = Store::open(&database).await.unwrap();
    let error = Store::open(&database).await.unwrap_err();
    assert!(matches!(error, StoreError::Taken { .. }), "{error}");
    assert!(error.to_string().contains("another server writes this database"), "{error}");
    store.commit(enroll(None, "enrolled", 0)).await.unwrap();
    store.close().await;
    Store::open(&database).await.unwrap().close().await;
}

#[tokio::test]
async fn a_database_that_goes_and_comes_back_costs_what_was_not_answered_and_nothing_else() {
    if !is_here() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let url = cluster.database().unwrap();
    let (database, folder) = (at(&url), tempfile::tempdir().unwrap());
    let store = Store::open(&database).await.unwrap();
    store.commit(enroll(None, "enrolled", 0)).await.unwrap();
    // While nobody writes: the next who does is not refused.
    cluster.kill().unwrap();
    cluster.launch().unwrap();
    store.commit(appraise(0, trust("trusted", 1), false)).await.unwrap();
    // While it is away: whoever writes is told so, and waits for nothing.
    cluster.kill().unwrap();
    for serial in ["01", "02"] {
        let refused = timeout(Duration::from_secs(5), store.commit(svid(serial, 1, None))).await.unwrap();
        let error = refused.unwrap_err();
        assert!(matches!(error, StoreError::Unreachable(_)), "{error}");
        assert_eq!(error.told(), (Kind::Unavailable, "database"));
    }
    cluster.launch().unwrap();
    let mut tries = 0;
    while let Err(error) = store.commit(svid("03", 1, None)).await {
        assert!(matches!(error, StoreError::Unreachable(_)) && tries < 100, "{error}");
        tries += 1;
        sleep(Duration::from_millis(100)).await;
    }
    let Database::Postgres(url) = &database else { unreachable!("it was made so") };
    let place = Place { data: folder.path(), database: Some(url) };
    assert_eq!(ledger::verify(place, None, None).await.unwrap().leaves, 3);
    store.close().await;
}

#[tokio::test]
async fn a_writer_whose_session_was_ended_takes_the_lock_again_or_writes_nothing() {
    if !is_here() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let url = cluster.database().unwrap();
    let database = at(&url);
    let store = Store::open(&database).await.unwrap();
    store.commit(enroll(None, "enrolled", 0)).await.unwrap();
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'";
    cluster.sql("postgres", end).unwrap();
    // Another is faster.
    let other = Store::open(&database).await.unwrap();
    let refused = store.commit(appraise(0, trust("trusted", 1), false)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Taken { .. }), "{refused}");
    other.commit(appraise(0, trust("trusted", 1), false)).await.unwrap();
    other.close().await;
    // Now it goes on where the other stopped, though it knew of nothing of that.
    let mut tries = 0;
    while let Err(error) = store.commit(svid("01", 1, None)).await {
        assert!(matches!(error, StoreError::Taken { .. }) && tries < 100, "{error}");
        tries += 1;
        sleep(Duration::from_millis(100)).await;
    }
    let leaves = store.audit_leaves(0, 10).await.unwrap();
    assert_eq!(leaves.iter().map(|leaf| leaf.index).collect::<Vec<_>>(), [0, 1, 2]);
    store.close().await;
}

#[tokio::test]
async fn what_the_database_refuses_is_told_by_what_is_to_be_done() {
    if !is_here() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let url = cluster.database().unwrap();
    let store = Store::open(&at(&url)).await.unwrap();
    store.commit(enroll(None, "enrolled", 0)).await.unwrap();
    let raises = |code: &str| {
        let sql = format!(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS
                 $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{code}'; END $$;
             CREATE OR REPLACE TRIGGER refuse BEFORE INSERT ON svids EXECUTE FUNCTION refuse()"
        );
        cluster.sql(Cluster::name_of(&url), &sql).unwrap();
    };
    store.commit(appraise(0, trust("trusted", 1), false)).await.unwrap();
    // A neighbour in the same batch is not disturbed by a statement that failed.
    raises("23514");
    let (failed, fine) = tokio::join!(
        store.commit(svid("01", 1, None)),
        store.renew(RenewTrust {
            device_id: crate::store::tests::DEVICE.to_owned(),
            trust: trust("trusted", 1)
        }),
    );
    assert!(matches!(failed, Err(StoreError::Database(_))), "{failed:?}");
    fine.unwrap();
    raises("40001");
    assert!(matches!(store.commit(svid("01", 1, None)).await, Err(StoreError::Conflict)));
    raises("25006");
    assert!(matches!(store.commit(svid("01", 1, None)).await, Err(StoreError::ReadOnly(_))));
    raises("53100");
    let full = store.commit(svid("01", 1, None)).await.unwrap_err();
    assert!(matches!(full, StoreError::NoSpace(_)) && store.is_short(), "{full}");
    assert_eq!(store.audit_leaves(0, 10).await.unwrap().len(), 2);
    cluster.sql(Cluster::name_of(&url), "DROP TRIGGER refuse ON svids").unwrap();
    let mut tries = 0;
    while let Err(error) = store.commit(svid("01", 1, None)).await {
        assert!(matches!(error, StoreError::NoSpace(_)) && tries < 100, "{error}");
        tries += 1;
        sleep(Duration::from_millis(100)).await;
    }
    store.close().await;
}

#[tokio::test]
async fn a_panic_beside_a_transaction_leaves_the_lock_with_us() {
    if !is_here() {
        return;
    }
    let cluster = Cluster::start().unwrap();
    let store = Store::open(&at(&cluster.database().unwrap())).await.unwrap();
    store.commit(enroll(None, "enrolled", 0)).await.unwrap();
    assert!(matches!(store.commit(Failing::<true>).await, Err(StoreError::Interrupted)));
    store.commit(appraise(0, trust("trusted", 1), false)).await.unwrap();
    assert_eq!(store.audit_leaves(0, 10).await.unwrap().last().map(|leaf| leaf.at), Some(NOW));
    store.close().await;
}

/// A cluster that listens with TLS on an address of its own, and what is shown and believed there.
struct Networked {
    cluster: Cluster,
    address: String,
    folder: tempfile::TempDir,
}

impl Networked {
    fn start() -> Networked {
        let address = format!("127.7.{}.{}", std::process::id() >> 8 & 0xff, std::process::id() & 0xff | 1);
        let (cluster, folder) = (Cluster::start().unwrap(), tempfile::tempdir().unwrap());
        let key = || rcgen::KeyPair::generate().unwrap();
        let (ca_key, server_key, client_key) = (key(), key(), key());
        let mut ca = rcgen::CertificateParams::new([]).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let issue = |name: &str, key: &rcgen::KeyPair| {
            let mut of = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
            of.distinguished_name.push(rcgen::DnType::CommonName, name);
            of.signed_by(key, &issuer).unwrap().pem()
        };
        let files = [
            ("ca.pem", ca_pem),
            ("server.pem", issue(&address, &server_key)),
            ("server.key", server_key.serialize_pem()),
            ("client.pem", issue("assay", &client_key)),
            ("client.key", client_key.serialize_pem()),
            ("pass", "*:*:*:people:correct horse\n".to_owned()),
            ("wrong", "*:*:*:people:hidden battery\n".to_owned()),
            ("hba", "local all all trust\nhostssl all assay 127.0.0.0/8 cert\nhostssl all people 127.0.0.0/8 scram-sha-256\n".to_owned()),
        ];
        for (name, text) in files {
            // To the cluster's owner as well as to us.
            for path in [folder.path().join(name), cluster.folder().join(name)] {
                std::fs::write(&path, &text).unwrap();
                std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            }
            let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(cluster.folder()).unwrap());
            std::os::unix::fs::chown(cluster.folder().join(name), Some(owner), None).unwrap();
        }
        let at = |name: &str| cluster.folder().join(name).display().to_string();
        cluster.set("ssl=on");
        cluster.set(&format!("listen_addresses={address}"));
        cluster.set(&format!("ssl_ca_file={}", at("ca.pem")));
        cluster.set(&format!("ssl_cert_file={}", at("server.pem")));
        cluster.set(&format!("ssl_key_file={}", at("server.key")));
        cluster.set(&format!("hba_file={}", at("hba")));
        cluster.kill().unwrap();
        cluster.launch().unwrap();
        Networked { cluster, address, folder }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Opens the database as this user, with these parameters, and says what became of it.
    async fn open(&self, user: &str, host: &str, parameters: &str) -> Result<(), String> {
        let url = format!("postgres://{user}@{host}/tls?{parameters}");
        let opened = at(&url).open_read_only().await;
        opened.map(drop).map_err(|error| format!("{:?}", error))
    }
}

#[tokio::test]
async fn what_goes_over_a_network_goes_to_whom_it_is_for_and_from_whom_it_says() {
    if !is_here() {
        return;
    }
    let networked = Networked::start();
    let made = "CREATE DATABASE tls";
    networked.cluster.sql("postgres", made).unwrap();
    networked.cluster.sql("postgres", "CREATE ROLE people LOGIN PASSWORD 'correct horse'").unwrap();
    let believed = format!("sslrootcert={}", networked.file("ca.pem"));
    let shown = format!("sslcert={}&sslkey={}", networked.file("client.pem"), networked.file("client.key"));
    let with = |name: &str| format!("{believed}&passfile={}", networked.file(name));
    let address = networked.address.clone();
    networked.open("assay", &address, &format!("{believed}&{shown}")).await.unwrap();
    networked.open("people", &address, &with("pass")).await.unwrap();
    // Another who answers; the right one by another name; nobody who asks; somebody with a wrong word; in the clear.
    let other = networked.open("assay", &address, &shown).await.unwrap_err();
    assert!(other.contains("UnknownIssuer"), "{other}");
    let named = networked.open("assay", "127.0.0.1", &format!("{believed}&{shown}")).await.unwrap_err();
    assert!(named.contains("Unreachable"), "nobody listens there: {named}");
    let nobody = networked.open("assay", &address, &believed).await.unwrap_err();
    assert!(nobody.contains("certificate"), "{nobody}");
    let wrong = networked.open("people", &address, &with("wrong")).await.unwrap_err();
    assert!(wrong.contains("28P01") && !wrong.contains("hidden battery"), "{wrong}");
    let clear = networked.open("people", &address, &format!("{}&sslmode=disable", with("pass"))).await;
    assert!(clear.unwrap_err().contains("no encryption"));
}
