//! Tasks on a stream: the room that a device has, what it fetches to run them, and what came of them.

use assay_trust::placement::Room;
use assay_wire::edge::{self, device_statement, server_message};
use bytes::Bytes;

use super::super::answers::framed;
use super::super::convert;
use super::{Session, SessionEnd};
use crate::attest::AttestError;
use crate::outcome::{Outcome as _, Refusal};
use crate::placement;
use crate::security::{Cause, Refused};

/// What a device fetches, piece by piece: kept for as long as it does.
pub(super) struct Content {
    task: String,
    attempt: u32,
    is_input: bool,
    bytes: Bytes,
}

/// The room that a device says it has: of more than any has, it has that.
pub(super) fn room(room: edge::TaskRoom) -> Room {
    let edge::TaskRoom { memory_bytes, cpu_millis, tasks } = room;
    Room {
        memory_bytes: memory_bytes.min(MEMORY_BYTES_MAX),
        cpu_millis: cpu_millis.min(CPU_MILLIS_MAX),
        tasks: u64::from(tasks).min(TASKS_MAX),
    }
}

impl Session {
    /// Says that there is room for tasks, once the stream has shown whose it is.
    pub(super) fn offer_room(&self) {
        if let Some(room) = self.room {
            self.server.registry.room_is(&self.attester.device.id, room);
            self.server.placement.look_again();
        }
    }

    pub(super) async fn task_content(&mut self, request: edge::TaskContentRequest) -> Result<(), SessionEnd> {
        self.must_be_proven()?;
        let edge::TaskContentRequest { task, attempt, input, offset } = request;
        let is_it = |content: &Content| {
            content.task == task && content.attempt == attempt && content.is_input == input
        };
        if !self.content.as_ref().is_some_and(is_it) {
            let which = if input { placement::Content::Input } else { placement::Content::Image };
            let placing = &self.server.placement;
            let bytes = placing
                .content(&self.attester.device, &task, attempt, which)
                .await
                .map_err(AttestError::from)?;
            let content = |bytes: Vec<u8>| Content {
                task: task.clone(),
                attempt,
                is_input: input,
                bytes: bytes.into(),
            };
            self.content = bytes.map(content);
        }
        let piece = self.content.as_ref().map(|content| piece(&content.bytes, offset)).unwrap_or_default();
        let is_last = self.content.as_ref().is_some_and(|content| {
            usize::try_from(offset)
                .is_ok_and(|offset| offset.saturating_add(piece.len()) >= content.bytes.len())
        });
        if is_last {
            self.content = None;
        }
        let content = edge::TaskContent { task, attempt, input, offset, piece };
        self.send(framed(server_message::Message::TaskContent(content))).await
    }

    pub(super) async fn task_result(&mut self, result: edge::TaskResult) -> Result<(), SessionEnd> {
        self.must_be_proven()?;
        let Some(said) = convert::occasion(&result) else { return Err(SessionEnd::OutOfTurn) };
        let (task, attempt) = said;
        let chain = self.held.as_ref().map(|held| held.chain.certificates.clone()).unwrap_or_default();
        let (placing, device) = (&self.server.placement, &self.attester.device);
        let accepted = placing.accept(device, &chain, convert::result(result), self.server.now()).await;
        let refused = match accepted {
            Ok(_) => String::new(),
            Err(error) => {
                tracing::warn!(device = %device.id, task, attempt, reason = %error, "task result refused");
                if error.is_a_lie() {
                    let (who, from) = (device.id.to_string(), self.peer().to_string());
                    self.server.refused(Refused { cause: Cause::Request, who, from, why: error.to_string() });
                }
                let (kind, code) = error.told();
                let refusal = Refusal::new(kind, code, error.to_string());
                format!("{}: {}", refusal.kind.family(), refusal.code)
            }
        };
        self.say(device_statement::Body::TaskAnswer(edge::TaskAnswer { task, attempt, refused })).await
    }
}

fn piece(bytes: &Bytes, offset: u64) -> Bytes {
    let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
    bytes.slice(from..from.saturating_add(PIECE_BYTES_MAX).min(bytes.len()))
}

/// What is withdrawn meanwhile waits for one piece at most.
const PIECE_BYTES_MAX: usize = 256 << 10;
const MEMORY_BYTES_MAX: u64 = 1 << 50;
const CPU_MILLIS_MAX: u64 = 10_000_000;
const TASKS_MAX: u64 = 10_000;
