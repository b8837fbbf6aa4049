//! How people sign in with a provider, as it is configured.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use assay_identity::oidc::{Client, IdToken, Provider, is_safe};
use assay_trust::labels::Selector;
use rustls::ClientConfig;
use serde::Deserialize;
use thiserror::Error;

use crate::actor::Actor;
use crate::door::outward::anchors;
use crate::keys::{FileError, read_secret};
use crate::principal::{Principal, Role};

/// The provider of OpenID Connect that people sign in with, and which of them may do what.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OidcConfig {
    /// The provider's issuer, exactly as it calls itself, such as `https://id.example.org/realms/edge`.
    pub issuer: String,
    /// What the sign-in page calls it; the issuer's host, if nothing is said.
    #[serde(default)]
    pub name: String,
    /// What this server is called there.
    pub client_id: String,
    /// A file with the secret that goes with it. Without one, PKCE alone binds answers to this server.
    #[serde(default)]
    pub client_secret_file: Option<PathBuf>,
    /// Certificates that the provider is recognised by, PEM; those that Debian trusts, if nothing is said.
    #[serde(default = "debians_anchors")]
    pub ca: PathBuf,
    /// How browsers reach the console, such as `https://assay.example.org:8445`. The provider has to know `/sign-in/oidc/back` under
    /// it as a redirect URI.
    pub console_url: String,
    /// What is asked for beside `openid`.
    #[serde(default = "scopes_default")]
    pub scopes: Vec<String>,
    /// The claim that the trail calls people by.
    #[serde(default = "name_claim_default")]
    pub name_claim: String,
    /// Who may do what: the first that fits counts, and whom none fits stays out. A table each: `role`, `claim`, `value`, and perhaps
    /// `scope`, the labels of the devices that it is for.
    #[serde(default)]
    pub role: Vec<RoleRule>,
}

/// Whoever has a claim has a role.
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    /// What they may do: `viewer`, `operator`, `policy-author` or `admin`.
    pub role: Role,
    /// The claim of the ID token: text, or a list of texts.
    pub claim: String,
    /// What it has to be, or to have.
    pub value: String,
    /// The labels of the devices that they may see, `key=value,key=value`; empty: all.
    #[serde(default)]
    pub scope: String,
}

/// What is needed to speak to the provider.
pub(super) struct Loaded {
    pub client: Client,
    pub tls: Option<Arc<ClientConfig>>,
    pub scopes: String,
    pub rules: Vec<(RoleRule, Selector)>,
}

/// Nobody can sign in as it is configured.
#[derive(Debug, Error)]
pub enum OidcConfigError {
    /// Something that cannot be so.
    #[error("oidc.{key}: {problem}")]
    Unusable {
        /// Which.
        key: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A file cannot be read.
    #[error("oidc: {} cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A secret is not there, or others may have read it.
    #[error("oidc: {0}")]
    Private(#[from] FileError),
}

impl OidcConfig {
    pub(crate) fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.client_secret_file.iter_mut().chain([&mut self.ca])
    }

    pub(super) fn load(&self) -> Result<Loaded, OidcConfigError> {
        let unusable = |key, problem| OidcConfigError::Unusable { key, problem };
        if !is_safe(&self.issuer) {
            return Err(unusable(
                "issuer",
                "give https://HOST, perhaps with a path; http is for this machine alone",
            ));
        }
        if !is_safe(&self.console_url) || self.console_url.ends_with('/') {
            return Err(unusable(
                "console_url",
                "give https://HOST:PORT as browsers reach it, without a slash at the end",
            ));
        }
        if self.client_id.is_empty() {
            return Err(unusable("client_id", "is empty"));
        }
        if self.role.is_empty() {
            return Err(unusable("role", "say who may do what, or nobody gets in"));
        }
        let rules = self.role.iter().map(|rule| {
            let scope: Selector =
                rule.scope.parse().map_err(|_| unusable("role.scope", "is key=value,key=value"))?;
            match rule.role == Role::Admin && !scope.is_empty() {
                true => Err(unusable("role.scope", "an admin decides over every device, and has none")),
                false => Ok((rule.clone(), scope)),
            }
        });
        let rules = rules.collect::<Result<_, _>>()?;
        let secret = self.client_secret_file.as_deref().map(secret).transpose()?;
        let tls = if self.issuer.starts_with("https://") { Some(self.tls()?) } else { None };
        let redirect_uri = format!("{}{BACK}", self.console_url);
        let client = Client { id: self.client_id.clone(), secret, redirect_uri };
        let scopes = std::iter::once("openid").chain(self.scopes.iter().map(String::as_str));
        Ok(Loaded { client, tls, scopes: scopes.collect::<Vec<_>>().join(" "), rules })
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, OidcConfigError> {
        let pem = std::fs::read(&self.ca)
            .map_err(|source| OidcConfigError::File { path: self.ca.clone(), source })?;
        let empty = OidcConfigError::Unusable { key: "ca", problem: "has no certificate in it" };
        let anchors = anchors(&pem).ok_or(empty)?;
        Ok(Arc::new(ClientConfig::builder().with_root_certificates(anchors).with_no_client_auth()))
    }

    /// What people read on the sign-in page.
    pub(super) fn shown_name(&self) -> String {
        let host = || self.issuer.split('/').nth(2).unwrap_or(&self.issuer).to_owned();
        if self.name.is_empty() { host() } else { self.name.clone() }
    }

    /// Where the provider describes itself.
    pub(super) fn document_url(&self) -> String {
        Provider::document_url(&self.issuer)
    }
}

impl Loaded {
    /// What somebody may do whom the provider vouches for; `None`: nothing.
    pub(super) fn principal(&self, person: &IdToken, name_claim: &str) -> Option<Principal> {
        let (rule, scope) = self.rules.iter().find(|(rule, _)| person.says(&rule.claim, &rule.value))?;
        let claimed = person.text(name_claim).filter(|name| is_fit(name));
        // An address that the provider has not seen to be theirs is anybody's.
        let claimed = claimed.filter(|_| name_claim != "email" || person.may_go_by_email());
        let name = claimed.or(Some(person.subject.as_str()).filter(|subject| is_fit(subject)))?;
        Some(Principal { actor: Actor::person(name)?, role: rule.role, scope: scope.clone() })
    }
}

/// Whether the trail can call somebody so, and nobody takes it for another's.
fn is_fit(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())
}

fn secret(path: &Path) -> Result<String, OidcConfigError> {
    let text = String::from_utf8(read_secret(path)?).unwrap_or_default();
    match text.trim() {
        "" => Err(OidcConfigError::Unusable { key: "client_secret_file", problem: "has no secret in it" }),
        text => Ok(text.to_owned()),
    }
}

fn debians_anchors() -> PathBuf {
    PathBuf::from("/etc/ssl/certs/ca-certificates.crt")
}

fn scopes_default() -> Vec<String> {
    ["email", "profile"].map(str::to_owned).to_vec()
}

fn name_claim_default() -> String {
    "email".to_owned()
}

/// Where the provider sends people back to, under the console's address.
pub(crate) const BACK: &str = "/sign-in/oidc/back";
