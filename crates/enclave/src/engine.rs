//! The engine: images compiled once, and runs of them that can be stopped at any time.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use thiserror::Error;
use wasmtime::{Config, Linker, Module, Store, Trap, UpdateDeadline};

use crate::limits::Meter;
use crate::wasi::{self, Exit, Wasi};
use crate::{End, Exhausted, Job, Ran};

/// Compiles and runs. Clones share what is compiled.
#[derive(Clone)]
pub struct Engine {
    engine: wasmtime::Engine,
    compiled: Arc<Mutex<VecDeque<Image>>>,
    pulse: Arc<Pulse>,
}

/// The engine cannot be had on this machine.
#[derive(Debug, Error)]
#[error("tasks cannot be run on this machine: {0}")]
pub struct EngineError(String);

/// Bytes that cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotAnImage {
    /// Longer than any image.
    #[error("the image has {0} bytes, at most {IMAGE_BYTES_MAX} are compiled")]
    TooLong(usize),
    /// Not a module, or one of a kind that is not run here.
    #[error("the image is no WebAssembly module that runs here: {0}")]
    Module(String),
}

/// A compiled image.
#[derive(Clone)]
pub struct Image {
    digest: [u8; DIGEST_BYTES],
    module: Module,
}

/// Stops a run from outside.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Stops it within some milliseconds.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Engine {
    /// An engine, and the thread that looks at what runs.
    pub fn new() -> Result<Engine, EngineError> {
        let mut config = Config::new();
        config
            .consume_fuel(true)
            .epoch_interruption(true)
            // No handlers for the whole process: what a module does wrong is found by checks in its code.
            .signals_based_traps(false)
            .max_wasm_stack(STACK_BYTES)
            .wasm_multi_memory(false)
            .wasm_memory64(false)
            .wasm_backtrace_max_frames(None)
            .memory_reservation(0)
            .memory_guard_size(0);
        let engine = wasmtime::Engine::new(&config).map_err(|error| EngineError(format!("{error:#}")))?;
        let pulse = Arc::new(Pulse::default());
        let (beating, weak) = (engine.weak(), Arc::downgrade(&pulse));
        let beat = move || {
            while let Some(pulse) = weak.upgrade() {
                pulse.wait();
                drop(pulse);
                thread::sleep(BEAT);
                match beating.upgrade() {
                    Some(engine) => engine.increment_epoch(),
                    None => return,
                }
            }
        };
        let spawned = thread::Builder::new().name("task pulse".to_owned()).spawn(beat);
        spawned.map_err(|error| EngineError(error.to_string()))?;
        Ok(Engine { engine, compiled: Arc::default(), pulse })
    }

    /// The image of these bytes, whose digest the caller has computed: compiled now, or the one that was compiled before.
    pub fn image(&self, digest: [u8; DIGEST_BYTES], bytes: &[u8]) -> Result<Image, NotAnImage> {
        if let Some(image) = self.compiled(&digest) {
            return Ok(image);
        }
        if bytes.len() > IMAGE_BYTES_MAX {
            return Err(NotAnImage::TooLong(bytes.len()));
        }
        // Not `new`, which reads text as well where something else in the program has that built in.
        let module = Module::from_binary(&self.engine, bytes)
            .map_err(|error| NotAnImage::Module(format!("{error:#}")))?;
        let image = Image { digest, module };
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if compiled.len() >= COMPILED_MAX {
            compiled.pop_front();
        }
        compiled.push_back(image.clone());
        Ok(image)
    }

    fn compiled(&self, digest: &[u8; DIGEST_BYTES]) -> Option<Image> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        let at = compiled.iter().position(|image| image.digest == *digest)?;
        let image = compiled.remove(at)?;
        // What was used last goes last.
        compiled.push_back(image.clone());
        Some(image)
    }

    /// Runs it, on the caller's thread, until it ends or is ended.
    pub fn run(&self, image: &Image, job: Job, stop: &Stop) -> Ran {
        let started = Instant::now();
        let deadline = started + Duration::from_millis(job.limits.milliseconds);
        let _beating = self.pulse.beat();
        let entry = job.entry.clone();
        let fuel = if job.limits.fuel == 0 { u64::MAX } else { job.limits.fuel };
        let state = State { meter: Meter::new(&job.limits), wasi: Wasi::new(job), late: false };
        let mut store = Store::new(&self.engine, state);
        store.limiter(|state| &mut state.meter);
        store.set_epoch_deadline(1);
        let stopped = stop.clone();
        store.epoch_deadline_callback(move |mut context| {
            if stopped.is_stopped() {
                return Ok(UpdateDeadline::Interrupt);
            }
            if Instant::now() >= deadline {
                context.data_mut().late = true;
                return Ok(UpdateDeadline::Interrupt);
            }
            Ok(UpdateDeadline::Continue(1))
        });
        let ended = self.call(&mut store, image, &entry, fuel);
        let milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let State { meter, wasi, late } = store.into_data();
        let (output, mut messages, is_full) = wasi.finish();
        let (end, why) = match ended {
            Ok(()) => (End::Exited(0), None),
            Err(error) => {
                let (end, why) = end(&error, stop.is_stopped(), late, is_full, &meter);
                (end, Some(why))
            }
        };
        if let Some(why) = why {
            messages.extend_from_slice(format!("task: {why}\n").as_bytes());
        }
        Ran { end, output, messages, milliseconds, memory_bytes: meter.memory_bytes() }
    }

    fn call(&self, store: &mut Store<State>, image: &Image, entry: &str, fuel: u64) -> wasmtime::Result<()> {
        store.set_fuel(fuel)?;
        let mut linker: Linker<State> = Linker::new(&self.engine);
        wasi::offer(&mut linker, &image.module).map_err(NotOffered)?;
        let instance = linker.instantiate(&mut *store, &image.module)?;
        let function = instance.get_typed_func::<(), ()>(&mut *store, entry).map_err(|_| {
            NotOffered(format!("it exports no function {entry:?} without parameters and results"))
        })?;
        function.call(store, ())
    }
}

/// Why it did not end by itself.
fn end(
    error: &wasmtime::Error,
    is_stopped: bool,
    is_late: bool,
    is_full: bool,
    meter: &Meter,
) -> (End, String) {
    if let Some(Exit(code)) = error.downcast_ref() {
        return (End::Exited(*code), format!("it ended with {code}"));
    }
    if let Some(NotOffered(what)) = error.downcast_ref() {
        return (End::Refused, what.clone());
    }
    let trap = error.downcast_ref::<Trap>().copied();
    let exhausted = |what: Exhausted, words: &str| (End::Exhausted(what), words.to_owned());
    match trap {
        _ if is_full => exhausted(Exhausted::Output, "it wrote more than it may"),
        Some(Trap::Interrupt) if is_late => exhausted(Exhausted::Time, "it ran for as long as it may"),
        Some(Trap::Interrupt) if is_stopped => (End::Stopped, "it was stopped".to_owned()),
        Some(Trap::OutOfFuel) => exhausted(Exhausted::Fuel, "it used as many instructions as it may"),
        // Who asks for more memory than there is seldom gets over it.
        _ if meter.exhausted.is_some() => {
            exhausted(Exhausted::Memory, "it wanted more memory than it may have")
        }
        _ => (End::Failed, format!("{error:#}")),
    }
}

/// What a run has.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) meter: Meter,
    pub(crate) wasi: Wasi,
    late: bool,
}

/// It asks for what is not offered.
#[derive(Debug, Error)]
#[error("{0}")]
struct NotOffered(String);

/// Moves the engine's epoch on while something runs.
#[derive(Debug, Default)]
struct Pulse {
    running: AtomicUsize,
    lock: Mutex<()>,
    begun: Condvar,
}

impl Pulse {
    fn beat(self: &Arc<Self>) -> Beating {
        let _lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.running.fetch_add(1, Ordering::Relaxed);
        self.begun.notify_all();
        Beating(self.clone())
    }

    /// Waits until something runs, or a while.
    fn wait(&self) {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.running.load(Ordering::Relaxed) == 0 {
            drop(self.begun.wait_timeout(lock, IDLE));
        }
    }
}

struct Beating(Arc<Pulse>);

impl Drop for Beating {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Engine")
    }
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Image")
    }
}

/// Bytes of an image at most: compiling cannot be interrupted, and takes about a second for each megabyte.
pub const IMAGE_BYTES_MAX: usize = 8 << 20;
/// Bytes of the digest that images are kept by.
const DIGEST_BYTES: usize = 48;
/// Images that stay compiled.
const COMPILED_MAX: usize = 16;
/// How often it is looked whether what runs has to end.
const BEAT: Duration = Duration::from_millis(5);
/// How soon the thread ends after its engine.
const IDLE: Duration = Duration::from_secs(1);
/// Of a module's own calls; threads that run them have more.
const STACK_BYTES: usize = 512 << 10;
