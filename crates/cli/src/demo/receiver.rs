//! Whom the server tells what happens: an HTTP endpoint of the demo's own, which believes what is signed with its secret.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use aws_lc_rs::hmac;
use data_encoding::BASE64;
use serde_json::Value;

/// A receiver and what it was told, with when.
pub struct Receiver {
    address: SocketAddr,
    key: [u8; 32],
    told: Arc<Mutex<Vec<(Instant, Value)>>>,
}

impl Receiver {
    /// Listens until the program ends.
    pub fn start() -> Result<Receiver> {
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).ok().context("the random source failed")?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let (address, told) = (listener.local_addr()?, Arc::<Mutex<Vec<_>>>::default());
        let heard = told.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = heard.clone();
                std::thread::spawn(move || serve(&stream, &key, &heard));
            }
        });
        Ok(Receiver { address, key, told })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/assay", self.address)
    }

    /// What it verifies signatures with, as the server's configuration wants it.
    pub fn secret(&self) -> String {
        format!("whsec_{}", BASE64.encode(&self.key))
    }

    /// The first of what it was told since then that is such.
    pub fn heard(&self, since: Instant, is_it: impl Fn(&Value) -> bool) -> Option<(Instant, Value)> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().find(|(at, event)| *at >= since && is_it(event)).cloned()
    }
}

/// Answers the requests of one connection until it ends.
fn serve(stream: &TcpStream, key: &[u8], told: &Mutex<Vec<(Instant, Value)>>) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(600)))?;
    let (mut reader, mut writer) = (BufReader::new(stream), stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.by_ref().take(HEAD_BYTES_MAX).read_line(&mut head)? == 0
                || head.len() > HEAD_BYTES_MAX as usize
            {
                return Ok(());
            }
        }
        let header = |name: &str| {
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            lines
                .find(|(found, _)| found.eq_ignore_ascii_case(name))
                .map(|(_, value)| value.trim().to_owned())
        };
        let length: usize = header("content-length").context("no length")?.parse()?;
        let mut body = vec![0; length.min(BODY_BYTES_MAX)];
        reader.read_exact(&mut body)?;
        let signed =
            [header("webhook-id"), header("webhook-timestamp")].map(Option::unwrap_or_default).join(".");
        let signed = [signed.as_bytes(), b".", &body].concat();
        let signature = header("webhook-signature").unwrap_or_default();
        let signature = BASE64.decode(signature.strip_prefix("v1,").unwrap_or_default().as_bytes())?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        let status = match hmac::verify(&key, &signed, &signature) {
            Ok(()) => {
                let event = (Instant::now(), serde_json::from_slice(&body)?);
                told.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                "204 No Content"
            }
            Err(_) => "401 Unauthorized",
        };
        writer.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
    }
}

const HEAD_BYTES_MAX: u64 = 16 << 10;
const BODY_BYTES_MAX: usize = 1 << 20;
