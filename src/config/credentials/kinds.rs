//! The logins of an upstream: the one of its own table, then `[[upstream.<prefix>.credential]]` in order, each of one
//! kind. What is made of them is in `upstream::credentials`.

use std::path::{Path, PathBuf};

use url::Url;

use super::docker::{check_helper, server_of};
use super::ecr::{self, EcrConfig};
use super::{Credentials, DockerLogin, Secret, Written};
use crate::config::fault::Fault;
use crate::config::keys;
use crate::config::reader::Reader;
use crate::config::source::{Entry, Origin, Section};
use crate::config::value;

/// The keys that say of which kind a credential is, and so exclude each other.
const KINDS: [&str; 6] = [
    "username",
    "docker_config",
    "helper",
    "token_file",
    "ecr",
    "anonymous",
];

/// The name of whoever has no login.
const ANONYMOUS: &str = "anonymous";

/// One way to log in at an upstream.
#[derive(Clone, Debug)]
pub struct Credential {
    /// What log and metrics call it: one at each upstream.
    pub name: String,
    /// Where the login comes from.
    pub kind: CredentialKind,
    /// Where it is written.
    pub written: Written,
}

/// Where a login comes from.
#[derive(Clone, Debug)]
pub enum CredentialKind {
    /// A user with a password, which may be in a file.
    Password {
        /// The user.
        username: String,
        /// The password as it was when the configuration was read.
        password: Secret,
        /// The file that it is read from again.
        file: Option<PathBuf>,
    },
    /// Docker's `config.json`.
    DockerConfig {
        /// The file.
        path: PathBuf,
        /// The hosts whose login is looked for, the most likely first.
        hosts: Vec<String>,
    },
    /// A program that speaks Docker's protocol for credential helpers.
    Helper {
        /// The program: a name that is looked for in PATH, or a path.
        program: PathBuf,
        /// What it is asked about.
        server: String,
    },
    /// A file with a bearer token.
    TokenFile {
        /// The file.
        path: PathBuf,
    },
    /// Amazon ECR private.
    Ecr(EcrConfig),
    /// No login: an anonymous caller may have a limit of its own.
    Anonymous,
}

impl CredentialKind {
    /// The word for it, in log and reports.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Password { .. } => "password",
            Self::DockerConfig { .. } => "docker-config",
            Self::Helper { .. } => "helper",
            Self::TokenFile { .. } => "token-file",
            Self::Ecr(_) => "ecr",
            Self::Anonymous => ANONYMOUS,
        }
    }
}

impl Credential {
    /// A user with a password, named after the user.
    pub fn password(login: Credentials) -> Self {
        Self {
            name: login.username.clone(),
            kind: CredentialKind::Password {
                username: login.username,
                password: login.password,
                file: login.password_file,
            },
            written: login.written,
        }
    }

    /// Whether it is the absence of a login.
    pub fn is_anonymous(&self) -> bool {
        matches!(self.kind, CredentialKind::Anonymous)
    }
}

/// Which of several logins is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CredentialOrder {
    /// The first that can be, until its pulls are spent.
    #[default]
    First,
    /// All of them, each as much as it has left.
    Even,
}

impl CredentialOrder {
    /// `credential_order` of an upstream.
    pub(in crate::config) fn read(reader: &mut Reader<'_>) -> Self {
        let given = reader.take("credential_order", |entry| match entry.text()?.trim() {
            "first" => Ok(Self::First),
            "even" => Ok(Self::Even),
            text => Err(format!("`{text}` is neither \"first\" nor \"even\"")),
        });
        given.unwrap_or_default()
    }
}

/// The tables of `credential`, as they stand in the upstream's own.
pub(in crate::config) struct TablesOf<'a> {
    pub(in crate::config) prefix: &'a str,
    pub(in crate::config) tables: Option<(Vec<toml::Table>, Origin)>,
    pub(in crate::config) enabled: bool,
    pub(in crate::config) url: Option<&'a Url>,
    pub(in crate::config) hosts: &'a [String],
}

/// All credentials of an upstream, that of its own table first.
pub(in crate::config) fn read_all(
    own: Option<Credentials>,
    of: &TablesOf<'_>,
    faults: &mut Vec<Fault>,
) -> Vec<Credential> {
    let mut all: Vec<Credential> = own.map(Credential::password).into_iter().collect();
    let (tables, origin) = of.tables.clone().unwrap_or((Vec::new(), Origin::Default));
    for (index, table) in tables.into_iter().enumerate() {
        // People count from one.
        let name = format!("upstream.{}.credential[{}]", of.prefix, index + 1);
        let section = Section::of(&name, table, &origin);
        let Some(credential) = read_one(section, &origin, of, faults) else {
            continue;
        };
        if let Some(other) = all.iter().find(|other| other.name == credential.name) {
            let reason = format!(
                "`{}` is the name of another credential here ({}): give this one a name of its own",
                credential.name, other.written.key
            );
            faults.push(Fault::new(&origin.label(), format!("{name}.name"), reason));
        }
        all.push(credential);
    }
    all
}

fn read_one(
    section: Section,
    origin: &Origin,
    of: &TablesOf<'_>,
    faults: &mut Vec<Fault>,
) -> Option<Credential> {
    let given: Vec<&str> = KINDS
        .into_iter()
        .filter(|kind| section.entries.contains_key(*kind))
        .collect();
    let mut reader = Reader::new(section, keys::CREDENTIAL, faults);
    match given.as_slice() {
        [] => {
            let reason = format!("or one of {} is required", KINDS[1..].join(", "));
            reader.fault(origin, "username", reason);
        }
        [first, second, ..] => {
            let reason = format!("and {first} exclude each other: a table for each");
            reader.fault(origin, second, reason);
        }
        [_] => {}
    }
    let name = reader.take("name", |entry| name(entry.filled()?));
    let login = Credentials::read(&mut reader, of.enabled);
    let written = Written::new(origin, reader.key(given.first().copied().unwrap_or("username")));
    let docker = reader.take("docker_config", |entry| docker_config(entry, of));
    let helper = reader.take("helper", |entry| helper(entry, of.enabled));
    let token = reader.take("token_file", |entry| {
        let path = entry.origin.resolve(entry.filled()?);
        if of.enabled {
            Secret::from_file(&path)?;
        }
        Ok(path)
    });
    let ecr = read_ecr(&mut reader, origin, of);
    let anonymous = reader.take("anonymous", only_true);
    reader.finish();
    if given.len() != 1 {
        return None;
    }
    let kind = if let Some(login) = login {
        let mut credential = Credential::password(login);
        credential.name = name.unwrap_or(credential.name);
        return Some(credential);
    } else if let Some(path) = docker {
        CredentialKind::DockerConfig {
            path,
            hosts: of.login_hosts(),
        }
    } else if let Some(program) = helper {
        let server = server_of(of.login_hosts().first().map_or("", String::as_str));
        CredentialKind::Helper { program, server }
    } else if let Some(path) = token {
        CredentialKind::TokenFile { path }
    } else if let Some(ecr) = ecr {
        CredentialKind::Ecr(ecr)
    } else if anonymous.is_some() {
        CredentialKind::Anonymous
    } else {
        return None;
    };
    let name = match &kind {
        CredentialKind::Anonymous => ANONYMOUS.to_owned(),
        kind => name.unwrap_or_else(|| kind.word().to_owned()),
    };
    Some(Credential { name, kind, written })
}

impl TablesOf<'_> {
    /// The hosts under which a login may be filed: those that people write, then that of the url.
    fn login_hosts(&self) -> Vec<String> {
        let mut hosts = self.hosts.to_vec();
        if let Some(own) = self.url.map(value::host_of)
            && !hosts.contains(&own)
        {
            hosts.push(own);
        }
        hosts
    }
}

/// A name that log and metrics can show.
fn name(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text == ANONYMOUS {
        return Err(format!("`{ANONYMOUS}` is the name of whoever has no login"));
    }
    if text.chars().any(char::is_control) || text.chars().count() > 100 {
        return Err("is too long, or has characters that no log can show".to_owned());
    }
    Ok(text.to_owned())
}

fn only_true(entry: &Entry) -> Result<(), String> {
    if entry.boolean()? {
        Ok(())
    } else {
        Err("means nothing but true: leave the table away".to_owned())
    }
}

/// The file, or the one in this folder; it must have a login for the upstream now.
fn docker_config(entry: &Entry, of: &TablesOf<'_>) -> Result<PathBuf, String> {
    let text = entry.filled()?;
    let path = match text.strip_prefix("~/") {
        Some(rest) => directories::BaseDirs::new()
            .map(|folders| folders.home_dir().join(rest))
            .ok_or("`~` is not known here: write the whole path")?,
        None => entry.origin.resolve(text),
    };
    let path = if path.is_dir() {
        path.join("config.json")
    } else {
        path
    };
    if of.enabled {
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let logins = DockerLogin::find(&text, &of.login_hosts())
            .map_err(|reason| format!("{} {reason}", path.display()))?;
        // A store that is not installed matters where nothing else is there.
        if let [DockerLogin::Helper { name, .. }] = logins.as_slice() {
            find_program(Path::new(&format!("docker-credential-{name}")))?;
        }
    }
    Ok(path)
}

/// The program `docker-credential-<name>`, or the one at a path.
fn helper(entry: &Entry, enabled: bool) -> Result<PathBuf, String> {
    let text = entry.filled()?.trim();
    let program = if text.contains('/') {
        entry.origin.resolve(text)
    } else {
        check_helper(text)?;
        PathBuf::from(format!("docker-credential-{text}"))
    };
    if enabled {
        find_program(&program)?;
    }
    Ok(program)
}

fn find_program(program: &Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let runs = |path: &Path| {
        path.metadata()
            .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.components().count() > 1 {
        return if runs(program) {
            Ok(())
        } else {
            Err(format!("{} is no program that we may run", program.display()))
        };
    }
    let paths = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&paths).any(|folder| runs(&folder.join(program))) {
        Ok(())
    } else {
        Err(format!("{} is not in PATH", program.display()))
    }
}

/// `ecr` with the keys that go with it.
fn read_ecr(reader: &mut Reader<'_>, origin: &Origin, of: &TablesOf<'_>) -> Option<EcrConfig> {
    const WITH_IT: [&str; 3] = ["region", "endpoint", "profile"];
    let given = reader.origin("ecr").is_some();
    if !given {
        for key in WITH_IT {
            if reader.origin(key).is_some() {
                reader.fault(origin, key, "does nothing without ecr");
            }
        }
    }
    let ecr = reader.take("ecr", only_true);
    let region = reader.take("region", |entry| ecr::region(entry.filled()?.trim()));
    let endpoint = reader.take("endpoint", |entry| value::http_url(entry.text()?));
    let profile = reader.take("profile", |entry| Ok(entry.filled()?.trim().to_owned()));
    ecr?;
    let told = of.url.and_then(ecr::region_and_api);
    let (region, api) = match (region, told) {
        (Some(region), Some((told, api))) if region == told => (region, api),
        (Some(region), _) => {
            let api = ecr::api_of(&region);
            (region, api)
        }
        (None, Some(told)) => told,
        (None, None) => {
            if !reader.failed("region") {
                let reason = "is required, as the url is not that of a private registry \
                              (https://<account>.dkr.ecr.<region>.amazonaws.com)";
                reader.fault(origin, "region", reason);
            }
            return None;
        }
    };
    // As AWS' own tools do (SDK reference, "Service-specific endpoints").
    let variable = |name| {
        std::env::var(name)
            .ok()
            .and_then(|url| value::http_url(&url).ok())
    };
    let endpoint = endpoint
        .or_else(|| variable("AWS_ENDPOINT_URL_ECR"))
        .or_else(|| variable("AWS_ENDPOINT_URL"))
        .or_else(|| Url::parse(&format!("https://{api}")).ok())?;
    Some(EcrConfig {
        region,
        endpoint,
        profile,
    })
}
