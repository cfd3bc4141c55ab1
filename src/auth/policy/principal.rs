//! Whom a statement is about: `Principal` and `NotPrincipal`, and how an identity is found among them. Used by
//! `document` and `evaluate`.

use super::document::Effect;
use super::json::Json;
use crate::auth::identity::{Account, Identity, Kind};

/// One entry of `Principal`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Principal {
    Everyone,
    /// All of an account, as far as their own policies allow; the account's root without such.
    Account(Account),
    /// Just this one.
    Arn(String),
    /// All whom this issuer vouches for.
    Federated(String),
    /// A service of a cloud, or a user of S3: nobody who could come here.
    Elsewhere,
}

/// Whom a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Principals {
    entries: Vec<Principal>,
    said: Said,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Nothing,
    These,
    AllBut,
}

/// How an identity is meant by a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Meant {
    /// Not.
    No,
    /// As one of an account, whose own policies have the last word (IAM: delegation to the account).
    AsOneOf,
    /// Itself, or as everyone.
    Itself,
}

impl Principals {
    /// A statement that does not say: it is about whom its document is attached to.
    pub(super) fn unsaid() -> Self {
        Self {
            entries: Vec::new(),
            said: Said::Nothing,
        }
    }

    /// The value of `Principal`, or of `NotPrincipal` when `all_but`. Faults go to `fault`.
    pub(super) fn parse(value: &Json, all_but: bool, fault: &mut dyn FnMut(String)) -> Self {
        let mut entries = Vec::new();
        match value {
            Json::Text(text) if text == "*" => entries.push(Principal::Everyone),
            Json::Object(kinds) => {
                for (kind, names) in kinds {
                    let names = match names {
                        Json::List(names) => names.as_slice(),
                        one => std::slice::from_ref(one),
                    };
                    for name in names {
                        let Json::Text(name) = name else {
                            fault(format!("a principal is a string, not {}", name.kind()));
                            continue;
                        };
                        match entry(kind, name) {
                            Ok(found) => entries.push(found),
                            Err(reason) => fault(reason),
                        }
                    }
                }
            }
            _ => fault("expected \"*\" or an object such as {\"AWS\": \"arn:aws:iam::...\"}".to_owned()),
        }
        let said = if all_but { Said::AllBut } else { Said::These };
        Self { entries, said }
    }

    /// Whether the statement says whom it is about.
    pub(super) fn are_said(&self) -> bool {
        self.said != Said::Nothing
    }

    /// How it means `identity`.
    pub(super) fn mean(&self, identity: &Identity, effect: Effect) -> Meant {
        let found = || {
            let each = self.entries.iter().map(|entry| entry.means(identity));
            each.max().unwrap_or(Meant::No)
        };
        match self.said {
            Said::Nothing => Meant::Itself,
            Said::These => found(),
            // In doubt for less: an account that is excepted keeps all of it out of what is allowed, but takes nobody
            // except its root out of what is denied.
            Said::AllBut => {
                let excepted = match effect {
                    Effect::Allow => found() > Meant::No,
                    Effect::Deny => found() == Meant::Itself,
                };
                if excepted { Meant::No } else { Meant::Itself }
            }
        }
    }
}

/// The entry `name` of this kind.
fn entry(kind: &str, name: &str) -> Result<Principal, String> {
    match kind {
        "AWS" if name == "*" => Ok(Principal::Everyone),
        "AWS" => {
            if let Ok(account) = name.parse() {
                return Ok(Principal::Account(account));
            }
            let parts: Vec<&str> = name.splitn(6, ':').collect();
            match parts.as_slice() {
                ["arn", partition, "iam", "", account, "root"] if partition.starts_with("aws") => account
                    .parse()
                    .map(Principal::Account)
                    .map_err(|error| format!("`{name}`: {error}")),
                ["arn", partition, "iam" | "sts", "", _, who]
                    if partition.starts_with("aws") && !who.is_empty() =>
                {
                    // Where AWS refuses them too: a star here would mean nobody, and look as if it meant many.
                    if name.contains(['*', '?']) {
                        return Err(format!("`{name}`: wildcards mean nothing in a principal"));
                    }
                    Ok(Principal::Arn(name.to_owned()))
                }
                _ => Err(format!(
                    "`{name}` is no principal: expected *, an account, or an ARN of iam or sts"
                )),
            }
        }
        "Federated" => Ok(Principal::Federated(name.to_owned())),
        "Service" | "CanonicalUser" => Ok(Principal::Elsewhere),
        _ => Err(format!(
            "`{kind}` is no kind of principal: expected AWS, Federated, Service or CanonicalUser"
        )),
    }
}

impl Principal {
    fn means(&self, identity: &Identity) -> Meant {
        let itself = |it| if it { Meant::Itself } else { Meant::No };
        match self {
            Self::Everyone => Meant::Itself,
            Self::Account(account) if identity.is_anonymous() || identity.account() != account => Meant::No,
            Self::Account(_) if identity.kind() == Kind::Operator => Meant::Itself,
            Self::Account(_) => Meant::AsOneOf,
            Self::Arn(arn) => itself(identity.arn() == Some(arn)),
            Self::Federated(issuer) => itself(identity.issuer().is_some_and(|its| is_issuer(issuer, its))),
            Self::Elsewhere => Meant::No,
        }
    }
}

/// Whether `written` means the issuer with this URL: the URL, it without `https://`, or the ARN of its provider.
fn is_issuer(written: &str, url: &str) -> bool {
    let bare = url.strip_prefix("https://").unwrap_or(url);
    let named = written
        .split_once(":oidc-provider/")
        .map_or(written, |(_, name)| name);
    named == url || named == bare
}
