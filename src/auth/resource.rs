//! What is asked for, by the names that policies use: the ARN of a repository, or the registry as a whole. Made by who
//! asks for a decision, compared by `policy`.

use std::fmt;
use std::sync::Arc;

use super::identity::Account;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource(Option<Arc<str>>);

impl Resource {
    /// The registry as a whole, which policies call `*`.
    pub fn registry() -> Self {
        Self(None)
    }

    /// A repository: `arn:aws:ecr:<region>:<account>:repository/<name>`. What is pulled through has the prefix of its
    /// upstream before its name there.
    pub fn named(region: &str, account: &Account, name: &str) -> Self {
        Self(Some(
            format!("arn:aws:ecr:{region}:{account}:repository/{name}").into(),
        ))
    }

    /// All repositories, for what asks for none by name, such as the list of them: only a statement about all of them
    /// is about that.
    pub fn repositories(region: &str, account: &Account) -> Self {
        Self(Some(
            format!("arn:aws:ecr:{region}:{account}:repository/*").into(),
        ))
    }

    /// The ARN, or `*`.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("*")
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
