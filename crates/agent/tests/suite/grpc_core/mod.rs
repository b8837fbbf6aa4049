//! Clients on gRPC's core library, which names the socket's path as `:authority`: a real one, and its bytes.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use assay_wire::workload::{X509BundlesResponse, X509svidResponse};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::workload_api::{Api, holding, uid, workload};

/// Runs the calls one after the other on one connection of Debian's `python3-grpcio`; a line for each.
async fn calls(socket: &Path, calls: &[&str]) -> Vec<String> {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suite/grpc_core/client.py");
    let mut python = Command::new("/usr/bin/python3");
    python.arg(client).arg(socket).args(calls);
    let output = tokio::task::spawn_blocking(move || python.output().unwrap()).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    said.lines().map(str::to_owned).collect()
}

fn decoded<T: Message + Default>(line: &str) -> T {
    T::decode(data_encoding::HEXLOWER.decode(line.as_bytes()).unwrap().as_slice()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn python_programs_get_their_identities() {
    let api = Api::serve();
    api.held.send_replace(holding(vec![workload("web", &format!("uid:{}", uid()), Some(1))]));
    let header = "workload.spiffe.io=true";
    let asked = [
        format!("FetchX509SVID {header}"),
        format!("FetchX509Bundles {header}"),
        // By now the authority comes as an index of what the connection has seen.
        format!("FetchX509SVID {header} another=header"),
        "FetchX509SVID".to_owned(),
        format!("FetchWITSVID {header}"),
    ];
    let said = calls(&api.socket, &asked.each_ref().map(String::as_str)).await;
    let [svids, bundles, again, no_header, unknown] = said.as_slice() else { panic!("{said:?}") };
    for answer in [svids, again] {
        assert_eq!(decoded::<X509svidResponse>(answer).svids[0].spiffe_id, "spiffe://example.org/web");
    }
    assert!(decoded::<X509BundlesResponse>(bundles).bundles.contains_key("spiffe://example.org"));
    assert_eq!([no_header.as_str(), unknown.as_str()], ["INVALID_ARGUMENT", "UNIMPLEMENTED"]);
}

/// A field that the peer puts into its table: RFC 7541 §6.2.1, its name in the static table or spelled out.
fn kept(name: Result<u8, &str>, value: &str) -> Vec<u8> {
    let string = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let name = match name {
        Ok(index) => vec![0x40 | index],
        Err(name) => [vec![0x40], string(name)].concat(),
    };
    [name, string(value)].concat()
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    [&[0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream], payload].concat()
}

/// What comes back until nothing comes for a moment or the connection ends.
async fn answer(socket: &Path, frames: &[Vec<u8>]) -> (Vec<u8>, bool) {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), frames.concat()].concat();
    stream.write_all(&sent).await.unwrap();
    let (mut said, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        match timeout(Duration::from_millis(500), stream.read(&mut bytes)).await {
            Ok(Ok(0) | Err(_)) => return (said, true),
            Ok(Ok(read)) => said.extend_from_slice(&bytes[..read]),
            Err(_) => return (said, false),
        }
    }
}

fn count(said: &[u8], text: &str) -> usize {
    said.windows(text.len()).filter(|window| *window == text.as_bytes()).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn indices_of_the_connection_mean_what_they_meant() {
    let api = Api::serve();
    api.held.send_replace(holding(vec![workload("web", &format!("uid:{}", uid()), Some(1))]));
    // Entries before and behind the authority in the table: 64 is the header, 65 the authority, 66 the path. The second
    // request asks by index alone, the third takes but the name of the authority from there.
    let rest = [kept(Err("te"), "trailers"), kept(Ok(31), "application/grpc")].concat();
    let first = [
        &[0x83, 0x86][..],
        &kept(Ok(4), "/SpiffeWorkloadAPI/FetchX509SVID"),
        &kept(Ok(1), "run%2Fassay%2Fworkload.sock"),
        &kept(Err("workload.spiffe.io"), "true"),
        &rest,
    ];
    let by_index = [0x83, 0x86, 0xc2, 0xc1, 0xc0, 0xbf, 0xbe];
    let by_name = [&[0x83, 0x86, 0xc2, 0x0f, 65 - 15][..], b"\x07other%2", &[0xc0, 0xbf, 0xbe]].concat();
    let message = [0; 5];
    let ask = |stream: u8, block: &[u8]| {
        let (begin, end) = block.split_at(block.len() / 2);
        [frame(1, 0, stream, begin), frame(9, 4, stream, end), frame(0, 1, stream, &message)].concat()
    };
    let frames = [frame(4, 0, 0, &[]), ask(1, &first.concat()), ask(3, &by_index), ask(5, &by_name)];
    let (said, ended) = answer(&api.socket, &frames).await;
    assert_eq!(count(&said, "spiffe://example.org/web"), 3);
    assert!(!ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_header_blocks_end_their_connection_and_no_other() {
    let api = Api::serve();
    api.held.send_replace(holding(vec![workload("web", &format!("uid:{}", uid()), Some(1))]));
    let settings = frame(4, 0, 0, &[]);
    let begun = frame(1, 0, 1, &[0x83]);
    let endless = [vec![begun.clone()], vec![frame(9, 0, 1, &[]); 4000]].concat();
    // A kilobyte in the table, and then as often as one block can say it.
    let name = kept(Err("a"), &"b".repeat(100));
    let bomb = [vec![frame(1, 0, 1, &name)], vec![frame(9, 0, 1, &[0xbe; 200]); 60]].concat();
    for attack in [
        vec![settings.clone(), begun.clone(), frame(0, 0, 1, &[1])],
        vec![settings.clone(), begun, frame(9, 4, 3, &[])],
        [vec![settings.clone()], endless].concat(),
        vec![settings.clone(), frame(1, 4, 1, &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff])],
        vec![settings.clone(), frame(1, 0xc, 1, &[200])],
        [vec![settings.clone()], bomb, vec![frame(9, 4, 1, &[0x84])]].concat(),
    ] {
        let (said, _) = answer(&api.socket, &attack).await;
        assert_eq!(count(&said, "spiffe://"), 0);
    }
    let said = calls(&api.socket, &["FetchX509SVID workload.spiffe.io=true"]).await;
    assert_eq!(decoded::<X509svidResponse>(&said[0]).svids.len(), 1);
}
