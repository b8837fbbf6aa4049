//! A provider as it describes itself, and what is asked of it.

use aws_lc_rs::digest;
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde::Deserialize;

use super::OidcError;

/// Who we are to a provider.
#[derive(Clone)]
pub struct Client {
    /// Our name there.
    pub id: String,
    /// What proves it; without one, PKCE alone binds an answer to us.
    pub secret: Option<String>,
    /// Where people are sent back to.
    pub redirect_uri: String,
}

/// A provider: what its discovery document says of it (Discovery 1.0 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Who it is, as ID tokens name it.
    pub issuer: String,
    /// Where people sign in.
    pub authorization_endpoint: String,
    /// Where a code becomes an ID token.
    pub token_endpoint: String,
    /// Where its keys are.
    pub jwks_uri: String,
    /// Whether its answers name it (RFC 9207): then one that does not is none.
    pub names_itself: bool,
    takes_secret_in_body_only: bool,
}

/// One attempt to sign in: what binds the provider's answers to it. Each is used once.
#[derive(Clone)]
pub struct Attempt {
    /// Binds the answer to the browser that asked.
    pub state: String,
    /// Binds the ID token to the attempt.
    pub nonce: String,
    verifier: String,
}

/// What a token endpoint answers, as far as it is of use.
#[derive(Deserialize)]
pub struct TokenAnswer {
    /// Who signed in.
    pub id_token: String,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    response_types_supported: Vec<String>,
    code_challenge_methods_supported: Option<Vec<String>>,
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
}

impl Provider {
    /// Where a provider's discovery document is.
    pub fn document_url(issuer: &str) -> String {
        format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
    }

    /// Reads the document of this issuer. Its endpoints have to be https, but for those of this machine.
    pub fn read(issuer: &str, json: &[u8]) -> Result<Provider, OidcError> {
        let unreadable = |why| OidcError::Configuration { why };
        let document: Document = serde_json::from_slice(json)
            .map_err(|_| unreadable("it lacks a member that every provider has"))?;
        // Discovery 1.0 §4.3: exactly the issuer, or somebody else answers in its place.
        if document.issuer != issuer {
            return Err(OidcError::Issuer { expected: issuer.to_owned(), found: document.issuer });
        }
        if !document.response_types_supported.iter().any(|kind| kind == "code") {
            return Err(unreadable("it does not offer the authorization code flow"));
        }
        let methods = document.code_challenge_methods_supported;
        if methods.is_some_and(|methods| !methods.iter().any(|method| method == "S256")) {
            return Err(unreadable("it does not offer PKCE with S256"));
        }
        let endpoints = [
            ("authorization_endpoint", &document.authorization_endpoint),
            ("token_endpoint", &document.token_endpoint),
            ("jwks_uri", &document.jwks_uri),
        ];
        for (endpoint, url) in endpoints {
            if !is_safe(url) {
                return Err(OidcError::Endpoint { endpoint, url: url.clone() });
            }
        }
        // Core §9: client_secret_basic where nothing is said.
        let takes = document.token_endpoint_auth_methods_supported;
        let takes_secret_in_body_only =
            takes.is_some_and(|takes| !takes.iter().any(|method| method == "client_secret_basic"));
        Ok(Provider {
            issuer: document.issuer,
            authorization_endpoint: document.authorization_endpoint,
            token_endpoint: document.token_endpoint,
            jwks_uri: document.jwks_uri,
            names_itself: document.authorization_response_iss_parameter_supported,
            takes_secret_in_body_only,
        })
    }

    /// Where the browser goes (Core §3.1.2.1).
    pub fn authorization_url(&self, client: &Client, attempt: &Attempt, scope: &str) -> String {
        let challenge = digest::digest(&digest::SHA256, attempt.verifier.as_bytes());
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &client.id),
            ("redirect_uri", &client.redirect_uri),
            ("scope", scope),
            ("state", &attempt.state),
            ("nonce", &attempt.nonce),
            ("code_challenge", &BASE64URL_NOPAD.encode(challenge.as_ref())),
            ("code_challenge_method", "S256"),
        ]);
        let joint = if self.authorization_endpoint.contains('?') { '&' } else { '?' };
        format!("{}{joint}{query}", self.authorization_endpoint)
    }

    /// What the token endpoint is sent as `application/x-www-form-urlencoded` (Core §3.1.3.1), and the value of the
    /// `Authorization` header beside it, if there is to be one.
    pub fn token_request(&self, client: &Client, attempt: &Attempt, code: &str) -> (String, Option<String>) {
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", client.redirect_uri.as_str()),
            ("code_verifier", attempt.verifier.as_str()),
        ];
        match &client.secret {
            Some(secret) if !self.takes_secret_in_body_only => {
                // RFC 6749 §2.3.1: both are encoded as a form's values first.
                let pair = format!("{}:{}", encoded(&client.id), encoded(secret));
                (form(&fields), Some(format!("Basic {}", BASE64.encode(pair.as_bytes()))))
            }
            secret => {
                fields.push(("client_id", &client.id));
                fields.extend(secret.as_deref().map(|secret| ("client_secret", secret)));
                (form(&fields), None)
            }
        }
    }
}

impl Attempt {
    /// A new one out of random bytes.
    pub fn new(random: &[u8; 96]) -> Attempt {
        let part = |from: usize| BASE64URL_NOPAD.encode(random.get(from..from + 32).unwrap_or_default());
        Attempt { state: part(0), nonce: part(32), verifier: part(64) }
    }
}

impl TokenAnswer {
    /// Reads one (Core §3.1.3.3).
    pub fn read(json: &[u8]) -> Result<TokenAnswer, OidcError> {
        serde_json::from_slice(json).map_err(|_| OidcError::NoToken)
    }
}

/// Whether what is sent there cannot be read on the way: https, or this machine.
pub fn is_safe(url: &str) -> bool {
    let is_local = |rest: &str| {
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = rest.get(..end).unwrap_or_default();
        // What stands behind the last colon is a port and nothing else, or the host may be another's.
        let is_port = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let host =
            authority.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(authority, |(host, _)| host);
        matches!(host, "127.0.0.1" | "localhost" | "[::1]")
    };
    url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty())
        || url.strip_prefix("http://").is_some_and(is_local)
}

/// Fields as `application/x-www-form-urlencoded`.
fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        fields.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const ISSUER: &str = "https://id.example.org";

    fn document() -> Value {
        json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://id.example.org/auth",
            "token_endpoint": "https://id.example.org/token",
            "jwks_uri": "https://id.example.org/keys",
            "response_types_supported": ["code", "id_token"],
        })
    }

    fn client(secret: Option<&str>) -> Client {
        Client {
            id: "assay".to_owned(),
            secret: secret.map(str::to_owned),
            redirect_uri: "https://assay.example.org:8445/sign-in/oidc/back".to_owned(),
        }
    }

    fn read(document: &Value) -> Result<Provider, OidcError> {
        Provider::read(ISSUER, document.to_string().as_bytes())
    }

    #[test]
    fn a_provider_is_asked_for_a_code_that_is_bound_to_the_attempt() {
        let provider = read(&document()).unwrap();
        let attempt = Attempt::new(&[7; 96]);
        let url = provider.authorization_url(&client(None), &attempt, "openid email");
        let expected = "https://id.example.org/auth?response_type=code&client_id=assay&redirect_uri=\
                        https%3A%2F%2Fassay.example.org%3A8445%2Fsign-in%2Foidc%2Fback&scope=openid%20email&state=";
        assert!(url.starts_with(expected), "{url}");
        // What the challenge is of is not in it.
        assert!(url.ends_with("&code_challenge_method=S256"));
        assert!(!url.contains(&format!("code_challenge={}", attempt.verifier)));
    }

    #[test]
    fn a_secret_goes_where_the_provider_wants_it() {
        let (mut document, attempt) = (document(), Attempt::new(&[7; 96]));
        let provider = read(&document).unwrap();
        let (body, header) = provider.token_request(&client(Some("a:b c")), &attempt, "x/y");
        // RFC 6749 §2.3.1: assay:a%3Ab%20c.
        assert_eq!(header.unwrap(), "Basic YXNzYXk6YSUzQWIlMjBj");
        assert!(body.starts_with("grant_type=authorization_code&code=x%2Fy&") && !body.contains("secret"));
        document["token_endpoint_auth_methods_supported"] = json!(["client_secret_post"]);
        let (body, header) = read(&document).unwrap().token_request(&client(Some("s")), &attempt, "x");
        assert!(header.is_none() && body.ends_with("&client_id=assay&client_secret=s"), "{body}");
        let (body, header) = read(&document).unwrap().token_request(&client(None), &attempt, "x");
        assert!(header.is_none() && body.ends_with("&client_id=assay"), "{body}");
    }

    #[test]
    fn who_answers_for_another_or_in_the_clear_is_refused() {
        let with = |member: &str, value: Value| {
            let mut document = document();
            document[member] = value;
            read(&document).unwrap_err()
        };
        assert!(matches!(with("issuer", json!("https://id.example.org/")), OidcError::Issuer { .. }));
        assert!(matches!(
            with("token_endpoint", json!("http://id.example.org/token")),
            OidcError::Endpoint { .. }
        ));
        assert!(matches!(with("jwks_uri", json!("http://localhost.evil/")), OidcError::Endpoint { .. }));
        assert!(matches!(with("jwks_uri", json!(7)), OidcError::Configuration { .. }));
        let plain = with("code_challenge_methods_supported", json!(["plain"]));
        assert!(matches!(plain, OidcError::Configuration { .. }));
        let implicit = with("response_types_supported", json!(["id_token"]));
        assert!(matches!(implicit, OidcError::Configuration { .. }));
    }

    #[test]
    fn only_this_machine_is_reached_in_the_clear() {
        for url in ["https://x", "http://127.0.0.1:5556/dex", "http://localhost/", "http://[::1]:80/x"] {
            assert!(is_safe(url), "{url}");
        }
        for url in [
            "http://x",
            "https://",
            "http://127.0.0.1.evil/",
            "http://localhost@evil/",
            "ftp://x",
            "",
            "http://127.0.0.1:80@evil/",
            "http://[::1]:@evil/",
        ] {
            assert!(!is_safe(url), "{url}");
        }
    }
}
