//! One question to a program of this machine that speaks HTTP, and its answer, within a bound.

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};

/// There is no answer that could be read.
#[derive(Debug, Error)]
pub(crate) enum ExchangeError {
    /// The path, host or token is none.
    #[error("it cannot be asked")]
    Request(#[from] http::Error),
    /// The exchange broke.
    #[error("it did not answer as HTTP does")]
    Http(#[from] hyper::Error),
    /// It said no.
    #[error("it answered {0}")]
    Status(StatusCode),
    /// The answer is too long, or broke off.
    #[error("its answer could not be read whole")]
    Body,
}

/// Gets what is at a path of a host, showing a token where there is one. Whoever asks bounds the time.
pub(super) async fn get(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    (path, host, token): (&str, &str, Option<&str>),
    bytes_max: usize,
) -> Result<Bytes, ExchangeError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let mut request = Request::get(path).header(header::HOST, host);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        if response.status() != StatusCode::OK {
            return Err(ExchangeError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), bytes_max).collect().await;
        Ok(body.map_err(|_| ExchangeError::Body)?.to_bytes())
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        ended = &mut connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(error.into()),
        },
    }
}
