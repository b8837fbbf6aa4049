//! What `assay-agent files` is told to do.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use assay_identity::SpiffeId;
use clap::ValueEnum;
use rustix::process::Signal;

use super::place::Owner;
use crate::fetch::FetchedSvid;
use crate::workload::unix::id_of;

/// What to keep, where, and whom to tell.
#[derive(Clone, Debug, clap::Args)]
pub struct Plan {
    /// Folder to keep the files in; it has to be there
    #[arg(long, value_name = "DIR")]
    pub folder: PathBuf,
    /// Workload API endpoint, unix:///PATH [default: the agent's own socket]
    #[arg(long, value_name = "URI", env = "SPIFFE_ENDPOINT_SOCKET")]
    pub socket: Option<String>,
    /// Which identity of this process [default: the first]
    #[arg(long, value_name = "ID")]
    pub spiffe_id: Option<SpiffeId>,
    /// The identity with this hint
    #[arg(long)]
    pub hint: Option<String>,
    /// The certificate and those that lead to the authority, PEM
    #[arg(long, value_name = "NAME", default_value = "svid.pem")]
    pub certificate: FileName,
    /// The private key, PEM (PKCS#8)
    #[arg(long, value_name = "NAME", default_value = "svid.key")]
    pub key: FileName,
    /// Whom to believe, PEM
    #[arg(long, value_name = "NAME", default_value = "bundle.pem")]
    pub bundle: FileName,
    /// Whom not to believe, PEM
    #[arg(long, value_name = "NAME", default_value = "crl.pem")]
    pub crl: FileName,
    /// Who may read the key: 0600, or 0640 for its group too
    #[arg(long, default_value = "0600")]
    pub mode: KeyMode,
    /// Whose the files are, USER or USER:GROUP [default: whose this program is]
    #[arg(long, value_name = "USER[:GROUP]", value_parser = owner)]
    pub owner: Option<(u32, Option<u32>)>,
    /// Signal the process whose number is in this file after each change
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// Which signal
    #[arg(long, default_value = "HUP", value_parser = signal, requires = "pid_file")]
    pub signal: Signal,
    /// What to do once the identity is withdrawn or over; certificate and key are removed in any case
    #[arg(long, value_enum, default_value_t)]
    pub when_withdrawn: WhenWithdrawn,
    /// Command to run after each change, behind --; ASSAY_FILES tells it "changed" or "removed"
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// What follows when there is no identity any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WhenWithdrawn {
    /// Tell of the change, and wait for an identity
    #[default]
    Remove,
    /// End with exit code 1, for a service manager to stop what depends on this
    Stop,
}

/// The name of a file in the folder, and no way out of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileName(String);

/// Who may read a private key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyMode(u32);

impl Plan {
    /// Of what a process is given, what is kept.
    pub(super) fn pick(&self, svids: Vec<FetchedSvid>) -> Option<FetchedSvid> {
        svids.into_iter().find(|svid| {
            self.spiffe_id.as_ref().is_none_or(|wanted| *wanted == svid.spiffe_id)
                && self.hint.as_ref().is_none_or(|wanted| *wanted == svid.hint)
        })
    }

    pub(super) fn path(&self, name: &FileName) -> PathBuf {
        self.folder.join(&name.0)
    }

    pub(super) fn key_mode(&self) -> u32 {
        self.mode.0
    }

    pub(super) fn owner(&self) -> Owner {
        self.owner
    }

    /// A name that two files would have.
    pub(super) fn twice(&self) -> Option<&str> {
        let names = [&self.certificate, &self.key, &self.bundle, &self.crl];
        let twice =
            names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|other| other == *name));
        twice.map(|(_, name)| name.0.as_str())
    }
}

impl FromStr for FileName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Path::new(text).file_name().is_some_and(|name| name == text) {
            true => Ok(FileName(text.to_owned())),
            false => Err("give the name of a file, without a folder"),
        }
    }
}

impl FromStr for KeyMode {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match u32::from_str_radix(text, 8) {
            // Who may read a key is its owner, and a group that is chosen; who may write it is this program.
            Ok(mode @ (0o400 | 0o440 | 0o600 | 0o640 | 0o660)) => Ok(KeyMode(mode)),
            _ => Err("give 0400, 0440, 0600, 0640 or 0660: a private key is not for everybody"),
        }
    }
}

/// A user, or a user and a group, by name or by number.
fn owner(text: &str) -> Result<(u32, Option<u32>), String> {
    let named = |file: &str, name: &str| {
        let number = name.parse().ok().or_else(|| id_of(file, name));
        number.ok_or_else(|| format!("{file} has no {name:?}"))
    };
    match text.split_once(':') {
        None => Ok((named("/etc/passwd", text)?, None)),
        Some((user, group)) => Ok((named("/etc/passwd", user)?, Some(named("/etc/group", group)?))),
    }
}

fn signal(text: &str) -> Result<Signal, &'static str> {
    match text.strip_prefix("SIG").unwrap_or(text) {
        "HUP" => Ok(Signal::HUP),
        "INT" => Ok(Signal::INT),
        "TERM" => Ok(Signal::TERM),
        "QUIT" => Ok(Signal::QUIT),
        "USR1" => Ok(Signal::USR1),
        "USR2" => Ok(Signal::USR2),
        "WINCH" => Ok(Signal::WINCH),
        _ => Err("give HUP, USR1, USR2, TERM, INT, QUIT or WINCH"),
    }
}

/// The process whose number is in a file.
pub(super) fn process_of(file: &Path) -> Option<rustix::process::Pid> {
    let text = fs::read_to_string(file).ok()?;
    // Zero and below would mean groups of processes.
    text.trim().parse().ok().filter(|number: &i32| *number > 0).and_then(rustix::process::Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_leave_the_folder_or_show_the_key_is_refused() {
        for name in ["", ".", "..", "a/b", "/a", "a/"] {
            assert!(name.parse::<FileName>().is_err(), "{name}");
        }
        assert!("tls.key".parse::<FileName>().is_ok());
        for mode in ["0644", "0604", "644", "4600", "x", ""] {
            assert!(mode.parse::<KeyMode>().is_err(), "{mode}");
        }
        assert_eq!("0640".parse(), Ok(KeyMode(0o640)));
    }

    #[test]
    fn owners_have_names_or_numbers() {
        assert_eq!(owner("root"), Ok((0, None)));
        assert_eq!(owner("0:root"), Ok((0, Some(0))));
        assert!(owner("nobody-of-this-name").is_err() && owner("root:").is_err());
    }

    #[test]
    fn a_number_that_means_more_than_a_process_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        for text in ["0", "-1", "", "x", "99999999999"] {
            fs::write(&file, text).unwrap();
            assert!(process_of(&file).is_none(), "{text}");
        }
        fs::write(&file, "17\n").unwrap();
        assert!(process_of(&file).is_some());
    }
}
