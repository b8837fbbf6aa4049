//! Entries in a file: our form and SPIRE's, in JSON, YAML or TOML.
//!
//! SPIRE's form is what `spire-server entry create -data` reads and `entry show -output json` prints. What an entry of theirs
//! says that is not offered here is refused, so that none means less than it did.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail};
use assay_identity::Selector;
use assay_identity::selector::Written;
use serde::Deserialize;
use serde_json::{Value, json};

/// The entries of a file, as the console takes them.
pub(super) fn read(path: &Path) -> Result<Vec<Value>> {
    let name = path.display();
    let mut text = String::new();
    let input: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin()),
        _ => Box::new(std::fs::File::open(path).with_context(|| format!("{name}: cannot be read"))?),
    };
    let read = input.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
    if read.with_context(|| format!("{name}: cannot be read as text"))? as u64 > FILE_BYTES_MAX {
        bail!("{name}: longer than {FILE_BYTES_MAX} bytes");
    }
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    entries(&text, extension).with_context(|| name.to_string())
}

fn entries(text: &str, extension: &str) -> Result<Vec<Value>> {
    let parsed: Value = match extension {
        "toml" => toml::from_str(text)?,
        "json" => serde_json::from_str(text)?,
        // JSON is YAML.
        _ => serde_saphyr::from_str(text)?,
    };
    let list = match parsed {
        Value::Array(list) => list,
        Value::Object(mut members) if members.contains_key("entries") => {
            // SPIRE prints a page at a time.
            match members.remove("next_page_token") {
                None | Some(Value::Null) => {}
                Some(Value::String(next)) if next.is_empty() => {}
                Some(_) => bail!("next_page_token: it is the first page alone of what there is"),
            }
            match (members.remove("entries"), members.keys().next()) {
                (_, Some(unknown)) => bail!("{unknown:?} beside entries"),
                (Some(Value::Array(list)), None) => list,
                _ => bail!("entries is no list"),
            }
        }
        one @ Value::Object(_) => vec![one],
        _ => bail!("no entries: give a list, or a list under the name entries"),
    };
    let read = |(index, entry): (usize, Value)| {
        let entry = serde_json::from_value::<Entry>(entry).map_err(anyhow::Error::from);
        entry.and_then(Entry::ours).with_context(|| format!("entry {}", index + 1))
    };
    list.into_iter().enumerate().map(read).collect()
}

/// An entry in any of the forms.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    spiffe_id: Id,
    #[serde(alias = "parent_id")]
    parent: Id,
    selectors: Vec<AnySelector>,
    #[serde(alias = "x509_svid_ttl", alias = "ttl", default)]
    ttl_seconds: u64,
    #[serde(default)]
    dns_names: Vec<String>,
    #[serde(default)]
    hint: String,
    #[serde(default)]
    speaks_for_node: bool,
    #[serde(default)]
    unquoted: bool,
    #[serde(default)]
    federates_with: Vec<String>,
    #[serde(alias = "jwt_svid_ttl", default)]
    jwt_ttl_seconds: u64,
    #[serde(alias = "entry_expiry", default)]
    expires_at: Value,
    #[serde(flatten)]
    theirs: Theirs,
}

/// What else an entry of SPIRE's has.
#[derive(Deserialize)]
struct Theirs {
    /// Another server's names and times.
    #[serde(default, rename = "id", alias = "entry_id")]
    _id: Value,
    #[serde(default, rename = "revision_number", alias = "revision")]
    _revision: Value,
    #[serde(default, rename = "created_at")]
    _created_at: Value,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    downstream: bool,
    #[serde(default)]
    store_svid: bool,
    #[serde(default)]
    additional_attributes: Option<Attributes>,
}

/// What SPIRE does with the SVIDs of an entry.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Attributes {
    #[serde(rename = "disable_x509_svid_prefetch")]
    _disable_x509_svid_prefetch: bool,
    jwt_svid_include_jti: bool,
}

/// A SPIFFE ID, or in a parent's place what a device is called.
#[derive(Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Parts { trust_domain: String, path: String },
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AnySelector {
    Text(String),
    Parts(Written),
}

impl Entry {
    /// As the console takes it.
    fn ours(self) -> Result<Value> {
        let Entry { spiffe_id, parent, selectors, ttl_seconds, dns_names, hint, speaks_for_node, .. } = self;
        let (unquoted, jwt_ttl_seconds, expires_at, theirs) =
            (self.unquoted, self.jwt_ttl_seconds, self.expires_at, self.theirs);
        let federates_with = self.federates_with;
        if let Some(not_offered) = theirs.not_offered() {
            bail!("{not_offered}");
        }
        let selector = |one: AnySelector| match one {
            AnySelector::Text(text) => text.parse::<Selector>(),
            AnySelector::Parts(written) => Selector::try_from(written),
        };
        let selectors: Vec<Selector> = selectors.into_iter().map(selector).collect::<Result<_, _>>()?;
        let mut ours = json!({
            "spiffe_id": spiffe_id.text(), "parent": parent.text(), "selectors": selectors,
            "ttl_seconds": if ttl_seconds == 0 { TTL_SECONDS } else { ttl_seconds },
            "dns_names": dns_names, "hint": hint, "speaks_for_node": speaks_for_node,
        });
        let said = [
            ("unquoted", unquoted.then_some(json!(true))),
            // A token that may live longer lives for as long as one may here.
            ("jwt_ttl_seconds", (1..JWT_SECONDS).contains(&jwt_ttl_seconds).then(|| json!(jwt_ttl_seconds))),
            ("expires_at", time(&expires_at)?.map(|at| json!(at))),
            ("federates_with", (!federates_with.is_empty()).then(|| json!(federates_with))),
        ];
        if let Some(ours) = ours.as_object_mut() {
            ours.extend(said.into_iter().filter_map(|(member, said)| Some((member.to_owned(), said?))));
        }
        Ok(ours)
    }
}

/// A time in seconds since 1970, which SPIRE prints as text; 0 and nothing are never.
fn time(said: &Value) -> Result<Option<u64>> {
    let seconds = match said {
        Value::Null => Some(0),
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let seconds = seconds.context("expires_at: give seconds since 1970")?;
    Ok(Some(seconds).filter(|seconds| *seconds != 0))
}

impl Theirs {
    fn not_offered(&self) -> Option<&'static str> {
        let with_jti = self.additional_attributes.as_ref().is_some_and(|more| more.jwt_svid_include_jti);
        let cases = [
            (with_jti, "jwt_svid_include_jti: tokens have no number"),
            (self.admin, "admin: an operator's word is not a workload's here"),
            (self.downstream, "downstream: there are no servers below this one"),
            (self.store_svid, "store_svid: SVIDs are put into no store"),
        ];
        cases.into_iter().find(|(is_asked, _)| *is_asked).map(|(_, why)| why)
    }
}

impl Id {
    fn text(self) -> String {
        match self {
            Id::Text(text) => text,
            Id::Parts { trust_domain, path } => format!("spiffe://{trust_domain}{path}"),
        }
    }
}

/// What the console takes at a time is less.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// Where none is given, as in SPIRE.
const TTL_SECONDS: u64 = 3600;
/// No token lives longer.
const JWT_SECONDS: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = r#"{ "spiffe_id": "spiffe://td/web", "parent": "press-1", "selectors": ["unix:uid:7"], "hint": "x" }"#;

    fn expected() -> Value {
        json!({
            "spiffe_id": "spiffe://td/web", "parent": "press-1", "ttl_seconds": 3600, "dns_names": [], "hint": "x",
            "speaks_for_node": false,
            "selectors": [{ "type": "unix", "value": "uid:7" }],
        })
    }

    #[test]
    fn json_yaml_and_toml_say_the_same() {
        let yaml = "entries:\n- spiffe_id: spiffe://td/web\n  parent: press-1\n  selectors: [\"unix:uid:7\"]\n  hint: x\n";
        let toml = "[[entries]]\nspiffe_id = 'spiffe://td/web'\nparent = 'press-1'\nselectors = ['unix:uid:7']\nhint = 'x'\n";
        let cases = [
            (OURS, "json"),
            (&format!("[{OURS}]"), "json"),
            (OURS, ""),
            (yaml, "yaml"),
            (yaml, ""),
            (toml, "toml"),
        ];
        for (text, extension) in cases {
            assert_eq!(entries(text, extension).unwrap(), [expected()], "{text}");
        }
    }

    #[test]
    fn spires_entries_are_read_as_they_are_written_and_printed() {
        let written = r#"{ "entries": [{
            "spiffe_id": "spiffe://td/web", "parent_id": "spiffe://td/spire/agent/tpm/00", "x509_svid_ttl": 200,
            "selectors": [{ "type": "unix", "value": "uid:7" }], "dns_names": ["web"], "admin": false
        }] }"#;
        let printed = r#"{ "entries": [{
            "id": "5", "spiffe_id": { "trust_domain": "td", "path": "/web" }, "x509_svid_ttl": 200,
            "parent_id": { "trust_domain": "td", "path": "/spire/agent/tpm/00" },
            "selectors": [{ "type": "unix", "value": "uid:7" }], "federates_with": [], "admin": false,
            "downstream": false, "expires_at": "0", "dns_names": ["web"], "revision_number": "0", "store_svid": false,
            "jwt_svid_ttl": 0, "hint": "", "created_at": "1678731397",
            "additional_attributes": { "disable_x509_svid_prefetch": true, "jwt_svid_include_jti": false }
        }], "next_page_token": "" }"#;
        let [written, printed] = [written, printed].map(|text| entries(text, "json").unwrap());
        assert_eq!(written, printed);
        assert_eq!(written[0]["parent"], "spiffe://td/spire/agent/tpm/00");
        assert_eq!(written[0]["ttl_seconds"], 200);
        let more = OURS
            .replace("\"hint\": \"x\"", "\"expires_at\": \"7\", \"jwt_svid_ttl\": 60, \"unquoted\": true, \"federates_with\": [\"spiffe://other\"]");
        let [more] = entries(&more, "json").unwrap().try_into().unwrap();
        assert_eq!(
            (&more["expires_at"], &more["jwt_ttl_seconds"], &more["unquoted"]),
            (&json!(7), &json!(60), &json!(true))
        );
        assert_eq!(more["federates_with"], json!(["spiffe://other"]));
    }

    #[test]
    fn what_would_mean_less_here_is_refused_with_its_place() {
        let with = |more: &str| OURS.replace("\"hint\": \"x\"", more);
        let cases = [
            (with("\"admin\": true"), "admin"),
            (with("\"downstream\": true"), "downstream"),
            (with("\"expires_at\": \"soon\""), "expires_at"),
            (with("\"additional\": 1"), "additional"),
            (OURS.replace("unix:uid:7", "unix:uit:7"), "unix:uid:7"),
            (with("\"additional_attributes\": { \"jwt_svid_include_jti\": true }"), "no number"),
            (format!("{{ \"entries\": [{OURS}], \"next_page_token\": \"x\" }}"), "first page"),
            (format!("{{ \"entries\": [{OURS}], \"more\": [] }}"), "beside entries"),
            ("7".to_owned(), "give a list"),
            ("entries: 7".to_owned(), "no list"),
        ];
        for (text, says) in cases {
            let error = format!("{:#}", entries(&text, "yaml").unwrap_err());
            assert!(error.contains(says), "{text}: {error}");
        }
        let second = format!("{:#}", entries(&format!("[{OURS}, {{}}]"), "json").unwrap_err());
        assert!(second.contains("entry 2"), "{second}");
    }
}
