//! Where a database of PostgreSQL's is, and how it is reached: `postgres://user@host:port/database?parameter=value&…`, with the
//! parameters of libpq's that mean something here. What is unknown is refused; so is what would send anything in the clear past
//! this machine, and a password, which belongs in a file.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use thiserror::Error;
use url::Url;

use super::passfile;
use crate::store::StoreError;

/// A URL that was read. There is no secret in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl {
    given: String,
    host: Host,
    port: u16,
    user: String,
    database: String,
    tls: Tls,
    root: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    passfile: Option<PathBuf>,
    connect_seconds: u64,
    readers_max: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// A name or an address.
    Named(String),
    /// A folder with a socket.
    Socket(PathBuf),
}

/// How the server is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    /// Not at all: on this machine.
    Off,
    /// By who signed its certificate.
    Authority,
    /// And by the name in it.
    Name,
}

/// Why it is none that can be used.
#[derive(Debug, Error)]
pub enum DatabaseUrlError {
    /// Not a URL, or of something else.
    #[error("a database is given as postgres://USER@HOST:PORT/DATABASE, and with ?host=/FOLDER for a socket")]
    Form,
    /// A password in it.
    #[error(
        "a password in a URL is seen by whoever sees the URL: put it into a file and name that, ?passfile=FILE"
    )]
    Password,
    /// A parameter that does not exist, or not here.
    #[error("{name} is no parameter of a database's URL here")]
    Parameter {
        /// Its name.
        name: String,
    },
    /// A value that it cannot have.
    #[error("{name}: {problem}")]
    Value {
        /// The parameter.
        name: &'static str,
        /// What it has to be.
        problem: &'static str,
    },
    /// A file that it names.
    #[error("{}: cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A secret for everyone.
    #[error("{}: others can read or write it (mode {mode:o}), so it is no secret: chmod 600, and change what is in it", path.display())]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A file of passwords without ours.
    #[error("{}: no line is about this host, port, database and user", path.display())]
    NoPassword {
        /// Which file.
        path: PathBuf,
    },
}

impl DatabaseUrl {
    /// As it was given; there is no secret in it. Relative files are relative to whoever gave it.
    pub fn as_given(&self) -> &str {
        &self.given
    }

    /// The files that it names, to be made absolute.
    pub(crate) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let DatabaseUrl { root, certificate, key, passfile, .. } = self;
        root.iter_mut().chain(certificate).chain(key).chain(passfile)
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_secs(self.connect_seconds)
    }

    pub(super) fn readers_max(&self) -> u32 {
        self.readers_max
    }

    /// As the library wants it, with the secrets as they are now.
    pub(in crate::store::sql) fn options(&self) -> Result<PgConnectOptions, StoreError> {
        self.with_secrets().map_err(|error| StoreError::Url(Arc::new(error)))
    }

    fn with_secrets(&self) -> Result<PgConnectOptions, DatabaseUrlError> {
        let mode = match self.tls {
            Tls::Off => PgSslMode::Disable,
            Tls::Authority => PgSslMode::VerifyCa,
            Tls::Name => PgSslMode::VerifyFull,
        };
        let options = PgConnectOptions::new_without_pgpass()
            .port(self.port)
            .username(&self.user)
            .database(&self.database)
            .application_name("assay")
            .ssl_mode(mode)
            // So that the server of the database notices within half a minute that we are gone, and the lock is free.
            .options([
                ("tcp_keepalives_idle", "10"),
                ("tcp_keepalives_interval", "5"),
                ("tcp_keepalives_count", "4"),
            ]);
        let mut options = match &self.host {
            Host::Named(name) => options.host(name),
            Host::Socket(folder) => options.socket(folder),
        };
        if let Some(root) = &self.root {
            options = options.ssl_root_cert_from_pem(read(root)?);
        }
        if let (Some(certificate), Some(key)) = (&self.certificate, &self.key) {
            options =
                options.ssl_client_cert_from_pem(read(certificate)?).ssl_client_key_from_pem(secret(key)?);
        }
        match &self.passfile {
            Some(path) => Ok(options.password(&self.password(path)?)),
            None => Ok(options),
        }
    }

    fn password(&self, path: &Path) -> Result<String, DatabaseUrlError> {
        let text = String::from_utf8_lossy(&secret(path)?).into_owned();
        let host = match &self.host {
            Host::Named(name) => name.clone(),
            Host::Socket(_) => "localhost".to_owned(),
        };
        let port = self.port.to_string();
        let asked = [&host, &port, &self.database, &self.user].map(String::as_str);
        passfile::password(&text, asked).ok_or_else(|| DatabaseUrlError::NoPassword { path: path.to_owned() })
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), DatabaseUrlError> {
        let file = || Some(PathBuf::from(value));
        match name {
            "host" if value.starts_with('/') => self.host = Host::Socket(value.into()),
            "host" => {
                return Err(DatabaseUrlError::Value { name: "host", problem: "an absolute folder here" });
            }
            "sslmode" => self.tls = tls(value)?,
            "sslrootcert" => self.root = file(),
            "sslcert" => self.certificate = file(),
            "sslkey" => self.key = file(),
            "passfile" => self.passfile = file(),
            "connect_timeout" => self.connect_seconds = number("connect_timeout", value, 1..=60)?,
            "readers_max" => {
                self.readers_max =
                    u32::try_from(number("readers_max", value, 1..=64)?).unwrap_or(READERS_MAX);
            }
            _ => return Err(DatabaseUrlError::Parameter { name: name.to_owned() }),
        }
        Ok(())
    }

    /// Whether nothing of it goes past this machine.
    fn is_here(&self) -> bool {
        match &self.host {
            Host::Socket(_) => true,
            Host::Named(name) => {
                name == "localhost"
                    || name.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
            }
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    fn from_str(text: &str) -> Result<DatabaseUrl, DatabaseUrlError> {
        // What the library says of a URL may repeat it.
        let url = Url::parse(text).map_err(|_| DatabaseUrlError::Form)?;
        if !matches!(url.scheme(), "postgres" | "postgresql") || url.fragment().is_some() {
            return Err(DatabaseUrlError::Form);
        }
        if url.password().is_some() || url.query_pairs().any(|(name, _)| name == "password") {
            return Err(DatabaseUrlError::Password);
        }
        let decoded = |text: &str| decoded(text).ok_or(DatabaseUrlError::Form);
        let mut made = DatabaseUrl {
            given: text.to_owned(),
            host: Host::Named(decoded(url.host_str().unwrap_or("localhost"))?),
            port: url.port().unwrap_or(5432),
            user: decoded(url.username())?,
            database: decoded(url.path().trim_start_matches('/'))?,
            tls: Tls::Name,
            root: None,
            certificate: None,
            key: None,
            passfile: None,
            connect_seconds: CONNECT_SECONDS,
            readers_max: READERS_MAX,
        };
        if made.user.is_empty() || made.database.is_empty() || made.database.contains('/') {
            return Err(DatabaseUrlError::Form);
        }
        for (name, value) in url.query_pairs() {
            made.set(&name, &value)?;
        }
        if made.certificate.is_some() != made.key.is_some() {
            return Err(DatabaseUrlError::Value { name: "sslcert", problem: "and sslkey go together" });
        }
        match (&made.host, made.tls) {
            // A socket has no TLS.
            (Host::Socket(_), _) => made.tls = Tls::Off,
            (Host::Named(_), Tls::Off) if !made.is_here() => {
                let problem = "only on this machine: elsewhere verify-full, or verify-ca";
                return Err(DatabaseUrlError::Value { name: "sslmode=disable", problem });
            }
            _ => {}
        }
        Ok(made)
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = DatabaseUrlError;

    fn try_from(text: String) -> Result<DatabaseUrl, DatabaseUrlError> {
        text.parse()
    }
}

impl fmt::Display for DatabaseUrl {
    /// Without its parameters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DatabaseUrl { user, port, database, .. } = self;
        match &self.host {
            Host::Named(host) => write!(f, "postgres://{user}@{host}:{port}/{database}"),
            Host::Socket(folder) => {
                write!(f, "postgres://{user}@localhost:{port}/{database}?host={}", folder.display())
            }
        }
    }
}

fn tls(value: &str) -> Result<Tls, DatabaseUrlError> {
    match value {
        "verify-full" => Ok(Tls::Name),
        "verify-ca" => Ok(Tls::Authority),
        "disable" => Ok(Tls::Off),
        _ => Err(DatabaseUrlError::Value {
            name: "sslmode",
            problem: "verify-full, verify-ca, or disable on this machine; the others encrypt for whoever answers",
        }),
    }
}

fn number(
    name: &'static str,
    value: &str,
    within: std::ops::RangeInclusive<u64>,
) -> Result<u64, DatabaseUrlError> {
    let number = value.parse().ok().filter(|number| within.contains(number));
    number
        .ok_or(DatabaseUrlError::Value { name, problem: "a number, 1 to 60 seconds or 1 to 64 connections" })
}

/// Without its percent signs.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let (byte, after) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digits = [*high, *low];
                (u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?, after)
            }
            (b'%', _) => return None,
            (byte, after) => (*byte, after),
        };
        bytes.push(byte);
        rest = after;
    }
    String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'))
}

fn read(path: &Path) -> Result<Vec<u8>, DatabaseUrlError> {
    let failed = |source| DatabaseUrlError::File { path: path.to_owned(), source };
    let mut contents = Vec::new();
    File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut contents)).map_err(failed)?;
    Ok(contents)
}

/// Reads what is for its owner alone, and nothing that was not.
fn secret(path: &Path) -> Result<Vec<u8>, DatabaseUrlError> {
    let failed = |source| DatabaseUrlError::File { path: path.to_owned(), source };
    let mode = std::fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(DatabaseUrlError::Open { path: path.to_owned(), mode });
    }
    read(path)
}

/// Connections that read, unless it says otherwise.
const READERS_MAX: u32 = 4;
/// How long a connection may take to be made, or to be free, unless it says otherwise.
const CONNECT_SECONDS: u64 = 5;
/// No key or file of passwords is longer.
const FILE_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<DatabaseUrl, String> {
        text.parse().map_err(|error: DatabaseUrlError| error.to_string())
    }

    #[test]
    fn what_it_says_is_what_it_is() {
        let url = parsed("postgres://assay@db.example:6000/main?sslrootcert=/ca.pem&readers_max=8").unwrap();
        assert_eq!((&url.host, url.port), (&Host::Named("db.example".to_owned()), 6000));
        assert_eq!((url.tls, url.readers_max, url.connect_seconds), (Tls::Name, 8, CONNECT_SECONDS));
        assert_eq!(url.to_string(), "postgres://assay@db.example:6000/main");
        let socket = parsed("postgresql://as%40say@localhost/main?host=/run/postgresql").unwrap();
        assert_eq!((socket.host, socket.tls), (Host::Socket("/run/postgresql".into()), Tls::Off));
        assert_eq!(socket.user, "as@say");
    }

    #[test]
    fn what_would_be_open_to_others_is_refused() {
        for (url, says) in [
            ("postgres://a:hidden@db/x", "passfile"),
            ("postgres://a@db/x?password=hidden", "passfile"),
            ("postgres://a@db/x?sslmode=disable", "only on this machine"),
            ("postgres://a@db/x?sslmode=require", "whoever answers"),
            ("postgres://a@db/x?sslmode=prefer", "whoever answers"),
            ("postgres://a@db/x?sslcert=/c.pem", "sslkey"),
            ("postgres://a@db/x?options=-csearch_path", "no parameter"),
            ("postgres://a@db/x?readers_max=0", "a number"),
            ("mysql://a@db/x", "postgres://"),
            ("postgres://db/x", "postgres://"),
            ("postgres://a@db/", "postgres://"),
            ("/var/lib/assay.db", "postgres://"),
        ] {
            let error = parsed(url).unwrap_err();
            assert!(error.contains(says) && !error.contains("hidden"), "{url}: {error}");
        }
        assert!(parsed("postgres://a@127.0.0.1/x?sslmode=disable").is_ok());
        assert!(parsed("postgres://a@[::1]/x?sslmode=disable").is_ok());
    }

    #[test]
    fn a_file_of_passwords_that_others_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pass");
        std::fs::write(&path, "db:5432:x:a:hidden\n").unwrap();
        let url = parsed(&format!("postgres://a@db/x?passfile={}", path.display())).unwrap();
        let set = |mode| {
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap()
        };
        set(0o640);
        assert!(matches!(url.with_secrets(), Err(DatabaseUrlError::Open { mode: 0o640, .. })));
        set(0o600);
        assert_eq!(url.password(&path).unwrap(), "hidden");
        assert!(url.with_secrets().is_ok());
        let other = parsed(&format!("postgres://b@db/x?passfile={}", path.display())).unwrap();
        assert!(matches!(other.with_secrets(), Err(DatabaseUrlError::NoPassword { .. })));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_given_is_read_or_refused(text in "(postgres://)?[ -~]{0,60}") {
            let _ = parsed(&text);
        }
    }
}
