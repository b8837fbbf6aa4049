//! How commands reach a TPM: the kernel's device, or a software TPM's command socket.
//!
//! A hardware TPM and a software one differ here and nowhere else.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::TpmError;

/// Carries one command to a TPM and its response back.
pub trait Transport: Send {
    /// Sends a whole command and reads the whole response.
    fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>>;
}

/// Which TPM: `/dev/tpmrm0`, `tcp:127.0.0.1:2321` or `unix:/run/swtpm.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A character device of the kernel.
    Device(PathBuf),
    /// The raw command stream of a software TPM over TCP.
    Tcp(SocketAddr),
    /// The raw command stream of a software TPM over a unix socket.
    Unix(PathBuf),
}

impl Target {
    /// The kernel's resource manager, where no other TPM is named.
    pub const DEFAULT: &'static str = "/dev/tpmrm0";

    /// Opens the TPM.
    pub fn open(&self) -> Result<Box<dyn Transport>, TpmError> {
        let opened: io::Result<Box<dyn Transport>> = match self {
            Target::Device(path) => Device::open(path).map(|device| Box::new(device) as Box<dyn Transport>),
            Target::Tcp(_) | Target::Unix(_) => {
                self.connect().map(|stream| Box::new(Socket { stream }) as Box<dyn Transport>)
            }
        };
        opened.map_err(|source| TpmError::Open { target: self.to_string(), source })
    }

    /// Whether this TPM is driven directly, so that nobody else tidies up what is loaded in it.
    pub fn is_direct(&self) -> bool {
        match self {
            Target::Device(path) => {
                !path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"tpmrm"))
            }
            Target::Tcp(_) | Target::Unix(_) => true,
        }
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Target::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, CONNECT_TIMEOUT)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
                Ok(Box::new(stream))
            }
            Target::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(RESPONSE_TIMEOUT))?;
                Ok(Box::new(stream))
            }
            Target::Device(_) => Err(io::Error::from(io::ErrorKind::Unsupported)),
        }
    }
}

impl FromStr for Target {
    type Err = TpmError;

    fn from_str(text: &str) -> Result<Self, TpmError> {
        let unknown = || TpmError::Address { target: text.to_owned() };
        match text.split_once(':') {
            Some(("tcp", address)) => Ok(Target::Tcp(address.parse().map_err(|_| unknown())?)),
            Some(("unix", path)) if !path.is_empty() => Ok(Target::Unix(PathBuf::from(path))),
            _ if text.starts_with('/') => Ok(Target::Device(PathBuf::from(text))),
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Device(path) => write!(f, "{}", path.display()),
            Target::Tcp(address) => write!(f, "tcp:{address}"),
            Target::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The kernel's device: one write is a command, one read its response.
struct Device {
    file: File,
}

impl Device {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Device { file: OpenOptions::new().read(true).write(true).open(path)? })
    }
}

impl Transport for Device {
    fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.file.write_all(command)?;
        let mut response = vec![0; RESPONSE_BYTES_MAX];
        let count = self.file.read(&mut response)?;
        response.truncate(count);
        Ok(response)
    }
}

/// A software TPM's socket: one stream of commands and responses.
struct Socket {
    stream: Box<dyn Stream>,
}

impl Transport for Socket {
    fn transmit(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.stream.write_all(command)?;
        let mut response = vec![0; HEADER_BYTES];
        self.stream.read_exact(&mut response)?;
        let announced = response
            .get(SIZE_FIELD)
            .and_then(|bytes| <[u8; 4]>::try_from(bytes).ok())
            .map_or(0, u32::from_be_bytes);
        let length = usize::try_from(announced).unwrap_or(usize::MAX);
        if !(HEADER_BYTES..=RESPONSE_BYTES_MAX).contains(&length) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "response size out of bounds"));
        }
        response.resize(length, 0);
        if let Some(body) = response.get_mut(HEADER_BYTES..) {
            self.stream.read_exact(body)?;
        }
        Ok(response)
    }
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// tag, responseSize, responseCode.
const HEADER_BYTES: usize = 10;
/// Where responseSize stands.
const SIZE_FIELD: std::ops::Range<usize> = 2..6;
/// The PC Client profile's largest response.
const RESPONSE_BYTES_MAX: usize = 4096;
/// The TPM is on this machine or its own host's network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// RSA key generation is the slowest command; the kernel gives TPMs five minutes, software ones need seconds.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_parsed_and_shown_alike() {
        let check = |text: &str, direct| {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), text);
            assert_eq!(target.is_direct(), direct);
        };
        check("/dev/tpmrm0", false);
        check("/dev/tpm0", true);
        check("tcp:127.0.0.1:2321", true);
        check("unix:/run/swtpm.sock", true);
        for wrong in ["", "tpmrm0", "tcp:localhost", "unix:", "http://x"] {
            assert!(matches!(Target::from_str(wrong), Err(TpmError::Address { .. })), "{wrong}");
        }
    }
}
