//! JSON: what its members show it to be.

use assay_evidence::HashAlgorithm;
use assay_trust::ear::PROFILE;
use assay_trust::policy::{Envelope, Import};
use data_encoding::{BASE64, BASE64URL, BASE64URL_NOPAD};
use serde_json::{Map, Value as Json};

use super::report::{Report, Severity, Value};
use super::{Context, Fault, Looks, malformed, pem, policy, tee, token};

/// An object or a list, but for white space.
pub(super) fn begins(head: &[u8], _is_all: bool) -> bool {
    let text = head.trim_ascii_start();
    // A section of TOML begins with a bracket as well, and with a word after it.
    text.starts_with(b"{")
        || matches!(text, [b'[', rest @ ..] if matches!(rest.trim_ascii_start(), [b'{' | b'"' | b'[' | b']' | b'0'..=b'9', ..]))
}

/// Reads a document.
pub(super) fn read(bytes: &[u8], context: &Context) -> Result<Report, Fault> {
    let json: Json = serde_json::from_slice(bytes).map_err(|error| malformed("JSON", error))?;
    let text = std::str::from_utf8(bytes).map_err(|error| malformed("JSON", error))?;
    let Json::Object(object) = &json else { return Err(Fault::Unknown(Looks::Json)) };
    let has = |name: &str| object.contains_key(name);
    if has("payload") && has("signatures") {
        return envelope(text, object, context);
    }
    if tee::is_azure(has) {
        return Ok(tee::read_azure(object.keys().map(String::as_str)));
    }
    if has("keys") {
        return keys(object, context);
    }
    if object.get("eat_profile").and_then(Json::as_str) == Some(PROFILE) {
        return Ok(token::read_claims(&json));
    }
    if has("name") && has("version") {
        return policy::describe(text);
    }
    if has("digests") || has("hashes") || has("allowlist") || is_answer_of_keylime(object) {
        return imported(text, object, RUNTIME);
    }
    if !object.is_empty() && object.iter().all(|(name, values)| is_pcr(name, values)) {
        return imported(text, object, TPM);
    }
    if has("scrtm_and_bios") || has("has_secureboot") || has("kernels") {
        return imported(text, object, STATE);
    }
    Err(Fault::Unknown(Looks::Json))
}

/// What Keylime's verifier says to whoever asks for a runtime policy.
fn is_answer_of_keylime(object: &Map<String, Json>) -> bool {
    let results = object.get("results").filter(|_| object.contains_key("code"));
    results.is_some_and(|results| results.get("runtime_policy").is_some())
}

/// PCR values as Keylime pins them: an index with values in a list, and a mask beside them.
fn is_pcr(name: &str, values: &Json) -> bool {
    name == "mask"
        || name.parse::<u8>().is_ok_and(|index| index < 24) && (values.is_array() || values.is_string())
}

/// One of Keylime's policies: what it is called, and how it is taken over.
type Taking =
    (&'static str, &'static str, fn(&mut Import, &str) -> Result<(), assay_trust::policy::ImportError>);

const RUNTIME: Taking = ("keylime-runtime-policy", "runtime policy of Keylime", Import::runtime_policy);
const TPM: Taking = ("keylime-tpm-policy", "PCR policy of Keylime", Import::tpm_policy);
const STATE: Taking =
    ("keylime-refstate", "measured-boot reference state of Keylime", Import::reference_state);

/// What it says, and what would become of it here.
fn imported(text: &str, object: &Map<String, Json>, (kind, what, take): Taking) -> Result<Report, Fault> {
    let mut import = Import::new("inspected");
    take(&mut import, text).map_err(|error| malformed(what, error))?;
    let (made, remarks) = import.finish();
    let count = |value: &Json| match value {
        Json::Object(members) => members.len(),
        Json::Array(values) => values.len(),
        _ => 1,
    };
    let members = object.iter().map(|(name, value)| (name.clone(), count(value)));
    let mut report = Report::new(kind, what)
        .with("members", Value::group(members))
        .with("meta", object.get("meta").map_or(Value::Absent, value_of))
        .with("usable", made.is_ok());
    if let Err(error) = made {
        report.remark(Severity::Error, format!("no policy can be made of it: {error}"));
    }
    policy::take_remarks(&remarks, &mut report);
    Ok(report)
}

/// A DSSE envelope, of a policy or of something else.
fn envelope(text: &str, object: &Map<String, Json>, context: &Context) -> Result<Report, Fault> {
    let member = |name: &str| object.get(name).and_then(Json::as_str).unwrap_or_default();
    let payload_type = member("payloadType");
    let signatures: Vec<Value> = object
        .get("signatures")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .map(|signature| {
            let key = signature.get("keyid").and_then(Json::as_str).unwrap_or_default();
            let bytes =
                signature.get("sig").and_then(Json::as_str).and_then(decode).map_or(0, |sig| sig.len());
            Value::group([("keyid", Value::from(key)), ("bytes", bytes.into())])
        })
        .collect();
    let payload = decode(member("payload")).ok_or_else(|| malformed("an envelope", "payload: not base64"))?;
    let mut report =
        Report::new("dsse", format!("envelope (DSSE) of {payload_type}, {} signature(s)", signatures.len()))
            .with("payload_type", payload_type)
            .with("signatures", Value::List(signatures))
            .with("payload_bytes", payload.len());
    let inner = match Envelope::parse(text) {
        Ok(envelope) => Some(policy::describe(envelope.payload())?),
        Err(error) if payload_type == assay_trust::policy::PAYLOAD_TYPE => {
            return Err(malformed("a signed policy", error));
        }
        // What is signed by others may well be JSON of a kind that is known.
        Err(_) => begins(&payload, true).then(|| read_inner(&payload, context)).flatten(),
    };
    if let Some(inner) = inner {
        report = report.with("holds", inner.title).with(
            "payload",
            Value::group(inner.members.into_iter().map(|member| (member.name, member.value))),
        );
        report.remarks.extend(inner.remarks);
    }
    report.remark(Severity::Note, "the signatures were not looked at (assay policy verify)");
    Ok(report)
}

/// One envelope in another is not opened.
fn read_inner(payload: &[u8], context: &Context) -> Option<Report> {
    let object: Json = serde_json::from_slice(payload).ok()?;
    object.get("signatures").is_none().then(|| read(payload, context).ok()).flatten()
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    BASE64.decode(bytes).or_else(|_| BASE64URL.decode(bytes)).or_else(|_| BASE64URL_NOPAD.decode(bytes)).ok()
}

/// A JWK set: a SPIFFE bundle where it has authorities, or else keys of tokens.
fn keys(object: &Map<String, Json>, context: &Context) -> Result<Report, Fault> {
    let keys = object.get("keys").and_then(Json::as_array).ok_or(Fault::Unknown(Looks::Json))?;
    let text = |key: &Json, name: &str| key.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
    if keys.iter().any(|key| key.get("kty").is_none()) {
        return Err(Fault::Unknown(Looks::Json));
    }
    // RFC 7518, 6.2.2 and 6.4: what is secret of a key of two halves, and a key that is all secret.
    if keys.iter().any(|key| key.get("d").is_some() || key.get("k").is_some()) {
        return Err(Fault::Unknown(Looks::PrivateKey));
    }
    let rows = keys.iter().take(KEYS_MAX).map(|key| {
        let members = ["use", "kty", "crv", "alg", "kid"].map(|name| (name, Value::from(text(key, name))));
        Value::group(members.into_iter().chain([("thumbprint", Value::from(thumbprint(key)))]))
    });
    let rows: Vec<Value> = rows.collect();
    let authorities: Vec<Vec<u8>> = keys
        .iter()
        .filter(|key| text(key, "use") == "x509-svid")
        .filter_map(|key| BASE64.decode(key.get("x5c")?.as_array()?.first()?.as_str()?.as_bytes()).ok())
        .take(KEYS_MAX)
        .collect();
    let number = |name: &str| Value::of(object.get(name).and_then(Json::as_u64));
    let is_bundle = !authorities.is_empty() || object.contains_key("spiffe_sequence");
    let (kind, what) =
        if is_bundle { ("spiffe-bundle", "SPIFFE bundle") } else { ("jwk-set", "set of keys (JWKS)") };
    let mut report = Report::new(kind, format!("{what} of {} keys", keys.len()))
        .with("sequence", number("spiffe_sequence"))
        .with("refresh_hint", number("spiffe_refresh_hint"))
        .with("keys", Value::List(rows));
    if !authorities.is_empty() {
        let bundle = pem::describe_bundle(&authorities, context)?;
        report.remarks.extend(bundle.remarks);
        let members = bundle.members.into_iter().map(|member| (member.name, member.value));
        report = report.with("authorities", Value::group(members));
    }
    Ok(report)
}

/// RFC 7638, and of a key of another type the hash of all that is said of it.
fn thumbprint(key: &Json) -> String {
    let members: &[&str] = match key.get("kty").and_then(Json::as_str) {
        Some("EC") => &["crv", "kty", "x", "y"],
        Some("OKP") => &["crv", "kty", "x"],
        Some("RSA") => &["e", "kty", "n"],
        _ => &[],
    };
    let pair = |name: &&str| Some(format!("\"{name}\":{}", key.get(name)?));
    let pairs: Option<Vec<String>> = members.iter().map(pair).collect();
    let text = pairs.filter(|pairs| !pairs.is_empty()).map(|pairs| format!("{{{}}}", pairs.join(",")));
    let text = text.unwrap_or_else(|| key.to_string());
    BASE64URL_NOPAD.encode(HashAlgorithm::Sha256.hash(&[text.as_bytes()]).as_bytes())
}

/// JSON as a value of a report. The parser bounds how deep it is.
pub(super) fn value_of(json: &Json) -> Value {
    match json {
        Json::Null => Value::Absent,
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => number.as_u64().map_or_else(|| number.to_string().into(), Value::from),
        Json::String(text) => text.as_str().into(),
        Json::Array(values) => Value::List(values.iter().map(value_of).collect()),
        Json::Object(members) => {
            Value::group(members.iter().map(|(name, value)| (name.clone(), value_of(value))))
        }
    }
}

/// Keys of one set that are shown.
const KEYS_MAX: usize = 256;
