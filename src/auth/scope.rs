//! What a credential is good for at the most: `pull,push:team/*`, words and the names of repositories that they are about.
//! A robot's scopes are both what it may and all that it may. Pure; used where robots and tokens are made, and by
//! [`Authenticator`](super::Authenticator).

use std::fmt;
use std::str::FromStr;

use serde_json::{Value, json};

use super::action::Word;
use super::identity::Account;
use super::policy::{Document, Faults};

/// The longest pattern, as that of a repository's name.
const LONGEST: usize = 255;

/// Words, and the repositories that they are about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    words: Vec<Word>,
    pattern: String,
}

/// Not a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no scope: write words of pull, push, delete, list and admin, a colon, and the names of repositories, like \
     `pull,push:team/*`"
)]
pub struct ScopeError(String);

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let error = || ScopeError(text.chars().take(100).collect());
        let (words, pattern) = text.trim().split_once(':').ok_or_else(error)?;
        let mut words = words
            .split(',')
            .map(|word| word.trim().parse())
            .collect::<Result<Vec<Word>, _>>()
            .map_err(|_| error())?;
        words.sort_unstable();
        words.dedup();
        // No variables, no colons: nothing that would mean something else within an ARN.
        let of_name = |c: char| c.is_ascii_alphanumeric() || "._-/*?".contains(c);
        if pattern.is_empty() || pattern.len() > LONGEST || !pattern.chars().all(of_name) {
            return Err(error());
        }
        Ok(Self {
            words,
            pattern: pattern.to_owned(),
        })
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.words.iter().map(|word| word.as_str()).collect();
        write!(f, "{}:{}", words.join(","), self.pattern)
    }
}

/// The document that says the same as `scopes`, for the repositories of `account`. It is about whoever it is attached to.
pub(super) fn document(scopes: &[Scope], account: &Account) -> Result<Document, Faults> {
    let statement = |scope: &Scope| {
        let all = scope.pattern == "*";
        let arn = |service: &str, region: &str| {
            format!(
                "arn:aws:{service}:{region}:{account}:repository/{}",
                scope.pattern
            )
        };
        let resources: Value = if all {
            json!("*")
        } else {
            json!([arn("ecr", "*"), arn("ecr-public", "")])
        };
        json!({"Effect": "Allow", "Action": actions(&scope.words), "Resource": resources})
    };
    let mut statements: Vec<Value> = scopes.iter().map(statement).collect();
    // Whoever may do anything here may log in.
    let login = ["ecr:GetAuthorizationToken", "ecr-public:GetAuthorizationToken"];
    statements.push(json!({"Effect": "Allow", "Action": login, "Resource": "*"}));
    let document = json!({"Version": "2012-10-17", "Statement": statements});
    Document::parse_within(&document.to_string(), usize::MAX)
}

/// The names of what `words` stand for, each once.
pub(super) fn actions(words: &[Word]) -> Vec<&'static str> {
    let mut actions: Vec<_> = words
        .iter()
        .flat_map(|word| word.actions())
        .map(|action| action.name())
        .collect();
    actions.sort_unstable();
    actions.dedup();
    actions
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;
    use crate::auth::action::Action;
    use crate::auth::identity::{Identity, Kind};
    use crate::auth::policy::{Attached, Context, Request, decide};
    use crate::auth::resource::Resource;
    use crate::clock::Timestamp;

    #[test]
    fn they_are_read_and_said_again() {
        for (text, said) in [
            ("pull:team/*", "pull:team/*"),
            ("push, pull,pull:a", "pull,push:a"),
            ("admin:*", "admin:*"),
        ] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), said);
        }
        for text in [
            "",
            "pull",
            "pull:",
            ":a",
            "take:a",
            "pull:a:b",
            "pull:${aws:username}/*",
            "pull:Ä",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
        assert!(format!("pull:{}", "a".repeat(256)).parse::<Scope>().is_err());
    }

    #[test]
    fn they_grant_what_they_say_and_no_more() {
        let account = Account::default();
        let robot = Identity::named(Kind::Robot, "ci", account.clone()).unwrap();
        let may = |scopes: &[&str], action, repository: &str| {
            let scopes: Vec<Scope> = scopes.iter().map(|scope| scope.parse().unwrap()).collect();
            let document = document(&scopes, &account).unwrap();
            let resource = Resource::named("eu-north-1", &account, repository);
            let context = Context::at(Timestamp(0));
            let request = Request {
                principal: &robot,
                action,
                resource: &resource,
                context: &context,
            };
            let attached = Attached {
                identity: slice::from_ref(&document),
                repository: None,
                registry: None,
                same_account: true,
                owner: false,
            };
            decide(&request, &attached).is_allowed()
        };
        let (pull, push) = (Action::BatchGetImage, Action::PutImage);
        for (scopes, action, repository, expected) in [
            (&["pull:team/*"][..], pull, "team/app", true),
            (&["pull:team/*"], pull, "team/a/b", true),
            (&["pull:team/*"], push, "team/app", false),
            (&["pull:team/*"], pull, "teams/app", false),
            (&["pull:team/*", "push:other/app"], push, "other/app", true),
            (&["pull:team/*", "push:other/app"], push, "team/app", false),
            (&["pull:*"], pull, "quay/any/thing", true),
            (&[], pull, "team/app", false),
            (&["admin:*"], push, "x", true),
        ] {
            assert_eq!(
                may(scopes, action, repository),
                expected,
                "{scopes:?} {action} {repository}"
            );
        }
    }
}
