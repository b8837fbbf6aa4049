//! What SPIRE's words mean here. Each has a line of the table, and what has none is said to have none.

use anyhow::{Result, bail};
use serde::Serialize;
use toml::{Table, Value};

use super::leaves::Leaf;

/// A configuration of ours, and what it does not say.
#[derive(Debug)]
pub(super) struct Imported {
    pub kind: &'static str,
    pub configuration: Table,
    pub commands: Vec<String>,
    pub differences: Vec<Difference>,
}

/// Something that is otherwise here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Difference {
    pub path: String,
    pub value: String,
    /// What there is instead, or that there is nothing.
    pub here: String,
}

/// What a word becomes.
enum Becomes {
    /// A text of the configuration.
    Text(&'static str),
    /// A list of paths of it.
    Paths(&'static str),
    /// Seconds of it, from a duration as Go writes it.
    Seconds(&'static str),
    /// An address: this much of it.
    Host(&'static str),
    Port(&'static str),
    /// A TPM's device.
    Tpm,
    /// Whom to federate with: the trust domain is the third word of the path.
    Url,
    EndpointId,
    /// It is so without a word, or is said somewhere else.
    Otherwise(&'static str),
    /// There is no such thing.
    NotHere(&'static str),
}

type Line = (&'static str, Becomes);

/// Translates what a file says.
pub(super) fn import(leaves: &[Leaf]) -> Result<Imported> {
    let is =
        |section: &str| leaves.iter().any(|leaf| leaf.path.first().is_some_and(|first| first == section));
    let (kind, table) = match (is("server"), is("agent")) {
        (true, false) => ("server", server()),
        (false, true) => ("agent", agent()),
        _ => bail!("give SPIRE's server.conf or agent.conf: there is one section, server or agent, in it"),
    };
    let mut importing = Importing::default();
    for leaf in leaves {
        let line = table.iter().find(|(pattern, _)| matches(pattern, &leaf.path));
        importing.take(leaf, line.map(|(_, becomes)| becomes));
    }
    if kind == "server" {
        importing.finish_server();
    }
    let Importing { configuration, mut commands, differences, endpoints, .. } = importing;
    commands.extend(endpoints.into_iter().map(Endpoint::command));
    Ok(Imported { kind, configuration, commands, differences })
}

#[derive(Default)]
struct Importing {
    configuration: Table,
    commands: Vec<String>,
    differences: Vec<Difference>,
    endpoints: Vec<Endpoint>,
    host: Option<String>,
    port: Option<String>,
}

#[derive(Default)]
struct Endpoint {
    trust_domain: String,
    url: String,
    id: Option<String>,
}

impl Endpoint {
    fn command(self) -> String {
        let Endpoint { trust_domain, url, id } = self;
        let id = id.map(|id| format!(" --endpoint-spiffe-id {id} --bundle FILE")).unwrap_or_default();
        format!("assay federation create {trust_domain} --url {url}{id}")
    }
}

impl Importing {
    fn take(&mut self, leaf: &Leaf, becomes: Option<&Becomes>) {
        let first = leaf.values.first().cloned().unwrap_or_default();
        match becomes {
            None => self.differ(leaf, "not understood: nothing here goes by it"),
            Some(Becomes::Text(key)) => self.set(key, Value::String(first)),
            Some(Becomes::Paths(key)) => {
                for value in &leaf.values {
                    self.push(key, value);
                }
            }
            Some(Becomes::Seconds(key)) => match seconds(&first) {
                Some(seconds) => self.set(key, Value::Integer(seconds)),
                None => self.differ(leaf, "not understood: it is no duration"),
            },
            Some(Becomes::Host(key)) => {
                self.host = Some(first);
                self.address(key);
            }
            Some(Becomes::Port(key)) => {
                self.port = Some(first);
                self.address(key);
            }
            Some(Becomes::Tpm) => self.set("tpm", Value::String(first)),
            Some(Becomes::Url) => self.endpoint(leaf).url = first,
            Some(Becomes::EndpointId) => self.endpoint(leaf).id = Some(first),
            Some(Becomes::Otherwise(here)) => self.differ(leaf, here),
            Some(Becomes::NotHere(why)) => self.differ(leaf, &format!("not here: {why}")),
        }
    }

    fn differ(&mut self, leaf: &Leaf, here: &str) {
        // Keys, passwords and tokens may stand in such a file.
        let is_secret = leaf.path.last().is_some_and(|last| SECRET.iter().any(|word| last.contains(word)));
        let value = if is_secret { "…".to_owned() } else { leaf.values.join(", ") };
        self.differences.push(Difference { path: leaf.path.join("."), value, here: here.to_owned() });
    }

    /// Sets `section.key` or `key`.
    fn set(&mut self, key: &str, value: Value) {
        match key.split_once('.') {
            None => drop(self.configuration.insert(key.to_owned(), value)),
            Some((section, key)) => drop(self.section(section).insert(key.to_owned(), value)),
        }
    }

    fn push(&mut self, key: &str, value: &str) {
        let (table, key) = match key.split_once('.') {
            None => (&mut self.configuration, key),
            Some((section, key)) => (self.section(section), key),
        };
        let list = table.entry(key).or_insert_with(|| Value::Array(Vec::new()));
        if let Some(list) = list.as_array_mut() {
            list.push(Value::String(value.to_owned()));
        }
    }

    fn section(&mut self, name: &str) -> &mut Table {
        let section = self.configuration.entry(name.to_owned()).or_insert_with(|| Value::Table(Table::new()));
        if !section.is_table() {
            *section = Value::Table(Table::new());
        }
        section.as_table_mut().expect("it was made one a moment ago")
    }

    fn address(&mut self, key: &str) {
        let host = self.host.clone().unwrap_or_else(|| "0.0.0.0".to_owned());
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let port = self.port.clone().unwrap_or_else(|| "8081".to_owned());
        self.set(key, Value::String(format!("{host}:{port}")));
    }

    fn endpoint(&mut self, leaf: &Leaf) -> &mut Endpoint {
        let trust_domain = leaf.path.get(3).cloned().unwrap_or_default();
        let at = self.endpoints.iter().position(|endpoint| endpoint.trust_domain == trust_domain);
        let at = at.unwrap_or_else(|| {
            self.endpoints.push(Endpoint { trust_domain, ..Endpoint::default() });
            self.endpoints.len() - 1
        });
        self.endpoints.get_mut(at).expect("it is there, or was put there a moment ago")
    }

    /// What SPIRE has without a word: its doors are open, by the addresses that it listens at.
    fn finish_server(&mut self) {
        let shown_by = |differences: &[Difference], attestor: &str| {
            let prefix = format!("plugins.NodeAttestor.{attestor}");
            differences.iter().any(|one| one.path.starts_with(&prefix))
        };
        let has_tpm = self.configuration.contains_key("ek_anchors") || shown_by(&self.differences, "tpm");
        if has_tpm {
            self.set("spire.tpm", Value::Boolean(true));
        }
        self.section("spire");
        self.commands
            .push("spire-server entry show -output json > entries.json    # from the old server".to_owned());
        self.commands.push("assay entry import -f entries.json".to_owned());
    }
}

/// Whether a path is the pattern's: `*` is any one word, and `**` at the end is all that follows.
fn matches(pattern: &str, path: &[String]) -> bool {
    let mut words = path.iter();
    for part in pattern.split('.') {
        match (part, words.next()) {
            ("**", _) => return true,
            ("*", Some(_)) => {}
            (part, Some(word)) if part == word => {}
            _ => return false,
        }
    }
    words.next().is_none()
}

/// Go's durations: `1h30m`, `90s`.
fn seconds(text: &str) -> Option<i64> {
    let (mut total, mut number) = (0_f64, String::new());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c.is_ascii_digit() || c == '.' {
            number.push(c);
            continue;
        }
        let is_milli = c == 'm' && rest.next_if_eq(&'s').is_some();
        let unit = match c {
            'h' => 3600.0,
            'm' if is_milli => 0.001,
            'm' => 60.0,
            's' => 1.0,
            _ => return None,
        };
        total += number.parse::<f64>().ok()? * unit;
        number.clear();
    }
    let is_whole = number.is_empty() && (1.0..1e9).contains(&total);
    #[expect(clippy::cast_possible_truncation, reason = "it is below a thousand million")]
    is_whole.then_some(total as i64)
}

fn server() -> Vec<Line> {
    use Becomes::{EndpointId, Host, NotHere, Otherwise, Paths, Port, Seconds, Text, Url};
    vec![
        ("server.trust_domain", Text("trust_domain")),
        ("server.bind_address", Host("spire.address")),
        ("server.bind_port", Port("spire.address")),
        ("server.socket_path", Text("spire.socket")),
        ("server.agent_ttl", Seconds("spire.agent_ttl_seconds")),
        ("server.jwt_issuer", Text("jwt_issuer")),
        ("server.data_dir", Otherwise("data is a folder of this server's own, and not SPIRE's")),
        (
            "server.default_x509_svid_ttl",
            Otherwise("each entry has its own, 3600 seconds if it says nothing (--ttl)"),
        ),
        ("server.default_jwt_svid_ttl", Otherwise("each entry has its own, 300 seconds at most (--jwt-ttl)")),
        ("server.log_level", Otherwise("the log goes to standard error, by ASSAY_LOG=assay_server=debug")),
        ("server.log_file", Otherwise("the log goes to standard error")),
        ("server.log_format", Otherwise("the log goes to standard error as text")),
        ("server.ca_ttl", Otherwise("the issuing authority is renewed by itself")),
        ("server.ca_key_type", Otherwise("authorities have P-256 keys")),
        ("server.jwt_key_type", Otherwise("tokens are signed by a P-256 key")),
        ("server.ca_subject.**", Otherwise("authorities are named by their trust domain")),
        ("server.audit_log_enabled", Otherwise("every change is a leaf of the ledger, always")),
        ("server.ratelimit.**", Otherwise("places are shared by address ([limits])")),
        ("server.admin_ids", NotHere("no SVID makes anybody an operator")),
        ("server.federation.federates_with.*.bundle_endpoint_url", Url),
        (
            "server.federation.federates_with.*.bundle_endpoint_profile.https_spiffe.endpoint_spiffe_id",
            EndpointId,
        ),
        (
            "server.federation.federates_with.*.bundle_endpoint_profile.https_web",
            Otherwise("the command says no ID"),
        ),
        ("server.federation.bundle_endpoint.**", Otherwise("/spiffe-bundle of the console, as https_spiffe")),
        ("plugins.DataStore.**", Otherwise("SQLite in data; entries come over by the commands")),
        ("plugins.KeyManager.**", Otherwise("signing keys are in data/keys")),
        ("plugins.NodeAttestor.join_token.**", Otherwise("always, with a [spire] section")),
        ("plugins.NodeAttestor.join_token", Otherwise("always, with a [spire] section")),
        ("plugins.NodeAttestor.tpm.plugin_data.ca_path", Paths("ek_anchors")),
        (
            "plugins.NodeAttestor.tpm.plugin_data.hash_path",
            Otherwise("a policy lists them: ls HASH_PATH | xargs assay policy allow-eks"),
        ),
        ("plugins.NodeAttestor.tpm.plugin_cmd", Otherwise("built in: spire.tpm")),
        ("plugins.NodeAttestor.tpm.plugin_checksum", Otherwise("built in: spire.tpm")),
        ("plugins.NodeAttestor.tpm.**", Otherwise("built in: spire.tpm")),
        ("plugins.NodeAttestor.x509pop.plugin_data.ca_bundle_path", Paths("spire.x509pop_anchors")),
        ("plugins.NodeAttestor.x509pop.plugin_data.ca_bundle_paths", Paths("spire.x509pop_anchors")),
        (
            "plugins.NodeAttestor.x509pop.plugin_data.agent_path_template",
            NotHere("nodes are named by their certificate's SHA-1"),
        ),
        (
            "plugins.NodeAttestor.**",
            NotHere("nodes attest by join_token, tpm or x509pop, and devices by quotes"),
        ),
        ("plugins.UpstreamAuthority.**", NotHere("there are no servers above or below this one")),
        ("plugins.**", NotHere("there are no plug-ins")),
        ("health_checks.**", Otherwise("/health of the console")),
        ("telemetry.**", Otherwise("/metrics of the console, for Prometheus")),
    ]
}

fn agent() -> Vec<Line> {
    use Becomes::{Host, NotHere, Otherwise, Port, Text, Tpm};
    vec![
        ("agent.trust_domain", Text("trust_domain")),
        ("agent.server_address", Host("gateway")),
        ("agent.server_port", Port("gateway")),
        ("agent.socket_path", Text("workload_api")),
        ("agent.trust_bundle_path", Text("bundle")),
        ("agent.data_dir", Otherwise("state is a folder of this agent's own, and not SPIRE's")),
        ("agent.log_level", Otherwise("the log goes to standard error, by RUST_LOG=debug")),
        ("agent.log_file", Otherwise("the log goes to standard error")),
        ("agent.insecure_bootstrap", NotHere("an agent is given the bundle before it first connects")),
        ("agent.trust_bundle_url", NotHere("an agent is given the bundle before it first connects")),
        ("agent.join_token", Otherwise("a device enrolls by its TPM")),
        ("agent.join_token_file", Otherwise("a device enrolls by its TPM")),
        ("agent.admin_socket_path", NotHere("nobody asks in another's name")),
        ("agent.authorized_delegates", NotHere("nobody asks in another's name")),
        ("agent.sds.**", Otherwise("the names are SPIRE's: default, ROOTCA, ALL, and IDs")),
        ("plugins.NodeAttestor.tpm.plugin_data.tpm_device_path", Tpm),
        (
            "plugins.NodeAttestor.tpm.plugin_data.hash_algorithm",
            Otherwise("every bank that the TPM has is quoted"),
        ),
        (
            "plugins.NodeAttestor.tpm.plugin_data.ak_handle",
            Otherwise("the agent makes its own attestation key"),
        ),
        ("plugins.NodeAttestor.tpm.**", Otherwise("a device enrolls by its TPM, and quotes from then on")),
        ("plugins.NodeAttestor.**", Otherwise("a device enrolls by its TPM, and quotes from then on")),
        ("plugins.KeyManager.**", Otherwise("the device key is in the TPM, workloads' keys in memory")),
        ("plugins.WorkloadAttestor.docker.plugin_data.docker_socket_path", Text("engines.docker")),
        ("plugins.WorkloadAttestor.docker.**", Otherwise("where an engine's socket is, it is asked")),
        ("plugins.WorkloadAttestor.unix.**", Otherwise("always; unix:path and unix:sha256 too")),
        ("plugins.WorkloadAttestor.systemd.**", Otherwise("always, from control groups")),
        ("plugins.WorkloadAttestor.k8s.**", Otherwise("[engines.kubelet] url = \"https://127.0.0.1:10250\"")),
        ("plugins.**", NotHere("there are no plug-ins")),
        ("health_checks.**", Otherwise("assay-agent doctor")),
        ("telemetry.**", Otherwise("what the agent measures goes to the server")),
    ]
}

/// In a name of what is not shown.
const SECRET: [&str; 6] = ["token", "password", "secret", "connection_string", "private_key", "access_key"];

#[cfg(test)]
mod tests {
    use super::super::leaves;
    use super::*;

    const SERVER: &str = r#"
        // A comment, and another
        server {
            bind_address = "10.0.0.1"
            bind_port = "8081"
            trust_domain = "example.org"
            data_dir = "/var/lib/spire"
            agent_ttl = "1h30m"
            ca_subject { country = ["US"] organization = ["SPIFFE"] }
            federation {
                bundle_endpoint { address = "0.0.0.0" port = 8443 }
                federates_with "other.example" {
                    bundle_endpoint_url = "https://other.example:8443"
                    bundle_endpoint_profile "https_spiffe" {
                        endpoint_spiffe_id = "spiffe://other.example/spire/server"
                    }
                }
                federates_with "third.example" {
                    bundle_endpoint_url = "https://third.example/bundle"
                    bundle_endpoint_profile "https_web" {}
                }
            }
            new_word = true
        }
        plugins {
            DataStore "sql" { plugin_data { database_type = "postgres" connection_string = "password=hidden" } }
            KeyManager "disk" { plugin_data { keys_path = "/var/lib/spire/keys.json" } }
            NodeAttestor "join_token" { plugin_data {} }
            NodeAttestor "tpm" { plugin_cmd = "/opt/tpm" plugin_data { ca_path = "/opt/certs" hash_path = "/opt/hashes" } }
            NodeAttestor "x509pop" { plugin_data { ca_bundle_paths = ["/opt/a.pem", "/opt/b.pem"] } }
            NodeAttestor "aws_iid" { plugin_data {} }
        }
    "#;

    fn imported(text: &str) -> Imported {
        import(&leaves::read(text).unwrap()).unwrap()
    }

    #[test]
    fn a_server_says_the_same_and_everything_else_is_said() {
        let Imported { kind, configuration, commands, differences } = imported(SERVER);
        assert_eq!(kind, "server");
        let expected: Table = toml::from_str(
            "trust_domain = 'example.org'\nek_anchors = ['/opt/certs']\n[spire]\naddress = '10.0.0.1:8081'\n\
             agent_ttl_seconds = 5400\ntpm = true\nx509pop_anchors = ['/opt/a.pem', '/opt/b.pem']\n",
        )
        .unwrap();
        assert_eq!(configuration, expected);
        let text = toml::to_string(&configuration).unwrap();
        assay_server::Config::from_toml(&text).expect("the server takes it");
        assert!(commands.iter().any(|one| one
            == "assay federation create other.example --url https://other.example:8443 --endpoint-spiffe-id \
                spiffe://other.example/spire/server --bundle FILE"), "{commands:#?}");
        assert!(commands.contains(
            &"assay federation create third.example --url https://third.example/bundle".to_owned()
        ));
        let here = |path: &str| {
            let found = differences.iter().find(|one| one.path == path);
            found.unwrap_or_else(|| panic!("{path}: {differences:#?}")).clone()
        };
        assert!(here("server.new_word").here.contains("not understood"));
        assert!(here("plugins.NodeAttestor.aws_iid.plugin_data").here.contains("not here"));
        assert_eq!(here("plugins.DataStore.sql.plugin_data.connection_string").value, "…");
        for path in ["server.data_dir", "server.ca_subject.country", "server.federation.bundle_endpoint.port"]
        {
            here(path);
        }
    }

    #[test]
    fn nothing_is_dropped() {
        let leaves = leaves::read(SERVER).unwrap();
        let Imported { differences, configuration, commands, .. } = import(&leaves).unwrap();
        let all = format!("{}{commands:?}", toml::to_string(&configuration).unwrap());
        for leaf in leaves {
            let is_said = differences.iter().any(|one| one.path == leaf.path.join("."));
            let is_there = leaf.values.iter().all(|value| all.contains(value.as_str()) || value == "1h30m");
            assert!(is_said || (is_there && !leaf.values.is_empty()), "{leaf:?}");
        }
    }

    #[test]
    fn an_agent_in_hcl_and_in_json_is_the_same() {
        let hcl = r#"
            agent {
                trust_domain = "example.org"
                server_address = "spire.example.org"
                server_port = 8081
                socket_path = "/tmp/spire-agent/public/api.sock"
                trust_bundle_path = "/opt/bundle.pem"
                join_token = "hidden"
            }
            plugins {
                NodeAttestor "tpm" { plugin_data { tpm_device_path = "/dev/tpmrm0" hash_algorithm = "sha256" } }
                WorkloadAttestor "unix" { plugin_data {} }
                WorkloadAttestor "docker" { plugin_data { docker_socket_path = "/run/docker.sock" } }
            }
        "#;
        let json = r#"{ "agent": { "trust_domain": "example.org", "server_address": "spire.example.org", "server_port": 8081,
            "socket_path": "/tmp/spire-agent/public/api.sock", "trust_bundle_path": "/opt/bundle.pem", "join_token": "hidden" },
            "plugins": { "NodeAttestor": [{ "tpm": { "plugin_data": { "tpm_device_path": "/dev/tpmrm0", "hash_algorithm": "sha256" } } }],
            "WorkloadAttestor": [{ "unix": { "plugin_data": {} } }, { "docker": { "plugin_data": { "docker_socket_path": "/run/docker.sock" } } }] } }"#;
        let (hcl, json) = (imported(hcl), imported(json));
        assert_eq!(hcl.configuration, json.configuration);
        assert_eq!(hcl.differences, json.differences);
        assert_eq!(hcl.configuration["gateway"].as_str(), Some("spire.example.org:8081"));
        assert_eq!(hcl.configuration["engines"]["docker"].as_str(), Some("/run/docker.sock"));
        assert_eq!(hcl.configuration["tpm"].as_str(), Some("/dev/tpmrm0"));
        assert!(hcl.differences.iter().any(|one| one.path == "agent.join_token" && one.value == "…"));
    }

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("1h", Some(3600)),
            ("1h30m", Some(5400)),
            ("90s", Some(90)),
            ("1500ms", Some(1)),
            ("0.5h", Some(1800)),
            ("", None),
            ("1", None),
            ("h", None),
            ("1d", None),
            ("-1h", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_configuration_of_spires_is_refused() {
        for bad in ["server {", "{", "x = 1", "server {}\nagent {}", ""] {
            assert!(leaves::read(bad).and_then(|leaves| import(&leaves)).is_err(), "{bad}");
        }
    }
}
