//! `assay-agent`: the program on the device.

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use assay_agent::acme::{AcmeError, Wanted};
use assay_agent::ak_certificate::{AkFile, AkFileError};
use assay_agent::config::Options;
use assay_agent::fetch::{FetchError, FetchedSvid};
use assay_agent::files::{Ended, Plan};
use assay_agent::sign::Message;
use assay_agent::state_dir::StateDir;
use assay_agent::{acme, collect, detect, doctor, fetch, files, run, setup, sign, tee};
use assay_clock::Clock;
use assay_identity::tls;
use assay_service::attended;
use clap::{CommandFactory, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Attests this device with its TPM and serves its workloads the identities it is granted.
#[derive(Parser)]
#[command(name = "assay-agent", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run the agent: enroll once, attest, serve workloads, send telemetry
    #[command(after_help = RUN_HELP)]
    Run {
        #[command(flatten)]
        options: Options,
    },
    /// Look at this machine's TPM
    Tpm {
        #[command(subcommand)]
        verb: TpmVerb,
    },
    /// Install what this machine needs to be worth attesting
    Setup {
        #[command(subcommand)]
        verb: SetupVerb,
    },
    /// Look at this machine's trusted execution environments
    Tee {
        #[command(subcommand)]
        verb: TeeVerb,
    },
    /// What is wrong on this device and what to do about it, on one page: what support asks for first
    Doctor {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Write this machine's evidence into a folder, for `assay appraise` and `assay policy learn`
    Collect {
        /// Folder to write; made if it is not there
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        #[command(flatten)]
        options: Options,
    },
    /// Show the certificate of this device's AK, by which others enrol it; exit code 1 says that there is none
    AkCertificate {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Certificates of other authorities, by what this device's TPM says
    Acme {
        #[command(subcommand)]
        verb: AcmeVerb,
    },
    /// Get what this process is entitled to from the agent's socket, as any workload does
    Fetch {
        #[command(subcommand)]
        verb: FetchVerb,
    },
    /// Have a message signed in this device's name, and print the headers that go with the request
    #[command(after_help = SIGN_HELP)]
    SignMessage {
        /// Whom it is for, as they call themselves
        #[arg(long)]
        audience: String,
        /// The request's method, in capitals
        #[arg(long, default_value = "POST")]
        method: String,
        /// The request's path, with its query
        #[arg(long)]
        path: String,
        /// File with the body that will be sent, or - for standard input [default: no body]
        #[arg(long, value_name = "FILE")]
        body: Option<PathBuf>,
        /// What is said, JSON [default: the body]
        #[arg(long, value_name = "JSON")]
        data: Option<String>,
        /// By the RSA key, for receivers that verify no other
        #[arg(long)]
        classic: bool,
        #[command(flatten)]
        asking: Asking,
    },
    /// Keep what this process is entitled to in files, for a program that reads nothing else, and tell it of each change
    #[command(after_help = FILES_HELP)]
    Files {
        #[command(flatten)]
        plan: Box<Plan>,
    },
    /// Print a completion script for a shell
    Completion {
        /// bash, zsh, fish, elvish or powershell
        shell: clap_complete::Shell,
    },
    /// Write the manual's pages into a folder
    #[command(hide = true)]
    Manual {
        /// The folder; made if it is not there
        folder: PathBuf,
    },
}

#[derive(Subcommand)]
enum TpmVerb {
    /// Report device, manufacturer, algorithms, PCR banks and EK certificates, and what to do about what is missing
    Detect {
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: Options,
    },
}

#[derive(Subcommand)]
enum SetupVerb {
    /// An IMA policy, which says what the kernel measures: the file, and what has it loaded before anything else runs
    Ima {
        /// Which: base, critical-data, scripts (with SELinux) or appraise (where all files are signed)
        #[arg(long, default_value = "base")]
        variant: String,
        /// Say what would be written, and write nothing
        #[arg(long)]
        dry_run: bool,
        /// Write over another policy that is there
        #[arg(long)]
        replace: bool,
        /// Root of the system to install into
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum TeeVerb {
    /// Report what processor and kernel say that there is; whether there is any, evidence shows (`assay tee verify`)
    Detect {
        /// The folder to look in as if it were /
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// Print the report as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Subcommand)]
enum AcmeVerb {
    /// Get a certificate for a new key in the TPM from an authority that speaks ACME with device-attest-01
    #[command(after_help = ACME_HELP)]
    Enroll {
        #[command(flatten)]
        wanted: Box<Wanted>,
        /// Print what came of it as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: Box<Options>,
    },
}

#[derive(Subcommand)]
enum FetchVerb {
    /// X.509-SVIDs; exit code 1 says that this process has none
    X509 {
        /// Folder to write svid.N.pem, svid.N.key, bundle.N.pem and crl.N.pem into; it has to be there
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
        #[command(flatten)]
        asking: Asking,
    },
    /// JWT-SVIDs, one a line
    Jwt {
        /// For whom the token is; may be given several times
        #[arg(long, required = true)]
        audience: Vec<String>,
        /// Which identity of this process [default: all]
        #[arg(long, default_value = "")]
        spiffe_id: String,
        #[command(flatten)]
        asking: Asking,
    },
}

#[derive(clap::Args)]
struct Asking {
    /// Workload API endpoint, unix:///PATH [default: the agent's own socket]
    #[arg(long, value_name = "URI", env = "SPIFFE_ENDPOINT_SOCKET")]
    socket: Option<String>,
    /// Print JSON; a private key is in files alone
    #[arg(long)]
    json: bool,
}

const RUN_HELP: &str = "\
Needed: a trust domain, a gateway and a trust bundle, in the file or as flags. A whole file:

    trust_domain = \"example.org\"
    gateway = \"gateway.example.org:8443\"
    bundle = \"/etc/assay/bundle.pem\"

    [telemetry]
    interval_seconds = 60

    [location]
    country = \"DE\"
    subdivision = \"DE-BY\"
    city = \"Munich\"

RUST_LOG sets what is logged (default: info).";

const SIGN_HELP: &str = "\
An entry of this process has to let it speak for the device (`assay entry create … --speaks-for-node`). One line a header:

    assay-agent sign-message --audience assay --path /secure/data --body body.json |
        curl -H @- --data-binary @body.json https://console.example.org:8445/secure/data";

const ACME_HELP: &str = "\
The server has to grant this device a certificate of its AK (`assay-agent ak-certificate`), and the authority to believe its root:

    assay-agent acme enroll --directory https://ca.example.org/acme/devices/directory --ca ca.pem \\
        --certificate press.pem --key press.tpm

Programs use the key by OpenSSL's provider for TPMs (tpm2-openssl).";

const FILES_HELP: &str = "\
Runs as the program's user, whom an entry has to name, until it is told to end:

    assay-agent files --folder /run/press/tls -- systemctl reload press

Certificate and key are removed once the identity is withdrawn or over.";

fn main() -> ExitCode {
    let outcome = match Cli::parse().verb {
        Verb::Run { options } => run_agent(options),
        Verb::Tpm { verb: TpmVerb::Detect { json, options } } => detect(json, options),
        Verb::Setup { verb: SetupVerb::Ima { variant, dry_run, replace, root, json } } => {
            set_up_ima(&variant, &root, (dry_run, replace), json)
        }
        Verb::Tee { verb: TeeVerb::Detect { root, json } } => detect_tee(&root, json),
        Verb::Doctor { json, options } => examine(json, options),
        Verb::Collect { out, options } => collect(&out, options),
        Verb::AkCertificate { json, options } => show_ak_certificate(json, options),
        Verb::Acme { verb: AcmeVerb::Enroll { wanted, json, options } } => {
            enroll_elsewhere(&wanted, json, *options)
        }
        Verb::Fetch { verb } => fetch(verb),
        Verb::SignMessage { audience, method, path, body, data, classic, asking } => read_body(body)
            .and_then(|body| sign(&Message { audience, method, path, body, data, classic }, asking)),
        Verb::Files { plan } => keep_files(*plan),
        Verb::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "assay-agent", &mut script);
            // A reader that has seen enough closes the pipe.
            let _ = io::stdout().write_all(&script);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Manual { folder } => manual(&folder),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("assay-agent: {error:#}");
        ExitCode::from(2)
    })
}

/// Exit code 1 says that something is missing; the report says what.
fn detect(json: bool, options: Options) -> anyhow::Result<ExitCode> {
    let report = detect::detect(&options.merge()?.sources()?);
    say(&if json { serde_json::to_string_pretty(&report)? } else { report.to_string() });
    Ok(if report.is_ready() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn set_up_ima(
    variant: &str,
    root: &std::path::Path,
    (dry_run, replace): (bool, bool),
    json: bool,
) -> anyhow::Result<ExitCode> {
    let mut plan = setup::plan(variant, setup::System::look(root))?;
    plan.compare(root, replace)?;
    if !dry_run {
        plan.write(root)?;
    }
    say(&if json { serde_json::to_string_pretty(&plan)? } else { plan.to_string() });
    Ok(ExitCode::SUCCESS)
}

/// Prints a line. A reader that has seen enough, as `head` has, closes the pipe, and the exit code stays what it is.
fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{text}");
}

/// What there is by the machine's own word, a line each.
fn detect_tee(root: &std::path::Path, json: bool) -> anyhow::Result<ExitCode> {
    let report = tee::detect(root, &tee::hardware());
    if json {
        say(&serde_json::to_string_pretty(&report)?);
        return Ok(ExitCode::SUCCESS);
    }
    let mut lines = Vec::new();
    for environment in &report.environments {
        let cpu = match environment.cpu {
            Some(true) => "the processor can",
            Some(false) => "the processor cannot",
            None => "the processor does not say",
        };
        let signs: Vec<&str> =
            environment.guest.iter().chain(&environment.host).map(String::as_str).collect();
        let signs = if signs.is_empty() { "the kernel offers nothing".to_owned() } else { signs.join(", ") };
        lines.push(format!("{:10} {cpu}; {signs}", environment.kind));
    }
    lines.push(
        "What is here is the machine's own word. Evidence shows whether it is so: assay tee verify"
            .to_owned(),
    );
    say(&lines.join("\n"));
    Ok(ExitCode::SUCCESS)
}

/// The exit code is by the worst finding.
fn examine(json: bool, options: Options) -> anyhow::Result<ExitCode> {
    tls::install_crypto_provider();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(doctor::examine(options));
    say(&if json { serde_json::to_string_pretty(&report)? } else { report.to_string() });
    Ok(ExitCode::from(report.exit_code()))
}

fn collect(out: &std::path::Path, options: Options) -> anyhow::Result<ExitCode> {
    let collected = collect::collect(&options.merge()?.sources()?, out)?;
    say(&format!("{}: {}", out.display(), collected.files.join(" ")));
    for missing in &collected.missing {
        eprintln!("assay-agent: {missing} (`assay-agent tpm detect` says what to do)");
    }
    Ok(ExitCode::SUCCESS)
}

fn show_ak_certificate(json: bool, options: Options) -> anyhow::Result<ExitCode> {
    let state = StateDir::look_into(&options.merge()?.state_folder());
    match AkFile::read(&state, Clock::system().now()) {
        Ok(file) => say(&if json { serde_json::to_string_pretty(&file)? } else { file.to_string() }),
        Err(AkFileError::State(error)) => return Err(error.into()),
        Err(error) => {
            eprintln!("assay-agent: {error}");
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn enroll_elsewhere(wanted: &Wanted, json: bool, options: Options) -> anyhow::Result<ExitCode> {
    tls::install_crypto_provider();
    let file = options.merge()?;
    let (state, tpm) = (StateDir::look_into(&file.state_folder()), file.sources()?.tpm);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(acme::enroll(wanted, &state, &tpm, &Clock::system())) {
        Ok(enrolled) if json => say(&serde_json::to_string_pretty(&enrolled)?),
        Ok(enrolled) => say(&format!(
            "{}: certificate {} of the TPM {}\n{}: its key, which only this TPM loads",
            enrolled.certificate.display(),
            enrolled.serial,
            enrolled.permanent_identifier,
            enrolled.key.display()
        )),
        Err(error @ (AcmeError::Refused { .. } | AcmeError::Ak(_))) => {
            eprintln!("assay-agent: {error}");
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

fn fetch(verb: FetchVerb) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(fetched(verb)) {
        Ok(lines) => {
            lines.iter().for_each(|line| println!("{line}"));
            Ok(ExitCode::SUCCESS)
        }
        Err(error) if error.is_no() => {
            eprintln!("assay-agent: {error}");
            Ok(ExitCode::FAILURE)
        }
        Err(error) => Err(error.into()),
    }
}

fn read_body(file: Option<PathBuf>) -> anyhow::Result<Vec<u8>> {
    let (mut body, name) = (Vec::new(), file.as_deref().unwrap_or("".as_ref()).display().to_string());
    match file.as_deref().map(|path| (path, path.to_str())) {
        None => return Ok(body),
        Some((_, Some("-"))) => io::stdin().take(BODY_BYTES_MAX).read_to_end(&mut body),
        Some((path, _)) => {
            std::fs::File::open(path).and_then(|file| file.take(BODY_BYTES_MAX).read_to_end(&mut body))
        }
    }
    .with_context(|| format!("{name}: cannot be read"))?;
    anyhow::ensure!((body.len() as u64) < BODY_BYTES_MAX, "{name}: longer than a signed request may be");
    Ok(body)
}

fn sign(message: &Message, Asking { socket, json }: Asking) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match runtime.block_on(sign::sign(&fetch::socket_or_default(socket), message)) {
        Ok(signed) if json => say(&serde_json::to_string(&signed)?),
        Ok(signed) => signed.lines().iter().for_each(|line| say(line)),
        Err(error) if error.is_no() => {
            eprintln!("assay-agent: {error}");
            return Ok(ExitCode::FAILURE);
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn fetched(verb: FetchVerb) -> Result<Vec<String>, FetchError> {
    match verb {
        FetchVerb::X509 { write, asking: Asking { socket, json } } => {
            let svids = fetch::x509(&fetch::socket_or_default(socket)).await?;
            for (number, svid) in svids.iter().enumerate() {
                if let Some(folder) = &write {
                    svid.write(folder, number)?;
                }
            }
            Ok(match json {
                true => vec![serde_json::json!({ "svids": svids }).to_string()],
                false => svids.iter().map(FetchedSvid::line).collect(),
            })
        }
        FetchVerb::Jwt { audience, spiffe_id, asking: Asking { socket, json } } => {
            let tokens = fetch::jwt(&fetch::socket_or_default(socket), &audience, &spiffe_id).await?;
            Ok(match json {
                true => vec![serde_json::json!({ "tokens": tokens }).to_string()],
                false => tokens,
            })
        }
    }
}

/// A page for each verb, as `man` reads it.
fn manual(folder: &std::path::Path) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(folder)?;
    clap_mangen::generate_to(Cli::command(), folder)?;
    Ok(ExitCode::SUCCESS)
}

fn run_agent(options: Options) -> anyhow::Result<ExitCode> {
    start_log()?;
    let config = options.merge()?.complete().context("configuration")?;
    let runtime = tokio::runtime::Runtime::new()?;
    let outcome = runtime.block_on(async {
        let stop = told_to_end()?;
        run::run(config, attended(stop)).await.map_err(anyhow::Error::from)
    });
    // A TPM command under way is waited for, but not for ever.
    runtime.shutdown_timeout(TPM_PATIENCE);
    outcome.map(|()| ExitCode::SUCCESS)
}

/// Exit code 1 says that there is no identity any more.
fn keep_files(plan: Plan) -> anyhow::Result<ExitCode> {
    start_log()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let stop = told_to_end()?;
        files::keep(plan, Clock::system(), stop).await.map_err(anyhow::Error::from)
    });
    Ok(match ended? {
        Ended::Stopped => ExitCode::SUCCESS,
        Ended::Withdrawn(_) => ExitCode::FAILURE,
    })
}

fn start_log() -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives).with_context(|| {
            format!("RUST_LOG: {directives:?} does not say what to log: try assay_agent=debug")
        })?,
        Err(_) => EnvFilter::new("info"),
    };
    let colours = io::stderr().is_terminal();
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false);
    log.with_ansi(colours).with_writer(io::stderr).init();
    Ok(())
}

/// Waits for SIGTERM or SIGINT.
fn told_to_end() -> io::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => return,
                _ = interrupt.recv() => return,
                // A terminal that closes is not the end of the device's proof.
                _ = hang_up.recv() => tracing::info!("SIGHUP: the configuration is read at the next start"),
            }
        }
    })
}

/// A body of 64 MiB is hashed in a moment; longer ones are no requests.
const BODY_BYTES_MAX: u64 = 64 << 20;
/// Stopping takes at most two seconds in all.
const TPM_PATIENCE: Duration = Duration::from_millis(1500);
