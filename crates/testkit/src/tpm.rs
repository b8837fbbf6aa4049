//! The few TPM 2.0 commands a machine's firmware and kernel send: startup, shutdown, and PCR work.
//!
//! Commands and responses travel as they are over a unix socket, one at a time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::Bank;

/// A connection to a TPM.
#[derive(Debug)]
pub struct Tpm {
    stream: UnixStream,
}

/// A P-256 key in the TPM.
#[derive(Clone, Debug)]
pub struct PersistentKey {
    /// TPM2B_PUBLIC.
    pub public_area: Vec<u8>,
    /// SubjectPublicKeyInfo.
    pub spki: Vec<u8>,
}

impl PersistentKey {
    /// Out of a response that starts with a handle and the size of its parameters.
    fn parse(answer: &[u8]) -> Option<PersistentKey> {
        let size = u16::from_be_bytes(answer.get(8..10)?.try_into().ok()?);
        let public_area = answer.get(8..10 + usize::from(size))?;
        // It ends with the coordinates, each behind its size.
        let (_, point) = public_area.split_at_checked(public_area.len().checked_sub(2 * (2 + 32))?)?;
        let spki = [&SPKI_P256_HEAD[..], point.get(2..34)?, point.get(36..)?].concat();
        Some(PersistentKey { public_area: public_area.to_vec(), spki })
    }
}

/// Why a TPM command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum TpmError {
    /// The connection failed.
    #[error("the TPM cannot be reached")]
    Connection(#[from] io::Error),
    /// The TPM refused the command.
    #[error("the TPM answered {response:#x} to command {command:#x}")]
    Refused {
        /// TPM_CC.
        command: u32,
        /// TPM_RC.
        response: u32,
    },
    /// The TPM's answer is not what the command's definition says.
    #[error("the TPM's answer to command {command:#x} is malformed")]
    Malformed {
        /// TPM_CC.
        command: u32,
    },
}

impl Tpm {
    /// Connects to the TPM behind a unix socket.
    pub fn connect(socket: &Path) -> Result<Tpm, TpmError> {
        Tpm::over(UnixStream::connect(socket)?)
    }

    /// Talks to the TPM at the other end of `stream`.
    pub fn over(stream: UnixStream) -> Result<Tpm, TpmError> {
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        Ok(Tpm { stream })
    }

    /// TPM2_Startup(CLEAR): PCRs begin anew.
    pub fn startup(&mut self) -> Result<(), TpmError> {
        self.command(TAG_NO_SESSIONS, CC_STARTUP, &SU_CLEAR.to_be_bytes()).map(drop)
    }

    /// TPM2_Shutdown(CLEAR): the orderly end of a boot, which keeps the clock safe.
    pub fn shutdown(&mut self) -> Result<(), TpmError> {
        self.command(TAG_NO_SESSIONS, CC_SHUTDOWN, &SU_CLEAR.to_be_bytes()).map(drop)
    }

    /// The banks that have PCRs.
    pub fn active_banks(&mut self) -> Result<Vec<Bank>, TpmError> {
        let selections = self.capability(CAP_PCRS, 0)?;
        parse_active_banks(&selections).ok_or(TpmError::Malformed { command: CC_GET_CAPABILITY })
    }

    /// Flushes every loaded object and session.
    pub fn flush_all(&mut self) -> Result<(), TpmError> {
        for first in [FIRST_TRANSIENT, FIRST_LOADED_SESSION] {
            let handles = self.capability(CAP_HANDLES, first)?;
            for handle in handles.get(4..).unwrap_or_default().chunks_exact(4) {
                self.command(TAG_NO_SESSIONS, CC_FLUSH_CONTEXT, handle)?;
            }
        }
        Ok(())
    }

    /// TPM2_PCR_Extend with one digest per bank.
    pub fn pcr_extend(&mut self, pcr: u32, digests: &[(Bank, Vec<u8>)]) -> Result<(), TpmError> {
        let mut parameters = pcr.to_be_bytes().to_vec();
        parameters.extend_from_slice(&EMPTY_PASSWORD);
        parameters.extend_from_slice(&(digests.len() as u32).to_be_bytes());
        for (bank, digest) in digests {
            parameters.extend_from_slice(&bank.id().to_be_bytes());
            parameters.extend_from_slice(digest);
        }
        self.command(TAG_SESSIONS, CC_PCR_EXTEND, &parameters).map(drop)
    }

    /// TPM2_PCR_Read of one PCR.
    pub fn pcr_read(&mut self, bank: Bank, pcr: u32) -> Result<Vec<u8>, TpmError> {
        let mut parameters = 1u32.to_be_bytes().to_vec();
        parameters.extend_from_slice(&bank.id().to_be_bytes());
        parameters.push(3);
        parameters.extend_from_slice(&(1u32 << pcr).to_le_bytes()[..3]);
        let answer = self.command(TAG_NO_SESSIONS, CC_PCR_READ, &parameters)?;
        // pcrUpdateCounter, the selection of one bank, the count of digests, the size of the first.
        let digest = answer.get(ANSWER_BEFORE_DIGEST..ANSWER_BEFORE_DIGEST + bank.size());
        digest.map(<[u8]>::to_vec).ok_or(TpmError::Malformed { command: CC_PCR_READ })
    }

    /// Makes a P-256 signing key with these TPMA_OBJECT attributes in the endorsement hierarchy and leaves it at a
    /// persistent handle, as a device's maker does.
    pub fn persist_signing_key(&mut self, attributes: u32, handle: u32) -> Result<PersistentKey, TpmError> {
        let template = [&SIGNING_KEY_HEAD[..], &attributes.to_be_bytes(), &SIGNING_KEY_TAIL].concat();
        let mut parameters = RH_ENDORSEMENT.to_be_bytes().to_vec();
        parameters.extend_from_slice(&EMPTY_PASSWORD);
        // No password of its own and no sealed data; then the template; no outside information and no PCRs.
        parameters.extend_from_slice(&[0, 4, 0, 0, 0, 0]);
        parameters.extend_from_slice(&(template.len() as u16).to_be_bytes());
        parameters.extend_from_slice(&template);
        parameters.extend_from_slice(&[0, 0, 0, 0, 0, 0]);
        let answer = self.command(TAG_SESSIONS, CC_CREATE_PRIMARY, &parameters)?;
        let malformed = TpmError::Malformed { command: CC_CREATE_PRIMARY };
        let (Some(loaded), Some(key)) = (message_word(&answer, 0), PersistentKey::parse(&answer)) else {
            return Err(malformed);
        };
        let mut parameters = [RH_OWNER.to_be_bytes(), loaded.to_be_bytes()].concat();
        parameters.extend_from_slice(&EMPTY_PASSWORD);
        parameters.extend_from_slice(&handle.to_be_bytes());
        self.command(TAG_SESSIONS, CC_EVICT_CONTROL, &parameters)?;
        self.command(TAG_NO_SESSIONS, CC_FLUSH_CONTEXT, &loaded.to_be_bytes())?;
        Ok(key)
    }

    /// Defines an NV index of the owner's that everybody may read, or only by a policy that nobody meets, and writes content
    /// into it as far as there is any.
    pub fn define_nv(
        &mut self,
        index: u32,
        bytes: u16,
        is_open: bool,
        content: &[u8],
    ) -> Result<(), TpmError> {
        let read = if is_open { NV_OWNER_READ | NV_AUTH_READ } else { NV_POLICY_READ };
        let public = [
            &index.to_be_bytes()[..],
            &Bank::Sha256.id().to_be_bytes(),
            &(NV_OWNER_WRITE | read).to_be_bytes(),
            &0u16.to_be_bytes(),
            &bytes.to_be_bytes(),
        ]
        .concat();
        let mut parameters = RH_OWNER.to_be_bytes().to_vec();
        parameters.extend_from_slice(&EMPTY_PASSWORD);
        parameters.extend_from_slice(&0u16.to_be_bytes());
        parameters.extend_from_slice(&(public.len() as u16).to_be_bytes());
        parameters.extend_from_slice(&public);
        self.command(TAG_SESSIONS, CC_NV_DEFINE_SPACE, &parameters)?;
        for (number, part) in content.chunks(NV_WRITE_BYTES).enumerate() {
            let mut parameters = [RH_OWNER.to_be_bytes(), index.to_be_bytes()].concat();
            parameters.extend_from_slice(&EMPTY_PASSWORD);
            parameters.extend_from_slice(&(part.len() as u16).to_be_bytes());
            parameters.extend_from_slice(part);
            parameters.extend_from_slice(&((number * NV_WRITE_BYTES) as u16).to_be_bytes());
            self.command(TAG_SESSIONS, CC_NV_WRITE, &parameters)?;
        }
        Ok(())
    }

    /// TPM2_GetCapability: the list inside TPMS_CAPABILITY_DATA, after moreData and the capability's number.
    fn capability(&mut self, capability: u32, property: u32) -> Result<Vec<u8>, TpmError> {
        let parameters: Vec<u8> =
            [capability, property, CAPABILITIES_MAX].iter().flat_map(|word| word.to_be_bytes()).collect();
        let answer = self.command(TAG_NO_SESSIONS, CC_GET_CAPABILITY, &parameters)?;
        Ok(answer.get(5..).unwrap_or_default().to_vec())
    }

    /// Sends one command and returns the response's parameters.
    pub(crate) fn command(&mut self, tag: u16, command: u32, body: &[u8]) -> Result<Vec<u8>, TpmError> {
        let mut message = tag.to_be_bytes().to_vec();
        message.extend_from_slice(&((HEADER + body.len()) as u32).to_be_bytes());
        message.extend_from_slice(&command.to_be_bytes());
        message.extend_from_slice(body);
        self.stream.write_all(&message)?;
        let mut response = read_message(&mut self.stream)?;
        match message_word(&response, 6) {
            Some(0) => Ok(response.split_off(HEADER)),
            Some(code) => Err(TpmError::Refused { command, response: code }),
            None => Err(TpmError::Malformed { command }),
        }
    }
}

/// Reads one whole command or response; both begin with a tag and their size.
pub(crate) fn read_message(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut message = vec![0; HEADER];
    stream.read_exact(&mut message)?;
    let size = message_word(&message, 2).unwrap_or_default() as usize;
    if !(HEADER..=MESSAGE_BYTES_MAX).contains(&size) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not the size of a TPM message"));
    }
    message.resize(size, 0);
    stream.read_exact(message.get_mut(HEADER..).unwrap_or_default())?;
    Ok(message)
}

fn message_word(message: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(message.get(at..at + 4)?.try_into().ok()?))
}

fn parse_active_banks(selection: &[u8]) -> Option<Vec<Bank>> {
    let count = u32::from_be_bytes(selection.get(..4)?.try_into().ok()?);
    let mut rest = selection.get(4..)?;
    let mut banks = Vec::new();
    for _ in 0..count.min(BANKS_MAX) {
        let id = u16::from_be_bytes(rest.get(..2)?.try_into().ok()?);
        let size = usize::from(*rest.get(2)?);
        let used = rest.get(3..3 + size)?.iter().any(|byte| *byte != 0);
        banks.extend(Bank::from_id(id).filter(|_| used));
        rest = rest.get(3 + size..)?;
    }
    Some(banks)
}

const HEADER: usize = 10;
const TAG_NO_SESSIONS: u16 = 0x8001;
const TAG_SESSIONS: u16 = 0x8002;
const RH_OWNER: u32 = 0x4000_0001;
const RH_ENDORSEMENT: u32 = 0x4000_000b;
const CC_EVICT_CONTROL: u32 = 0x120;
const CC_NV_DEFINE_SPACE: u32 = 0x12a;
const CC_NV_WRITE: u32 = 0x137;
/// TPMA_NV.
const NV_OWNER_WRITE: u32 = 1 << 1;
const NV_OWNER_READ: u32 = 1 << 17;
const NV_AUTH_READ: u32 = 1 << 18;
const NV_POLICY_READ: u32 = 1 << 19;
/// What every TPM of the PC Client profile takes at once.
const NV_WRITE_BYTES: usize = 512;
const CC_CREATE_PRIMARY: u32 = 0x131;
/// TPMT_PUBLIC of an ECC key with a SHA-256 Name, up to its attributes.
const SIGNING_KEY_HEAD: [u8; 4] = [0x00, 0x23, 0x00, 0x0b];
/// And from there: no policy, no cipher, ECDSA with SHA-256, P-256, no KDF, no coordinates yet.
const SIGNING_KEY_TAIL: [u8; 16] =
    [0x00, 0x00, 0x00, 0x10, 0x00, 0x18, 0x00, 0x0b, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x00, 0x00];
/// SubjectPublicKeyInfo of a P-256 key, up to the coordinates.
const SPKI_P256_HEAD: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];
const CC_STARTUP: u32 = 0x144;
const CC_SHUTDOWN: u32 = 0x145;
const CC_FLUSH_CONTEXT: u32 = 0x165;
const CC_GET_CAPABILITY: u32 = 0x17a;
const CC_PCR_READ: u32 = 0x17e;
const CC_PCR_EXTEND: u32 = 0x182;
const CAP_HANDLES: u32 = 1;
const CAP_PCRS: u32 = 5;
const CAPABILITIES_MAX: u32 = 64;
const FIRST_TRANSIENT: u32 = 0x8000_0000;
const FIRST_LOADED_SESSION: u32 = 0x0200_0000;
const SU_CLEAR: u16 = 0;
/// An authorization area of nine bytes: TPM_RS_PW, no nonce, no attributes, an empty password.
const EMPTY_PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
const ANSWER_BEFORE_DIGEST: usize = 4 + 4 + 6 + 4 + 2;
/// TPM implementations have buffers of 4 KiB; anything longer is not a TPM's.
const MESSAGE_BYTES_MAX: usize = 8192;
const BANKS_MAX: u32 = 16;
/// The slowest command, making an RSA key, takes seconds in software.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
