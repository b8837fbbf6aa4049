//! How a verb fails: one sentence with its causes, as JSON where the answer would have been JSON, and an exit code that a
//! script can go by. The codes are in `docs/verbs.md`; a verb whose answer may be "no" says that with [`Exit::No`] itself.

use std::io::ErrorKind;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use hyper::StatusCode;
use serde_json::{Value, json};
use thiserror::Error;

/// Why a program ends as it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The answer is no, or what was asked for is refused as things are.
    No = 1,
    /// The command line is of no use, or a file that it names cannot be read.
    Unusable = 2,
    /// There is no such thing.
    NotFound = 3,
    /// Whoever asks may not.
    NotAllowed = 4,
    /// The other side cannot be reached or has no room: later it may work.
    Unavailable = 5,
}

/// What the console refused.
#[derive(Clone, Debug, Error)]
#[error("{message} ({})", status.as_u16())]
pub struct Refused {
    /// HTTP's word for it.
    pub status: StatusCode,
    /// Ours, as in `would-fall`.
    pub code: String,
    /// For people.
    pub message: String,
}

/// The console does not answer.
#[derive(Clone, Debug, Error)]
#[error("console at {address}: {what}")]
pub struct Unreachable {
    /// Where it should be.
    pub address: String,
    /// What happened, or what to look at.
    pub what: &'static str,
}

static AS_JSON: AtomicBool = AtomicBool::new(false);

/// From now on failures are told as JSON.
pub fn tell_as_json() {
    AS_JSON.store(true, Ordering::Relaxed);
}

/// Tells why nothing came of it.
pub fn tell(error: &anyhow::Error) -> ExitCode {
    let (exit, code) = of(error);
    tell_as(error, exit, &code)
}

/// The same of what is of no use, whatever else it is.
pub fn unusable(error: &anyhow::Error) -> ExitCode {
    match of(error) {
        (Exit::No, _) => tell_as(error, Exit::Unusable, "unusable"),
        (exit, code) => tell_as(error, exit, &code),
    }
}

/// Tells what is wrong with the command line, or what was asked to be told of it, and ends.
pub fn usage(error: &clap::Error) -> ! {
    if !error.use_stderr() || !AS_JSON.load(Ordering::Relaxed) {
        error.exit();
    }
    let said = error.to_string();
    let said = said.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    tell_as(&anyhow::Error::msg(said), Exit::Unusable, "usage");
    std::process::exit(Exit::Unusable as i32)
}

fn tell_as(error: &anyhow::Error, exit: Exit, code: &str) -> ExitCode {
    if AS_JSON.load(Ordering::Relaxed) {
        eprintln!("{}", to_json(error, exit, code));
    } else {
        eprintln!("assay: {error:#}");
    }
    ExitCode::from(exit as u8)
}

fn to_json(error: &anyhow::Error, exit: Exit, code: &str) -> Value {
    json!({ "error": { "code": code, "message": format!("{error:#}"), "exit": exit as u8 } })
}

/// What an error comes to, by what caused it.
fn of(error: &anyhow::Error) -> (Exit, String) {
    if let Some(refused) = error.downcast_ref::<Refused>() {
        return (of_status(refused.status), refused.code.clone());
    }
    if error.downcast_ref::<Unreachable>().is_some() {
        return (Exit::Unavailable, "unreachable".to_owned());
    }
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref()).map(std::io::Error::kind);
    let mut kinds = kinds.filter(|kind| UNREADABLE.contains(kind));
    if kinds.next().is_some() {
        (Exit::Unusable, "unusable".to_owned())
    } else {
        (Exit::No, "failed".to_owned())
    }
}

/// A file that was named and is not there, or is none.
const UNREADABLE: [ErrorKind; 4] =
    [ErrorKind::NotFound, ErrorKind::PermissionDenied, ErrorKind::IsADirectory, ErrorKind::NotADirectory];

fn of_status(status: StatusCode) -> Exit {
    match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Exit::Unusable,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NotAllowed,
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Exit::Unavailable,
        status if status.is_server_error() => Exit::Unavailable,
        _ => Exit::No,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, anyhow};

    use super::*;

    #[test]
    fn a_cause_is_found_through_what_is_said_of_it() {
        let refused = Refused { status: StatusCode::NOT_FOUND, code: "unknown".into(), message: "no".into() };
        let error = Err::<(), _>(refused).context("policy.toml").unwrap_err();
        assert_eq!(of(&error), (Exit::NotFound, "unknown".to_owned()));
        let silent = Unreachable { address: "127.0.0.1:1".into(), what: "is the server running?" };
        let error = anyhow!("connection refused").context(silent).context("policy.toml");
        assert_eq!(of(&error).0, Exit::Unavailable);
        let error =
            anyhow::Error::from(std::io::Error::new(ErrorKind::NotFound, "gone")).context("policy.toml");
        assert_eq!(of(&error).0, Exit::Unusable);
        assert_eq!(of(&anyhow!("no")).0, Exit::No);
        let told = to_json(&error, Exit::Unusable, "unusable");
        assert_eq!(told["error"]["message"], "policy.toml: gone");
        assert_eq!(told["error"]["exit"], 2);
    }
}
