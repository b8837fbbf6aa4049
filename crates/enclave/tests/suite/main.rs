//! What a task can do, and what it cannot.

#![expect(clippy::unwrap_used, reason = "the modules of these tests are modules")]

use std::thread;
use std::time::{Duration, Instant};

use assay_enclave::{End, Engine, Exhausted, Job, Limits, NotAnImage, Ran, Stop};

fn job() -> Job {
    Job {
        entry: "_start".to_owned(),
        arguments: vec!["task".to_owned()],
        limits: Limits { memory_bytes: 1 << 20, fuel: 0, milliseconds: 10_000, output_bytes: 1 << 10 },
        ..Job::default()
    }
}

fn run_as(text: &str, job: Job) -> Ran {
    let engine = Engine::new().unwrap();
    let image = engine.image([0; 48], &wat::parse_str(text).unwrap()).unwrap();
    engine.run(&image, job, &Stop::default())
}

fn run(text: &str) -> Ran {
    run_as(text, job())
}

/// A module with these imports of the interface, a page of memory and this body.
fn module(imports: &str, body: &str) -> String {
    format!("(module {imports} (memory (export \"memory\") 1) (func (export \"_start\") {body}))")
}

const WRITE: &str =
    r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))"#;
const READ: &str =
    r#"(import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))"#;
const EXIT: &str = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;

#[test]
fn a_task_reads_its_input_and_writes_its_output() {
    // Reads up to 64 bytes to 100, and writes as many from there.
    let body = "(i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 64))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 4)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
        (drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))";
    let ran =
        run_as(&module(&format!("{READ}{WRITE}"), body), Job { input: b"some input".to_vec(), ..job() });
    assert_eq!(ran.end, End::Exited(0), "{}", String::from_utf8_lossy(&ran.messages));
    assert_eq!(
        (ran.output.as_slice(), ran.messages.as_slice()),
        (b"some input".as_slice(), b"some input".as_slice())
    );
    assert_eq!(ran.memory_bytes, 65536);
}

#[test]
fn a_task_sees_its_arguments_and_environment_and_none_of_ours() {
    // Writes all strings of the arguments, then those of the environment.
    let imports = r#"(import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_get" (func $environ (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_sizes_get" (func $sizes (param i32 i32) (result i32)))"#;
    let body = "(drop (call $args (i32.const 1000) (i32.const 100)))
        (drop (call $environ (i32.const 1000) (i32.const 107)))
        (drop (call $sizes (i32.const 16) (i32.const 4)))
        (i32.store (i32.const 0) (i32.const 100))
        (i32.store (i32.const 4) (i32.add (i32.const 7) (i32.load (i32.const 4))))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))";
    let job = Job {
        arguments: vec!["task".to_owned(), "a".to_owned()],
        environment: vec!["B=2".to_owned()],
        ..job()
    };
    let ran = run_as(&module(&format!("{imports}{WRITE}"), body), job);
    assert_eq!(ran.output, b"task\0a\0B=2\0");
}

#[test]
fn a_task_ends_with_its_code() {
    assert_eq!(run(&module(EXIT, "(call $exit (i32.const 7))")).end, End::Exited(7));
    let trapped = run(&module("", "unreachable"));
    assert_eq!(trapped.end, End::Failed);
    assert!(String::from_utf8_lossy(&trapped.messages).contains("unreachable"));
}

#[test]
fn one_that_never_ends_is_ended() {
    let forever = module("", "(loop br 0)");
    let limits = Limits { milliseconds: 50, ..job().limits };
    let ran = run_as(&forever, Job { limits, ..job() });
    assert_eq!(ran.end, End::Exhausted(Exhausted::Time));
    assert!(ran.milliseconds < 1000, "{}", ran.milliseconds);
    let limits = Limits { fuel: 1_000_000, ..job().limits };
    assert_eq!(run_as(&forever, Job { limits, ..job() }).end, End::Exhausted(Exhausted::Fuel));
}

#[test]
fn one_that_begins_by_never_ending_is_ended_too() {
    let text = "(module (func $forever (loop br 0)) (start $forever) (func (export \"_start\")))";
    let limits = Limits { milliseconds: 50, ..job().limits };
    assert_eq!(run_as(text, Job { limits, ..job() }).end, End::Exhausted(Exhausted::Time));
}

#[test]
fn one_that_allocates_without_end_is_ended() {
    let greedy =
        module("", "(loop (if (i32.eq (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) br 0)");
    let ran = run(&greedy);
    assert_eq!(ran.end, End::Exhausted(Exhausted::Memory));
    assert_eq!(ran.memory_bytes, 1 << 20);
    let at_once = "(module (memory 100) (func (export \"_start\")))";
    assert_eq!(run(at_once).end, End::Exhausted(Exhausted::Memory));
    let tables = "(module (table 1000000 funcref) (func (export \"_start\")))";
    assert_eq!(run(tables).end, End::Exhausted(Exhausted::Memory));
}

#[test]
fn one_that_calls_itself_without_end_is_ended() {
    let deep = "(module (func $deep (export \"_start\") (call $deep)))";
    assert_eq!(run(deep).end, End::Failed);
}

#[test]
fn one_that_writes_without_end_is_ended() {
    for file in [1, 2] {
        let body = format!(
            "(i32.store (i32.const 4) (i32.const 100))
             (loop (drop (call $write (i32.const {file}) (i32.const 0) (i32.const 1) (i32.const 8))) br 0)"
        );
        let ran = run(&module(WRITE, &body));
        assert_eq!(ran.end, End::Exhausted(Exhausted::Output));
        let written = if file == 1 { ran.output.len() } else { ran.messages.len() };
        assert!((1024..1200).contains(&written), "{written}");
    }
}

#[test]
fn files_network_and_processes_are_out_of_reach() {
    // path_open of "x" in folder 3, and an answer that is written as a digit pair.
    for (name, parameters, arguments, code) in [
        (
            "path_open",
            "i32 i32 i32 i32 i32 i64 i64 i32 i32",
            "(i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 8)",
            76,
        ),
        (
            "path_symlink",
            "i32 i32 i32 i32 i32",
            "(i32.const 0) (i32.const 1) (i32.const 3) (i32.const 0) (i32.const 1)",
            76,
        ),
        (
            "path_readlink",
            "i32 i32 i32 i32 i32 i32",
            "(i32.const 3) (i32.const 0) (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 9)",
            76,
        ),
        ("sock_accept", "i32 i32 i32", "(i32.const 3) (i32.const 0) (i32.const 8)", 76),
        ("proc_raise", "i32", "(i32.const 9)", 76),
        ("fd_prestat_get", "i32 i32", "(i32.const 3) (i32.const 8)", 8),
        ("clock_time_get", "i32 i64 i32", "(i32.const 0) (i64.const 0) (i32.const 8)", 76),
        ("random_get", "i32 i32", "(i32.const 0) (i32.const 8)", 76),
    ] {
        let import = format!(
            r#"(import "wasi_snapshot_preview1" "{name}" (func $it (param {parameters}) (result i32)))"#
        );
        let ran = run(&module(&format!("{import}{EXIT}"), &format!("(call $exit (call $it {arguments}))")));
        assert_eq!(ran.end, End::Exited(code), "{name}");
    }
}

#[test]
fn the_clock_and_random_bytes_are_there_where_they_are_granted() {
    let imports = r#"(import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))"#;
    let body = "(call $exit (i32.or (call $clock (i32.const 0) (i64.const 0) (i32.const 8))
        (i32.or (call $random (i32.const 16) (i32.const 32)) (i64.eqz (i64.load (i32.const 8))))))";
    let job = Job { may_read_clock: true, may_draw_random: true, ..job() };
    assert_eq!(run_as(&module(&format!("{imports}{EXIT}"), body), job).end, End::Exited(0));
}

#[test]
fn what_is_not_offered_is_refused_with_its_name() {
    for (import, word) in [
        (r#"(import "env" "system" (func))"#, "env.system"),
        (r#"(import "wasi_snapshot_preview1" "proc_fork" (func))"#, "proc_fork"),
        (r#"(import "wasi_snapshot_preview1" "path_open" (global i32))"#, "path_open"),
        (r#"(import "wasi_unstable" "fd_write" (func))"#, "wasi_unstable"),
    ] {
        let ran = run(&module(import, ""));
        assert_eq!(ran.end, End::Refused, "{import}");
        assert!(String::from_utf8_lossy(&ran.messages).contains(word), "{import}");
    }
    let ran = run_as("(module)", job());
    assert_eq!(ran.end, End::Refused);
    assert!(String::from_utf8_lossy(&ran.messages).contains("_start"));
}

#[test]
fn no_place_in_memory_is_believed() {
    let bad = [
        ("$write", WRITE, "(i32.const 1) (i32.const -8) (i32.const 1) (i32.const 8)"),
        ("$write", WRITE, "(i32.const 1) (i32.const 0) (i32.const -1) (i32.const 8)"),
        ("$write", WRITE, "(i32.const 1) (i32.const 0) (i32.const 1) (i32.const -1)"),
        ("$read", READ, "(i32.const 0) (i32.const 65535) (i32.const 1) (i32.const 8)"),
        ("$read", READ, "(i32.const 0) (i32.const 0) (i32.const 1) (i32.const 65534)"),
    ];
    for (name, import, arguments) in bad {
        let ran =
            run(&module(&format!("{import}{EXIT}"), &format!("(call $exit (call {name} {arguments}))")));
        assert_eq!(ran.end, End::Exited(21), "{arguments}");
    }
    // A piece that goes past the end of memory.
    let body = "(i32.store (i32.const 0) (i32.const 65530)) (i32.store (i32.const 4) (i32.const 100))
        (call $exit (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))";
    assert_eq!(run(&module(&format!("{WRITE}{EXIT}"), body)).end, End::Exited(21));
}

#[test]
fn what_runs_is_stopped_from_outside() {
    let engine = Engine::new().unwrap();
    let image = engine.image([0; 48], &wat::parse_str(module("", "(loop br 0)")).unwrap()).unwrap();
    let stop = Stop::default();
    let stopping = stop.clone();
    let started = Instant::now();
    let runs = thread::spawn(move || engine.run(&image, job(), &stop));
    thread::sleep(Duration::from_millis(50));
    stopping.stop();
    assert_eq!(runs.join().unwrap().end, End::Stopped);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn what_is_no_module_is_none() {
    let engine = Engine::new().unwrap();
    let module = wat::parse_str("(module)").unwrap();
    for length in 0..module.len() {
        assert!(matches!(engine.image([0; 48], &module[..length]), Err(NotAnImage::Module(_))), "{length}");
    }
    assert!(matches!(engine.image([0; 48], b"(module)"), Err(NotAnImage::Module(_))));
    let long = vec![0; 2 << 30];
    assert_eq!(engine.image([0; 48], &long).unwrap_err(), NotAnImage::TooLong(2 << 30));
}

#[test]
fn an_image_is_compiled_once() {
    let engine = Engine::new().unwrap();
    let module = wat::parse_str(module("", "")).unwrap();
    engine.image([1; 48], &module).unwrap();
    // By its digest alone: the bytes are not looked at again.
    let image = engine.image([1; 48], b"").unwrap();
    assert_eq!(engine.run(&image, job(), &Stop::default()).end, End::Exited(0));
    // Others make it forgotten.
    for number in 2..20 {
        engine.image([number; 48], &module).unwrap();
    }
    assert!(engine.image([1; 48], b"").is_err());
}
