//! One command and its response: encoding, sessions, retries.
//!
//! Commands are encoded by `tpm2-protocol`; responses are read by our own reader, because evidence is verified over
//! the very bytes the TPM returned, and because a TPM may name algorithms and properties that no library knows yet.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::sleep;
use std::time::Duration;

use assay_evidence::read::{Reader, Truncated};
use tpm2_protocol::basic::TpmHandle;
use tpm2_protocol::constant::TPM_MAX_COMMAND_SIZE;
use tpm2_protocol::data::{
    Tpm2bEncryptedSecret, Tpm2bNonce, TpmAlgId, TpmRcBase, TpmRh, TpmSe, TpmSt, TpmSu, TpmaSession,
    TpmsAuthCommand, TpmsContext, TpmtSymDefObject,
};
use tpm2_protocol::frame::{
    TpmContextLoadCommand, TpmContextSaveCommand, TpmFlushContextCommand, TpmFrame,
    TpmStartAuthSessionCommand, TpmStartupCommand, tpm_marshal_command,
};
use tpm2_protocol::{TpmUnmarshal, TpmWriter};

use super::keys::Key;
use super::{ReturnCode, Target, TpmError, Transport};

/// An open TPM. Clones share it; commands take turns.
#[derive(Clone)]
pub struct Tpm {
    target: Target,
    transport: Arc<Mutex<Box<dyn Transport>>>,
    /// Written by whoever needs it alone for several commands.
    turns: Arc<RwLock<()>>,
}

impl Tpm {
    /// Opens the TPM and makes sure that it is started up and that no earlier user's objects fill its slots.
    pub fn open(target: &Target) -> Result<Self, TpmError> {
        let transport = Arc::new(Mutex::new(target.open()?));
        let tpm = Tpm { target: target.clone(), transport, turns: Arc::default() };
        if target.is_direct() {
            tpm.startup()?;
            tpm.flush_leftovers()?;
        }
        Ok(tpm)
    }

    /// Where it is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Sends TPM2_Startup(CLEAR); a TPM that firmware or the kernel has started is left as it is.
    fn startup(&self) -> Result<(), TpmError> {
        let command = TpmStartupCommand { handles: [], startup_type: TpmSu::Clear };
        match self.run("Startup", &command, &[], 0) {
            Err(TpmError::Refused { code, .. }) if code.is(TpmRcBase::Initialize) => Ok(()),
            other => other.map(drop),
        }
    }

    /// Without a resource manager, what a killed predecessor left loaded takes slots until it is flushed.
    fn flush_leftovers(&self) -> Result<(), TpmError> {
        for range in [TRANSIENT_FIRST, SESSION_FIRST] {
            for handle in self.handles(range)? {
                self.flush(handle)?;
            }
        }
        Ok(())
    }

    /// Does something with one object slot more: TPMs that nobody manages have three, and the agent's keys take two. A key is put
    /// aside meanwhile, and nobody else has a turn.
    pub(crate) fn with_room<T, E: From<TpmError>>(
        &self,
        key: &Key,
        work: impl FnOnce(&Tpm) -> Result<T, E>,
    ) -> Result<T, E> {
        if !self.target.is_direct() {
            return work(self);
        }
        let _mine = self.turns.write().unwrap_or_else(PoisonError::into_inner);
        // The same TPM, for whoever has the turn.
        let alone = Tpm { turns: Arc::default(), ..self.clone() };
        let aside = key.loaded().save(&alone)?;
        let done = work(&alone);
        key.loaded().take_back(&alone, &aside)?;
        done
    }

    /// A SHA-256 session that is bound to nothing and has no key.
    pub(crate) fn start_session(&self, session_type: TpmSe) -> Result<Loaded, TpmError> {
        let nonce = self.random(SESSION_NONCE_BYTES)?;
        let command = TpmStartAuthSessionCommand {
            handles: [TpmHandle::new(TpmRh::Null.value()); 2],
            nonce_caller: Tpm2bNonce::try_from(nonce.as_slice()).map_err(argument("StartAuthSession"))?,
            encrypted_salt: Tpm2bEncryptedSecret::new(),
            session_type,
            symmetric: TpmtSymDefObject::default(),
            auth_hash: TpmAlgId::Sha256,
        };
        Ok(Loaded::new(self, self.run("StartAuthSession", &command, &[], 1)?.handle()?))
    }

    pub(crate) fn flush(&self, handle: u32) -> Result<(), TpmError> {
        let command = TpmFlushContextCommand { handles: [], flush_handle: TpmHandle::new(handle) };
        self.run("FlushContext", &command, &[], 0).map(drop)
    }

    /// Runs a command, again while the TPM says that it is busy. `handles` is how many the response starts with.
    pub(crate) fn run<C: TpmFrame>(
        &self,
        name: &'static str,
        command: &C,
        sessions: &[TpmsAuthCommand],
        handles: usize,
    ) -> Result<Response, TpmError> {
        let _turn = self.turns.read().unwrap_or_else(PoisonError::into_inner);
        let bytes = encode(name, command, sessions)?;
        let mut pause = BUSY_PAUSE_FIRST;
        for _ in 0..BUSY_TRIES {
            match self.transmit(name, &bytes, handles) {
                Err(TpmError::Refused { code, .. }) if code.is_busy() => {
                    sleep(pause);
                    pause = pause.saturating_mul(2);
                }
                other => return other,
            }
        }
        self.transmit(name, &bytes, handles)
    }

    fn transmit(&self, name: &'static str, command: &[u8], handles: usize) -> Result<Response, TpmError> {
        // A panic while the lock was held cannot leave half a command behind: each is one transmit.
        let mut transport = self.transport.lock().unwrap_or_else(PoisonError::into_inner);
        let response = transport.transmit(command).map_err(|source| TpmError::Transport {
            target: self.target.to_string(),
            command: name,
            source,
        })?;
        drop(transport);
        Response::parse(name, &response, handles)
    }
}

/// A transient object or session; flushed when dropped, because slots are few.
pub(crate) struct Loaded {
    tpm: Tpm,
    /// Another once it was put aside and taken back.
    handle: AtomicU32,
}

impl Loaded {
    pub(crate) fn new(tpm: &Tpm, handle: u32) -> Self {
        Loaded { tpm: tpm.clone(), handle: handle.into() }
    }

    pub(crate) fn handle(&self) -> u32 {
        self.handle.load(Ordering::Relaxed)
    }

    /// TPM2_ContextSave, out of its slot: what gives the object back to this TPM until it is reset.
    fn save(&self, tpm: &Tpm) -> Result<TpmsContext, TpmError> {
        let command = TpmContextSaveCommand { handles: [TpmHandle::new(self.handle())] };
        let response = tpm.run("ContextSave", &command, &[], 0)?;
        let bytes = response.read(|reader| Ok(reader.rest().to_vec()))?;
        let (saved, _) = TpmsContext::unmarshal(&bytes).map_err(argument("ContextSave"))?;
        tpm.flush(self.handle())?;
        Ok(saved)
    }

    /// TPM2_ContextLoad, into a slot again.
    fn take_back(&self, tpm: &Tpm, saved: &TpmsContext) -> Result<(), TpmError> {
        let command = TpmContextLoadCommand { handles: [], context: saved.clone() };
        let handle = tpm.run("ContextLoad", &command, &[], 1)?.handle()?;
        self.handle.store(handle, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn tpm(&self) -> &Tpm {
        &self.tpm
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Err(error) = self.tpm.flush(self.handle()) {
            tracing::debug!(%error, "object could not be flushed");
        }
    }
}

/// A successful response: its handle, if it has one, and its parameters.
pub(crate) struct Response {
    command: &'static str,
    handles: Vec<u32>,
    parameters: Vec<u8>,
}

impl Response {
    fn parse(command: &'static str, bytes: &[u8], handle_count: usize) -> Result<Self, TpmError> {
        let malformed = |source| TpmError::Response { command, source };
        let mut reader = Reader::new(bytes);
        let tag = reader.u16_be().map_err(malformed)?;
        reader.u32_be().map_err(malformed)?;
        let code = reader.u32_be().map_err(malformed)?;
        if code != 0 {
            return Err(TpmError::Refused { command, code: ReturnCode::new(code) });
        }
        let mut handles = Vec::with_capacity(handle_count);
        for _ in 0..handle_count {
            handles.push(reader.u32_be().map_err(malformed)?);
        }
        let parameters = if tag == TpmSt::Sessions.value() {
            let size = reader.u32_be().map_err(malformed)?;
            reader.bytes(usize::try_from(size).unwrap_or(usize::MAX)).map_err(malformed)?
        } else {
            reader.rest()
        };
        Ok(Response { command, handles, parameters: parameters.to_vec() })
    }

    /// The handle of a response that starts with one.
    pub(crate) fn handle(&self) -> Result<u32, TpmError> {
        self.handles.first().copied().ok_or(TpmError::Response {
            command: self.command,
            source: Truncated { offset: 0, wanted: 4, left: 0 },
        })
    }

    /// Reads the parameters with `read`.
    pub(crate) fn read<'a, T>(
        &'a self,
        read: impl FnOnce(&mut Reader<'a>) -> Result<T, Truncated>,
    ) -> Result<T, TpmError> {
        read(&mut Reader::new(&self.parameters))
            .map_err(|source| TpmError::Response { command: self.command, source })
    }

    /// Refuses a list longer than the format allows before anything is allocated for it.
    pub(crate) fn bounded(&self, count: u32, max: usize) -> Result<usize, TpmError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > max {
            return Err(TpmError::ResponseTooLong { command: self.command, count, max });
        }
        Ok(count)
    }
}

/// The authorization of an object or hierarchy with an empty password.
pub(crate) fn empty_password() -> TpmsAuthCommand {
    TpmsAuthCommand { session_handle: TpmHandle::new(TpmRh::Pw.value()), ..TpmsAuthCommand::default() }
}

/// The authorization by a policy session; it goes on, because whoever loaded it flushes it.
pub(crate) fn policy(session: u32) -> TpmsAuthCommand {
    TpmsAuthCommand {
        session_handle: TpmHandle::new(session),
        session_attributes: TpmaSession::CONTINUE_SESSION,
        ..TpmsAuthCommand::default()
    }
}

/// Turns an encoder's refusal into an error that names the command.
pub(crate) fn argument(command: &'static str) -> impl Fn(tpm2_protocol::TpmError) -> TpmError {
    move |reason| TpmError::Argument { command, reason }
}

fn encode<C: TpmFrame>(
    name: &'static str,
    command: &C,
    sessions: &[TpmsAuthCommand],
) -> Result<Vec<u8>, TpmError> {
    let tag = if sessions.is_empty() { TpmSt::NoSessions } else { TpmSt::Sessions };
    let mut buffer = vec![0; TPM_MAX_COMMAND_SIZE];
    let mut writer = TpmWriter::new(&mut buffer);
    tpm_marshal_command(command, tag, sessions, &mut writer).map_err(argument(name))?;
    let length = writer.len();
    buffer.truncate(length);
    Ok(buffer)
}

/// First handle of loaded objects, TPM 2.0 Part 2 §7.5.
const TRANSIENT_FIRST: u32 = 0x8000_0000;
/// TPM 2.0 Part 3 §11.1: at least sixteen.
const SESSION_NONCE_BYTES: u16 = 16;
/// First handle of loaded sessions.
const SESSION_FIRST: u32 = 0x0200_0000;
/// 20 ms doubling eight times: a TPM that is busy for ten seconds is broken.
const BUSY_TRIES: u32 = 8;
const BUSY_PAUSE_FIRST: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_its_handles_and_parameters() {
        let bytes = [0x80, 0x02, 0, 0, 0, 20, 0, 0, 0, 0, 0x80, 0, 0, 1, 0, 0, 0, 2, 0xaa, 0xbb, 0, 0];
        let response = Response::parse("Load", &bytes, 1).unwrap();
        assert_eq!(response.handle().unwrap(), 0x8000_0001);
        assert_eq!(response.parameters, [0xaa, 0xbb]);
    }

    #[test]
    fn no_response_makes_it_panic() {
        let bytes = [0x80, 0x02, 0, 0, 0, 20, 0, 0, 0, 0, 0x80, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xaa];
        for length in 0..=bytes.len() {
            assert!(Response::parse("Load", bytes.get(..length).unwrap(), 1).is_err());
        }
        let refused = [0x80, 0x01, 0, 0, 0, 10, 0, 0, 0x09, 0x21];
        let error = Response::parse("Load", &refused, 1).err().unwrap();
        assert_eq!(error.refusal(), Some(ReturnCode::new(0x921)));
    }
}
