//! The operator's side: JSON over HTTP, one connection a request.

use anyhow::{Result, bail};
use assay_testkit::edge::Door;
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

/// The console, asked with the operator's token.
pub struct Console {
    door: Door,
    token: String,
}

impl Console {
    pub fn new(door: Door, token: &str) -> Console {
        Console { door, token: token.to_owned() }
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        self.json(Method::GET, path, String::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.json(Method::POST, path, body.to_string()).await
    }

    /// Approves the files that the device's last result refused, as it names them.
    pub async fn approve(&self, device: &str) -> Result<Value> {
        let shown = self.get(&format!("/v1/devices/{device}")).await?;
        let findings = shown.get("findings").and_then(Value::as_array).into_iter().flatten();
        let files: Vec<Value> = findings
            .filter(|finding| finding.get("check").and_then(Value::as_str) == Some("ima-policy"))
            .map(|finding| json!({ "path": finding.get("claim"), "digest": finding.get("found") }))
            .collect();
        let approval = json!({ "result": shown.get("result"), "files": files });
        self.post(&format!("/v1/devices/{device}/approve"), &approval).await
    }

    pub async fn post_text(&self, path: &str, text: &str) -> Result<Value> {
        self.json(Method::POST, path, text.to_owned()).await
    }

    pub async fn put(&self, path: &str, text: &str) -> Result<Value> {
        self.json(Method::PUT, path, text.to_owned()).await
    }

    pub async fn delete(&self, path: &str) -> Result<Value> {
        self.json(Method::DELETE, path, String::new()).await
    }

    pub async fn bytes(&self, path: &str) -> Result<Vec<u8>> {
        self.request(Method::GET, path, String::new()).await
    }

    async fn json(&self, method: Method, path: &str, body: String) -> Result<Value> {
        Ok(serde_json::from_slice(&self.request(method, path, body).await?)?)
    }

    /// Posts a body with these headers, without the operator's token.
    pub async fn post_signed(
        &self,
        path: &str,
        headers: &[(String, String)],
        body: &str,
    ) -> Result<(u16, Value)> {
        let mut request = Request::post(path).header(header::HOST, &self.door.address);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let (status, body) = self.exchange(request.body(Full::new(Bytes::from(body.to_owned())))?).await?;
        Ok((status.as_u16(), serde_json::from_slice(&body)?))
    }

    async fn request(&self, method: Method, path: &str, body: String) -> Result<Vec<u8>> {
        let request = Request::builder()
            .method(method.clone())
            .uri(path)
            .header(header::HOST, &self.door.address)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::new(Bytes::from(body)))?;
        let (status, body) = self.exchange(request).await?;
        if !status.is_success() {
            bail!("{method} {path}: {status} {}", String::from_utf8_lossy(&body));
        }
        Ok(body.to_vec())
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes)> {
        let stream = self.door.dial("http/1.1").await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await?;
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}
