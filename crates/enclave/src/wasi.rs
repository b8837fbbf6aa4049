//! WASI preview 1, as far as a task has a use for it that may do nothing but compute: input, output, messages, arguments,
//! environment, and where they are granted the clock and random bytes.
//!
//! Whatever else the interface has answers that it is not allowed, so that programs of common compilers run. What the interface does
//! not have is not offered, and a module that wants it is not run.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use thiserror::Error;
use wasmtime::{Caller, Extern, ExternType, FuncType, Linker, Memory, Module, Val, ValType};

use crate::Job;
use crate::engine::State;

/// What a task sees.
#[derive(Debug)]
pub(crate) struct Wasi {
    arguments: Vec<String>,
    environment: Vec<String>,
    may_read_clock: bool,
    may_draw_random: bool,
    input: Vec<u8>,
    read: usize,
    output: Vec<u8>,
    messages: Vec<u8>,
    bytes_max: usize,
    is_full: bool,
}

/// The task ends itself.
#[derive(Debug, Error)]
#[error("it ended with {0}")]
pub(crate) struct Exit(pub(crate) i32);

/// It wrote more than it may.
#[derive(Debug, Error)]
#[error("it wrote more than it may")]
struct Full;

impl Wasi {
    pub(crate) fn new(job: Job) -> Wasi {
        Wasi {
            arguments: job.arguments,
            environment: job.environment,
            may_read_clock: job.may_read_clock,
            may_draw_random: job.may_draw_random,
            input: job.input,
            read: 0,
            output: Vec::new(),
            messages: Vec::new(),
            bytes_max: usize::try_from(job.limits.output_bytes).unwrap_or(usize::MAX),
            is_full: false,
        }
    }

    /// What it put out, its messages, and whether it wanted to write more of either.
    pub(crate) fn finish(mut self) -> (Vec<u8>, Vec<u8>, bool) {
        self.input.fill(0);
        (self.output, self.messages, self.is_full)
    }

    fn write(&mut self, file: i32, bytes: &[u8]) -> Result<(), Full> {
        let to = if file == OUTPUT { &mut self.output } else { &mut self.messages };
        let room = self.bytes_max.saturating_sub(to.len());
        to.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
        self.is_full |= bytes.len() > room;
        if self.is_full { Err(Full) } else { Ok(()) }
    }

    fn list(&self, which: List) -> &[String] {
        match which {
            List::Arguments => &self.arguments,
            List::Environment => &self.environment,
        }
    }
}

#[derive(Clone, Copy)]
enum List {
    Arguments,
    Environment,
}

/// Offers a module what it imports; what it wants besides, in words.
pub(crate) fn offer(linker: &mut Linker<State>, module: &Module) -> Result<(), String> {
    for import in module.imports() {
        let (from, name) = (import.module(), import.name());
        if from != INTERFACE || !NAMES.contains(&name) {
            return Err(format!(
                "it wants {from}.{name}, which is not offered: {INTERFACE} is, without files and network"
            ));
        }
        if !OFFERED.contains(&name) {
            let ExternType::Func(function) = import.ty() else {
                return Err(format!("it wants {from}.{name} as something else than a function"));
            };
            refuse(linker, name, function).map_err(|error| format!("{from}.{name}: {error:#}"))?;
        }
    }
    define(linker).map_err(|error| format!("{error:#}"))
}

/// A function of the interface that answers that it is not allowed.
fn refuse(linker: &mut Linker<State>, name: &str, function: FuncType) -> wasmtime::Result<()> {
    let answers = function.results().any(|result| matches!(result, ValType::I32));
    // One that is imported twice is the same.
    linker.allow_shadowing(true);
    linker.func_new(INTERFACE, name, function, move |_, _, results| {
        if let (true, Some(first)) = (answers, results.first_mut()) {
            *first = Val::I32(NOT_CAPABLE);
        }
        Ok(())
    })?;
    linker.allow_shadowing(false);
    Ok(())
}

type Called<'a> = Caller<'a, State>;

fn define(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(INTERFACE, "args_sizes_get", |caller: Called<'_>, count: i32, bytes: i32| {
        sizes(caller, List::Arguments, count, bytes)
    })?;
    linker.func_wrap(INTERFACE, "args_get", |caller: Called<'_>, places: i32, bytes: i32| {
        texts(caller, List::Arguments, places, bytes)
    })?;
    linker.func_wrap(INTERFACE, "environ_sizes_get", |caller: Called<'_>, count: i32, bytes: i32| {
        sizes(caller, List::Environment, count, bytes)
    })?;
    linker.func_wrap(INTERFACE, "environ_get", |caller: Called<'_>, places: i32, bytes: i32| {
        texts(caller, List::Environment, places, bytes)
    })?;
    linker.func_wrap(INTERFACE, "fd_write", fd_write)?;
    linker.func_wrap(INTERFACE, "fd_read", fd_read)?;
    linker.func_wrap(INTERFACE, "fd_close", |_: Called<'_>, file: i32| standard(file))?;
    linker.func_wrap(INTERFACE, "fd_fdstat_get", fd_fdstat_get)?;
    // No folder is open beforehand: this is how a program finds that out.
    linker.func_wrap(INTERFACE, "fd_prestat_get", |_: Called<'_>, _: i32, _: i32| BAD_FILE)?;
    linker.func_wrap(INTERFACE, "fd_seek", |_: Called<'_>, file: i32, _: i64, _: i32, _: i32| {
        if standard(file) == SUCCESS { NOT_SEEKABLE } else { BAD_FILE }
    })?;
    linker.func_wrap(INTERFACE, "clock_time_get", clock_time_get)?;
    linker.func_wrap(INTERFACE, "random_get", random_get)?;
    linker.func_wrap(INTERFACE, "sched_yield", |_: Called<'_>| SUCCESS)?;
    linker.func_wrap(INTERFACE, "proc_exit", |_: Called<'_>, code: i32| -> wasmtime::Result<()> {
        Err(Exit(code).into())
    })?;
    Ok(())
}

fn standard(file: i32) -> i32 {
    if (INPUT..=MESSAGES).contains(&file) { SUCCESS } else { BAD_FILE }
}

/// The module's memory: what a function of the interface is given is places in it.
fn memory(caller: &mut Called<'_>) -> Option<Memory> {
    caller.get_export("memory").and_then(Extern::into_memory)
}

/// Carries out what may fail for a place that is none.
fn answered(done: Option<()>) -> i32 {
    if done.is_some() { SUCCESS } else { FAULT }
}

fn put(memory: &Memory, caller: &mut Called<'_>, at: i32, bytes: &[u8]) -> Option<()> {
    memory.write(caller, address(at), bytes).ok()
}

fn put_u32(memory: &Memory, caller: &mut Called<'_>, at: i32, value: usize) -> Option<()> {
    put(memory, caller, at, &u32::try_from(value).ok()?.to_le_bytes())
}

/// Addresses have 32 bits without a sign.
fn address(at: i32) -> usize {
    usize::try_from(at.cast_unsigned()).unwrap_or(usize::MAX)
}

fn sizes(mut caller: Called<'_>, which: List, count: i32, bytes: i32) -> i32 {
    let list = caller.data().wasi.list(which);
    let (texts, length) = (list.len(), list.iter().map(|text| text.len() + 1).sum());
    answered((|| {
        let memory = memory(&mut caller)?;
        put_u32(&memory, &mut caller, count, texts)?;
        put_u32(&memory, &mut caller, bytes, length)
    })())
}

fn texts(mut caller: Called<'_>, which: List, places: i32, bytes: i32) -> i32 {
    let list = caller.data().wasi.list(which).to_vec();
    answered((|| {
        let memory = memory(&mut caller)?;
        let (mut place, mut at) = (places, bytes);
        for text in list {
            put_u32(&memory, &mut caller, place, address(at))?;
            put(&memory, &mut caller, at, &[text.as_bytes(), &[0]].concat())?;
            place = place.wrapping_add(4);
            at = at.wrapping_add(i32::try_from(text.len() + 1).ok()?);
        }
        Some(())
    })())
}

/// The pieces of memory that a list of (place, length) names.
fn pieces(caller: &mut Called<'_>, memory: &Memory, list: i32, count: i32) -> Option<Vec<(usize, usize)>> {
    let count = usize::try_from(count).ok().filter(|count| *count <= PIECES_MAX)?;
    let data = memory.data(&caller);
    let list = data.get(address(list)..)?.get(..count.checked_mul(8)?)?;
    let number =
        |bytes: &[u8]| -> Option<usize> { usize::try_from(u32::from_le_bytes(bytes.try_into().ok()?)).ok() };
    list.chunks_exact(8)
        .map(|piece| {
            let (place, length) = piece.split_at_checked(4)?;
            let (place, length) = (number(place)?, number(length)?);
            (place.checked_add(length)? <= data.len()).then_some((place, length))
        })
        .collect()
}

fn fd_write(mut caller: Called<'_>, file: i32, list: i32, count: i32, written: i32) -> wasmtime::Result<i32> {
    if file != OUTPUT && file != MESSAGES {
        return Ok(BAD_FILE);
    }
    let Some(memory) = memory(&mut caller) else { return Ok(FAULT) };
    let Some(pieces) = pieces(&mut caller, &memory, list, count) else { return Ok(FAULT) };
    let mut length = 0;
    let (data, state) = memory.data_and_store_mut(&mut caller);
    for (place, bytes) in pieces {
        let piece = data.get(place..place.saturating_add(bytes)).unwrap_or_default();
        state.wasi.write(file, piece)?;
        length += bytes;
    }
    Ok(answered(put_u32(&memory, &mut caller, written, length)))
}

fn fd_read(mut caller: Called<'_>, file: i32, list: i32, count: i32, read: i32) -> i32 {
    if file != INPUT {
        return BAD_FILE;
    }
    answered((|| {
        let memory = memory(&mut caller)?;
        let pieces = pieces(&mut caller, &memory, list, count)?;
        let (data, state) = memory.data_and_store_mut(&mut caller);
        let mut length = 0;
        for (place, bytes) in pieces {
            let left = state.wasi.input.get(state.wasi.read..).unwrap_or_default();
            let bytes = bytes.min(left.len());
            data.get_mut(place..place.checked_add(bytes)?)?.copy_from_slice(left.get(..bytes)?);
            state.wasi.read += bytes;
            length += bytes;
        }
        put_u32(&memory, &mut caller, read, length)
    })())
}

/// A character device that can be read or written and nothing else, so that nobody seeks in it.
fn fd_fdstat_get(mut caller: Called<'_>, file: i32, to: i32) -> i32 {
    if standard(file) != SUCCESS {
        return BAD_FILE;
    }
    let rights = if file == INPUT { RIGHT_READ } else { RIGHT_WRITE };
    let mut stat = [0; 24];
    stat[0] = CHARACTER_DEVICE;
    stat[8..16].copy_from_slice(&rights.to_le_bytes());
    answered((|| {
        let memory = memory(&mut caller)?;
        put(&memory, &mut caller, to, &stat)
    })())
}

fn clock_time_get(mut caller: Called<'_>, _clock: i32, _precision: i64, to: i32) -> i32 {
    if !caller.data().wasi.may_read_clock {
        return NOT_CAPABLE;
    }
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let nanoseconds = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    answered((|| {
        let memory = memory(&mut caller)?;
        put(&memory, &mut caller, to, &nanoseconds.to_le_bytes())
    })())
}

fn random_get(mut caller: Called<'_>, to: i32, length: i32) -> i32 {
    if !caller.data().wasi.may_draw_random {
        return NOT_CAPABLE;
    }
    answered((|| {
        let memory = memory(&mut caller)?;
        let length = Some(address(length)).filter(|length| *length <= RANDOM_BYTES_MAX)?;
        let bytes = memory.data_mut(&mut caller).get_mut(address(to)..)?.get_mut(..length)?;
        rand::fill(bytes).ok()
    })())
}

const INTERFACE: &str = "wasi_snapshot_preview1";
const INPUT: i32 = 0;
const OUTPUT: i32 = 1;
const MESSAGES: i32 = 2;
// Errnos of the interface.
const SUCCESS: i32 = 0;
const BAD_FILE: i32 = 8;
const FAULT: i32 = 21;
const NOT_SEEKABLE: i32 = 70;
const NOT_CAPABLE: i32 = 76;
const CHARACTER_DEVICE: u8 = 2;
const RIGHT_READ: u64 = 1 << 1;
const RIGHT_WRITE: u64 = 1 << 6;
/// At a time: what is drawn is no part of the task's instructions.
const RANDOM_BYTES_MAX: usize = 1 << 16;
/// As many as a system call takes.
const PIECES_MAX: usize = 1024;

/// What does something.
const OFFERED: &[&str] = &[
    "args_sizes_get",
    "args_get",
    "environ_sizes_get",
    "environ_get",
    "fd_write",
    "fd_read",
    "fd_close",
    "fd_fdstat_get",
    "fd_prestat_get",
    "fd_seek",
    "clock_time_get",
    "random_get",
    "sched_yield",
    "proc_exit",
];

/// All that the interface has.
const NAMES: &[&str] = &[
    "args_get",
    "args_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_dir_name",
    "fd_prestat_get",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "random_get",
    "sched_yield",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];
