//! What a service manager hears, over a socket of its kind.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

#[expect(unsafe_code, reason = "the variables are set before anything else runs")]
fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(10))).expect("a bound");
    // SAFETY: there is one thread.
    unsafe {
        std::env::set_var("NOTIFY_SOCKET", &path);
        std::env::set_var("WATCHDOG_USEC", "400000");
        std::env::set_var("WATCHDOG_PID", std::process::id().to_string());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ended = runtime.block_on(assay_service::attended(async {
        tokio::time::sleep(Duration::from_millis(900)).await;
        7
    }));
    assert_eq!(ended, 7);
    let mut heard = Vec::new();
    while heard.last().is_none_or(|word| word != "STOPPING=1") {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).expect("a word in time");
        heard.push(String::from_utf8_lossy(&bytes[..length]).trim().to_owned());
    }
    assert_eq!(heard[0], "READY=1");
    // One every 200 ms, of which a busy machine may be late with some.
    let alive = heard.iter().filter(|word| *word == "WATCHDOG=1").count();
    assert!((2..=5).contains(&alive) && heard.len() == alive + 2, "{heard:?}");
}
