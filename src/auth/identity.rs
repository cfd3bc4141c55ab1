//! Who asks. An identity has been proved before it comes here; this says what policies call it. Made by whoever proves
//! identities, read by `policy`.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The number of an account, twelve digits: the registry's own, or another that policies may speak of.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Account(Arc<str>);

/// Not the number of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected the twelve digits of an account")]
pub struct AccountError;

impl Account {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Account {
    fn default() -> Self {
        Self("000000000000".into())
    }
}

impl FromStr for Account {
    type Err = AccountError;

    fn from_str(text: &str) -> Result<Self, AccountError> {
        if text.len() != 12 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(AccountError);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How an identity was proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Not at all: nobody said who asks.
    Anonymous,
    /// A person, by a password or a key.
    User,
    /// A program, by a password or a key of its own.
    Robot,
    /// A program, by the token of an issuer that is trusted.
    Workload,
    /// A machine, by a certificate.
    Certificate,
    /// Somebody with a login at an upstream, which is asked what may be read by it.
    Upstream,
    /// Whoever runs the daemon: the root of the account.
    Operator,
}

impl Kind {
    /// The word, for logs and for the key `wharfinger:Kind` of conditions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Anonymous => "anonymous",
            Self::User => "user",
            Self::Robot => "robot",
            Self::Workload => "workload",
            Self::Certificate => "certificate",
            Self::Upstream => "upstream",
            Self::Operator => "operator",
        }
    }

    /// What stands before the name in its ARN, so that an issuer cannot name a workload like a user.
    fn path(self) -> &'static str {
        match self {
            Self::Workload => "workload/",
            Self::Certificate => "certificate/",
            Self::Upstream => "upstream/",
            _ => "",
        }
    }
}

/// Not a name that an identity can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a name is 1 to 256 characters without control characters, and that of a user or robot without a slash"
)]
pub struct IdentityError;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: Arc<str>,
    kind: Kind,
    account: Account,
    arn: Option<Arc<str>>,
    issuer: Option<Arc<str>>,
}

impl Identity {
    /// Nobody in particular.
    pub fn anonymous() -> Self {
        Self {
            name: "".into(),
            kind: Kind::Anonymous,
            account: Account::default(),
            arn: None,
            issuer: None,
        }
    }

    /// Whoever runs the daemon of this account.
    pub fn operator(account: Account) -> Self {
        Self {
            name: "root".into(),
            kind: Kind::Operator,
            arn: Some(format!("arn:aws:iam::{account}:root").into()),
            account,
            issuer: None,
        }
    }

    /// One with a name. For [`Kind::Anonymous`] and [`Kind::Operator`] the name says nothing and is ignored.
    pub fn named(kind: Kind, name: &str, account: Account) -> Result<Self, IdentityError> {
        match kind {
            Kind::Anonymous => return Ok(Self::anonymous()),
            Kind::Operator => return Ok(Self::operator(account)),
            Kind::User | Kind::Robot | Kind::Workload | Kind::Certificate | Kind::Upstream => {}
        }
        let long = name.is_empty() || name.chars().count() > 256;
        // A slash would make the ARN of another kind of it.
        let other = matches!(kind, Kind::User | Kind::Robot) && name.contains('/');
        if long || other || name.chars().any(char::is_control) {
            return Err(IdentityError);
        }
        let arn = format!("arn:aws:iam::{account}:user/{}{name}", kind.path());
        Ok(Self {
            name: name.into(),
            kind,
            account,
            arn: Some(arn.into()),
            issuer: None,
        })
    }

    /// The same, vouched for by an issuer (its URL), so that `Principal: {"Federated": ...}` can mean it.
    #[must_use]
    pub fn issued_by(self, issuer: &str) -> Self {
        Self {
            issuer: Some(issuer.into()),
            ..self
        }
    }

    /// The name; empty for nobody in particular.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How it was proved.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The account; without meaning for [`Kind::Anonymous`].
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// What policies call it: `arn:aws:iam::<account>:user/<name>`, with `workload/`, `certificate/` or `upstream/`
    /// before the names of those, or the account's root. `None` for nobody in particular.
    pub fn arn(&self) -> Option<&str> {
        self.arn.as_deref()
    }

    /// The URL of the issuer that vouches for it.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// Whether nobody said who asks.
    pub fn is_anonymous(&self) -> bool {
        self.kind == Kind::Anonymous
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_twelve_digits() {
        assert_eq!(
            "123456789012".parse::<Account>().unwrap().as_str(),
            "123456789012"
        );
        assert_eq!(Account::default().as_str().parse(), Ok(Account::default()));
        for text in [
            "",
            "12345678901",
            "1234567890123",
            "12345678901a",
            "１23456789012",
        ] {
            assert_eq!(text.parse::<Account>(), Err(AccountError), "{text}");
        }
    }

    #[test]
    fn each_kind_has_arns_of_its_own() {
        let account = Account::default();
        let arn = |kind, name: &str| {
            let identity = Identity::named(kind, name, account.clone()).unwrap();
            identity.arn().map(str::to_owned)
        };
        let cases = [
            (Kind::User, "alice", Some("arn:aws:iam::000000000000:user/alice")),
            (Kind::Robot, "ci", Some("arn:aws:iam::000000000000:user/ci")),
            (
                Kind::Workload,
                "repo:a/b",
                Some("arn:aws:iam::000000000000:user/workload/repo:a/b"),
            ),
            (
                Kind::Certificate,
                "node-1",
                Some("arn:aws:iam::000000000000:user/certificate/node-1"),
            ),
            (
                Kind::Upstream,
                "ghcr.io/octocat",
                Some("arn:aws:iam::000000000000:user/upstream/ghcr.io/octocat"),
            ),
            (Kind::Operator, "alice", Some("arn:aws:iam::000000000000:root")),
            (Kind::Anonymous, "alice", None),
        ];
        for (kind, name, expected) in cases {
            assert_eq!(arn(kind, name).as_deref(), expected, "{kind:?}");
        }
        for name in ["", "workload/ci", "a\nb", &"x".repeat(257)] {
            let refused = Identity::named(Kind::User, name, account.clone());
            assert_eq!(refused, Err(IdentityError), "{name}");
        }
    }
}
