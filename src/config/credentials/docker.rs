//! Docker's `config.json`: which login it has for the hosts of an upstream, in all the spellings that clients write.
//! Pure. Docker's own reading: docker/cli, `cli/config/configfile` and `cli/config/credentials`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use super::Secret;

/// The name under which every client files Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

/// Hosts of Docker Hub, which are one to a login.
const HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// `auth` is written with padding and without it.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// One way to log in that the file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DockerLogin {
    /// A user with a password.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, for the token service (`identitytoken`).
    Identity(Secret),
    /// A token for the registry itself (`registrytoken`).
    Bearer(Secret),
    /// A program gives it: `docker-credential-<name>`.
    Helper {
        /// The name.
        name: String,
        /// What it is asked about.
        server: String,
    },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Option<Entry>>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity: Option<String>,
    #[serde(rename = "registrytoken")]
    bearer: Option<String>,
}

impl DockerLogin {
    /// The logins for an upstream with these hosts, to be tried in this order: that of a helper, then what the file
    /// itself has.
    ///
    /// # Errors
    /// Why there is none, without any secret.
    pub fn find(text: &str, hosts: &[String]) -> Result<Vec<Self>, String> {
        let file: File = serde_json::from_str(text).map_err(|error| {
            // The error's own words may quote a value.
            format!("is not a Docker config.json: line {}", error.line())
        })?;
        let mut found = Vec::new();
        let entry = named(&file.auths, hosts);
        // Of several hosts it knows the one that the file has it for: `docker login` leaves an entry in `auths`.
        let usual = entry.map_or(hosts.first().map(String::as_str), |(host, _)| Some(host));
        let store = file.store.as_ref().and_then(|store| Some((usual?, store)));
        if let Some((host, name)) = named(&file.helpers, hosts).or(store)
            && !name.is_empty()
        {
            check_helper(name)?;
            found.push(Self::Helper {
                name: name.clone(),
                server: server_of(host),
            });
        }
        if let Some((_, Some(entry))) = entry {
            found.extend(entry.login()?);
        }
        if found.is_empty() {
            return Err(format!("has no login for {}", hosts.join(", ")));
        }
        Ok(found)
    }
}

/// Whether a name may be part of a program's name: it must not lead to another folder.
pub(super) fn check_helper(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(fits) {
        return Err(format!(
            "`{}` is no helper's name: for docker-credential-ecr-login write \"ecr-login\"",
            name.escape_default()
        ));
    }
    Ok(())
}

/// What a helper is asked about for an upstream of this host.
pub(super) fn server_of(host: &str) -> String {
    if HUB_HOSTS.contains(&host) {
        HUB.to_owned()
    } else {
        host.to_owned()
    }
}

impl Entry {
    fn login(&self) -> Result<Option<DockerLogin>, String> {
        let filled = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        if let Some(token) = filled(&self.bearer) {
            return Ok(Some(DockerLogin::Bearer(Secret::new(token))));
        }
        if let Some(token) = filled(&self.identity) {
            return Ok(Some(DockerLogin::Identity(Secret::new(token))));
        }
        let pair = match filled(&self.auth) {
            Some(auth) => {
                let no_pair = || "has an `auth` that is not the Base64 of user:password".to_owned();
                let bytes = BASE64.decode(auth.trim()).map_err(|_| no_pair())?;
                let text = String::from_utf8(bytes).map_err(|_| no_pair())?;
                // Docker pads with zero bytes.
                let (user, password) = text.split_once(':').ok_or_else(no_pair)?;
                Some((user.to_owned(), password.trim_matches('\0').to_owned()))
            }
            None => filled(&self.username).zip(filled(&self.password)),
        };
        Ok(pair
            .filter(|(user, password)| !user.is_empty() && !password.is_empty())
            .map(|(username, password)| DockerLogin::Password {
                username,
                password: Secret::new(password),
            }))
    }
}

/// The entry whose key means one of these hosts, the first of them that has any, with that host.
fn named<'a, T>(map: &'a BTreeMap<String, T>, hosts: &'a [String]) -> Option<(&'a str, &'a T)> {
    let mut wanted: Vec<&str> = Vec::new();
    for host in hosts {
        if HUB_HOSTS.contains(&host.as_str()) {
            wanted.extend(["index.docker.io", "docker.io", "registry-1.docker.io"]);
        } else {
            wanted.push(host);
        }
    }
    wanted.into_iter().find_map(|host| {
        let (_, value) = map.iter().find(|(key, _)| host_of(key) == Some(host))?;
        Some((host, value))
    })
}

/// The host that a key means: alone, with a scheme, or as the URL of an API version. A key for one repository alone
/// means none.
fn host_of(key: &str) -> Option<&str> {
    let key = key.trim();
    let key = ["https://", "http://"]
        .into_iter()
        .find_map(|scheme| key.strip_prefix(scheme))
        .unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    matches!(path.trim_end_matches('/'), "" | "v1" | "v2").then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, hosts: &[&str]) -> Result<Vec<DockerLogin>, String> {
        let hosts: Vec<_> = hosts.iter().map(|host| (*host).to_owned()).collect();
        DockerLogin::find(json, &hosts)
    }

    fn pair(username: &str, password: &str) -> DockerLogin {
        DockerLogin::Password {
            username: username.to_owned(),
            password: Secret::new(password),
        }
    }

    #[test]
    fn keys_in_all_spellings() {
        // dTpw is u:p
        for key in [
            "https://index.docker.io/v1/",
            "https://index.docker.io/v1",
            "index.docker.io",
            "docker.io",
            "https://docker.io",
            "registry-1.docker.io",
            "http://index.docker.io/v2/",
        ] {
            let json = format!(r#"{{"auths":{{"{key}":{{"auth":"dTpw"}}}}}}"#);
            assert_eq!(find(&json, &["docker.io"]), Ok(vec![pair("u", "p")]), "{key}");
            assert!(find(&json, &["quay.io"]).is_err(), "{key}");
        }
        let json = r#"{"auths":{"https://r.example:5000/v2/":{"auth":"dTpw"},"r.example":{"auth":"dTpx"}}}"#;
        assert_eq!(find(json, &["r.example:5000"]), Ok(vec![pair("u", "p")]));
        assert_eq!(find(json, &["r.example"]), Ok(vec![pair("u", "q")]));
        // A key of containers-auth.json for one repository is no login for all of them.
        let json = r#"{"auths":{"quay.io/team":{"auth":"dTpw"}}}"#;
        assert!(find(json, &["quay.io"]).is_err());
    }

    #[test]
    fn forms_of_a_login() {
        let of = |entry: &str| find(&format!(r#"{{"auths":{{"r.example":{entry}}}}}"#), &["r.example"]);
        let table = [
            (r#"{"auth":"dTpwOnE="}"#, pair("u", "p:q")),
            (r#"{"auth":"dTpwOnE"}"#, pair("u", "p:q")),
            (r#"{"auth":"dTpwAA=="}"#, pair("u", "p")),
            (r#"{"username":"u","password":"p"}"#, pair("u", "p")),
            (
                r#"{"auth":"dTo=","identitytoken":"t"}"#,
                DockerLogin::Identity(Secret::new("t")),
            ),
            (r#"{"registrytoken":"t"}"#, DockerLogin::Bearer(Secret::new("t"))),
        ];
        for (entry, expected) in table {
            assert_eq!(of(entry), Ok(vec![expected]), "{entry}");
        }
        for entry in ["{}", "null", r#"{"auth":""}"#, r#"{"auth":"dTo="}"#] {
            assert!(
                of(entry).unwrap_err().contains("no login for r.example"),
                "{entry}"
            );
        }
        for entry in [r#"{"auth":"%%%"}"#, r#"{"auth":"dXA="}"#] {
            assert!(of(entry).unwrap_err().contains("Base64"), "{entry}");
        }
        let error = find(
            "{\"auths\":{\"r\":{\"auth\":1,\"password\":\"hunter2\"}}}",
            &["r"],
        )
        .unwrap_err();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
    }

    #[test]
    fn helpers() {
        let helper = |name: &str, server: &str| DockerLogin::Helper {
            name: name.to_owned(),
            server: server.to_owned(),
        };
        let json = r#"{"credsStore":"desktop","credHelpers":{"quay.io":"q"},"auths":{"docker.io":{"auth":"dTpw"},"quay.io":{}}}"#;
        assert_eq!(
            find(json, &["docker.io"]),
            Ok(vec![
                helper("desktop", "https://index.docker.io/v1/"),
                pair("u", "p")
            ])
        );
        assert_eq!(find(json, &["quay.io"]), Ok(vec![helper("q", "quay.io")]));
        assert_eq!(
            find(json, &["r.example:1"]),
            Ok(vec![helper("desktop", "r.example:1")])
        );
        let json = r#"{"credHelpers":{"https://index.docker.io/v1/":"hub"}}"#;
        assert_eq!(
            find(json, &["registry-1.docker.io"]),
            Ok(vec![helper("hub", "https://index.docker.io/v1/")])
        );
        // Asked about the host that it is filed under, which need not be the first.
        let hosts = ["corp.example", "registry.corp:5000"];
        for json in [
            r#"{"credHelpers":{"registry.corp:5000":"h"}}"#,
            r#"{"credsStore":"h","auths":{"registry.corp:5000":{}}}"#,
        ] {
            assert_eq!(
                find(json, &hosts),
                Ok(vec![helper("h", "registry.corp:5000")]),
                "{json}"
            );
        }
        assert_eq!(
            find(r#"{"credsStore":"h","auths":{}}"#, &hosts),
            Ok(vec![helper("h", "corp.example")])
        );
        let json = r#"{"credsStore":"../../bin/sh"}"#;
        assert!(find(json, &["quay.io"]).unwrap_err().contains("no helper's name"));
    }
}
