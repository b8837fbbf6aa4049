//! What an engine says of a container: Docker's API on its unix socket, which Podman's service speaks as well.
//!
//! An engine is believed only where it runs as root, or as the agent does: a user's own engine would say of the user's
//! containers whatever they like.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use assay_identity::selector::Sha256;
use assay_identity::selector::docker::Docker;
use data_encoding::HEXLOWER_PERMISSIVE;
use hyper::body::Bytes;
use serde::Deserialize;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::cgroup::{Cgroups, Container, Engine};
use super::exchange::{self, ExchangeError};
use super::kubelet::Kubelet;

/// Where engines answer.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Engines {
    /// Docker's API.
    pub docker: PathBuf,
    /// Podman's service for containers of the system.
    pub podman: PathBuf,
    /// The node's kubelet, for entries with k8s: selectors.
    pub kubelet: Option<Kubelet>,
}

impl Default for Engines {
    fn default() -> Self {
        Engines { docker: "/run/docker.sock".into(), podman: "/run/podman/podman.sock".into(), kubelet: None }
    }
}

impl Engines {
    /// What a container is, by the engine whose it is.
    pub(crate) async fn describe(&self, container: &Container) -> Result<Description, EngineError> {
        let socket = match container.engine {
            Engine::Docker => &self.docker,
            Engine::Podman => &self.podman,
            Engine::Cri => return Err(EngineError::OfAKubelet),
        };
        let description = inspect(socket, &container.id).await?;
        // Whoever may name a control group could name it as another's container: the engine says which process it started.
        let first = PathBuf::from(format!("/proc/{}/cgroup", description.first_process));
        let its = spawn_blocking(move || Cgroups::of(&first).container).await.ok().flatten();
        match its.is_some_and(|its| its.id == container.id) {
            true => Ok(description),
            false => Err(EngineError::AnotherGroup),
        }
    }
}

/// A container as its engine describes it.
#[derive(Debug)]
pub(crate) struct Description {
    labels: HashMap<String, String>,
    /// NAME=VALUE.
    environment: Vec<String>,
    /// The image by the name that it was started by.
    image: String,
    image_config: Option<Sha256>,
    /// The number of its first process.
    first_process: i32,
}

/// An engine could not say what a container is.
#[derive(Debug, Error)]
pub(crate) enum EngineError {
    /// Nobody answers there.
    #[error("{socket}: no engine answers")]
    Unreachable { socket: PathBuf, source: io::Error },
    /// Whoever answers is not root.
    #[error("{socket}: whoever serves there runs as user {uid}, who could say anything")]
    NotRoots { socket: PathBuf, uid: u32 },
    /// The exchange broke, or it said no.
    #[error("the engine does not answer")]
    Exchange(#[from] ExchangeError),
    /// It is no description of a container.
    #[error("the engine's answer does not read")]
    Json(#[from] serde_json::Error),
    /// It is of another container.
    #[error("the engine described another container")]
    Another,
    /// The control group only bears the container's name.
    #[error("the engine's container is not in the control group of that name")]
    AnotherGroup,
    /// The engine is a kubelet's, which describes pods.
    #[error("the container is a pod's: docker: selectors say nothing of it")]
    OfAKubelet,
    /// The container does not run.
    #[error("the container does not run")]
    Stopped,
    /// It takes too long.
    #[error("the engine did not answer within {ANSWER_WITHIN:?}")]
    Silent,
}

/// Asks the engine at a socket about a container.
async fn inspect(socket: &Path, id: &str) -> Result<Description, EngineError> {
    let asked = timeout(ANSWER_WITHIN, ask(socket, id)).await;
    Description::parse(&asked.map_err(|_| EngineError::Silent)??, id)
}

async fn ask(socket: &Path, id: &str) -> Result<Bytes, EngineError> {
    let unreachable = |source| EngineError::Unreachable { socket: socket.to_owned(), source };
    let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
    let uid = stream.peer_cred().map_err(unreachable)?.uid();
    if uid != 0 && uid != rustix::process::geteuid().as_raw() {
        return Err(EngineError::NotRoots { socket: socket.to_owned(), uid });
    }
    let path = format!("/containers/{id}/json");
    Ok(exchange::get(stream, (&path, "localhost", None), ANSWER_BYTES_MAX).await?)
}

impl Description {
    /// Reads the answer to `GET /containers/ID/json`.
    fn parse(json: &[u8], id: &str) -> Result<Description, EngineError> {
        let answer: Answer = serde_json::from_slice(json)?;
        if answer.id != id {
            return Err(EngineError::Another);
        }
        if !answer.state.running || answer.state.pid <= 0 {
            return Err(EngineError::Stopped);
        }
        Ok(Description {
            labels: answer.config.labels.unwrap_or_default(),
            environment: answer.config.env.unwrap_or_default(),
            image: answer.config.image,
            image_config: digest(&answer.image),
            first_process: answer.state.pid,
        })
    }

    /// Whether this holds of the container.
    pub(crate) fn has(&self, wanted: &Docker) -> bool {
        match wanted {
            Docker::Label { key, value } => self.labels.get(key) == Some(value),
            Docker::Env { name, value } => {
                let is_it = |one: &String| one.split_once('=') == Some((name, value));
                self.environment.iter().any(is_it)
            }
            Docker::ImageId(image) => self.image == *image,
            Docker::ImageConfigDigest(hash) => self.image_config == Some(*hash),
        }
    }
}

/// Docker writes the algorithm before the digits, Podman has written the digits alone.
fn digest(text: &str) -> Option<Sha256> {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    <[u8; 32]>::try_from(HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?).ok().map(Sha256::from)
}

/// Of what Docker's API 1.24 and later says, the part that tells containers apart.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    id: String,
    /// The image itself.
    image: String,
    state: State,
    config: Configuration,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct State {
    running: bool,
    pid: i32,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration {
    image: String,
    labels: Option<HashMap<String, String>>,
    env: Option<Vec<String>>,
}

/// An engine that is busy starting containers answers within a second.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// A description has some ten kilobytes; labels and environment are what makes it longer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;

    use super::*;

    const ID: &str = "4c4fcc7c6a0d3b1a8d2e5f60718293a4b5c6d7e8f90112233445566778899aab";

    /// What Docker 28 says of a container, less what does not tell it apart.
    fn docker(pid: i32) -> String {
        format!(
            r#"{{"Id":"{ID}","Created":"2026-03-01T08:00:00.1Z","Path":"/web","Args":[],"State":{{"Status":"running",
            "Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":{pid},"ExitCode":0}},
            "Image":"sha256:{}","Name":"/web","RestartCount":0,"Driver":"overlay2","HostConfig":{{"Binds":null}},
            "Config":{{"Hostname":"4c4fcc7c6a0d","User":"1000","Env":["PATH=/usr/bin:/bin","ROLE=web","URL=a=b"],
            "Cmd":["/web"],"Image":"registry.example/web:1.2","Labels":{{"role":"web","empty":""}}}},
            "NetworkSettings":{{}}}}"#,
            "ab".repeat(32)
        )
    }

    /// Podman writes the image's digits alone, and null for no labels.
    fn podman() -> String {
        docker(7).replace("sha256:", "").replace(r#"{"role":"web","empty":""}"#, "null")
    }

    /// Answers one request.
    async fn engine(status: &str, body: String) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("docker.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 1024];
            let read = stream.read(&mut asked).await.unwrap();
            assert!(asked[..read].starts_with(format!("GET /containers/{ID}/json ").as_bytes()));
            let _ = stream.write_all(answer.as_bytes()).await;
        });
        (folder, socket)
    }

    async fn asked(status: &str, body: String) -> Result<Description, EngineError> {
        let (_folder, socket) = engine(status, body).await;
        inspect(&socket, ID).await
    }

    #[tokio::test]
    async fn an_engines_word_is_held_against_selectors() {
        let check = |description: &Description, value: &str, expected| {
            let Ok(assay_identity::Selector::Docker(wanted)) = format!("docker:{value}").parse() else {
                panic!()
            };
            assert_eq!(description.has(&wanted), expected, "{value}");
        };
        let of_docker = asked("200 OK", docker(7)).await.unwrap();
        assert_eq!(of_docker.first_process, 7);
        let digest = format!("image_config_digest:sha256:{}", "ab".repeat(32));
        for (value, expected) in [
            ("label:role:web", true),
            ("label:role:we", false),
            ("label:empty:", true),
            ("label:other:", false),
            ("env:ROLE=web", true),
            ("env:URL=a=b", true),
            ("env:ROLE=", false),
            ("image_id:registry.example/web:1.2", true),
            ("image_id:registry.example/web", false),
            (&digest, true),
            (&digest.replace("ab", "cd"), false),
        ] {
            check(&of_docker, value, expected);
        }
        let of_podman = asked("200 OK", podman()).await.unwrap();
        check(&of_podman, &digest, true);
        check(&of_podman, "label:role:web", false);
    }

    #[tokio::test]
    async fn what_is_no_description_of_this_container_says_nothing() {
        let refused = async |status, body| asked(status, body).await.unwrap_err();
        assert!(matches!(
            refused("404 Not Found", "{}".into()).await,
            EngineError::Exchange(ExchangeError::Status(_))
        ));
        assert!(matches!(refused("200 OK", "{}".into()).await, EngineError::Json(_)));
        assert!(matches!(refused("200 OK", "[".repeat(1 << 16)).await, EngineError::Json(_)));
        assert!(matches!(
            refused("200 OK", " ".repeat((1 << 20) + 1)).await,
            EngineError::Exchange(ExchangeError::Body)
        ));
        assert!(matches!(refused("200 OK", docker(0)).await, EngineError::Stopped));
        let stopped = docker(7).replace(r#""Running":true"#, r#""Running":false"#);
        assert!(matches!(refused("200 OK", stopped).await, EngineError::Stopped));
        let another = docker(7).replace("4c4fcc7c6a0d3b1a", "0000000000000000");
        assert!(matches!(refused("200 OK", another).await, EngineError::Another));
        let nobody = inspect(Path::new("/nowhere/docker.sock"), ID).await;
        assert!(matches!(nobody, Err(EngineError::Unreachable { .. })));
    }

    #[tokio::test]
    async fn a_group_that_bears_the_name_of_a_container_is_not_it() {
        let own = i32::try_from(std::process::id()).unwrap();
        let (_folder, docker) = engine("200 OK", docker(own)).await;
        let engines = Engines { docker, ..Engines::default() };
        let of = |engine| Container { id: ID.to_owned(), engine, pod: None };
        assert!(matches!(engines.describe(&of(Engine::Docker)).await, Err(EngineError::AnotherGroup)));
        assert!(matches!(engines.describe(&of(Engine::Cri)).await, Err(EngineError::OfAKubelet)));
    }
}
