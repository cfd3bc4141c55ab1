//! What people write instead of policies: `anonymous = ["pull"]`, `readers`, `writers`, `open_networks`. It becomes one
//! document, attached to every caller, so that there is one model and one decision. Called where the configuration is
//! put to work.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::action::Word;
use super::identity::Account;
use super::policy::{Document, Faults};
use super::scope;

/// The words of `[auth]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Presets {
    /// What everyone may do, with a login or without.
    pub anonymous: Vec<Word>,
    /// Who may pull and list: names as they follow `user/` in an ARN, `*` for everyone with a login, or
    /// `upstream/ghcr.io/*` for everyone with a login there.
    pub readers: Vec<String>,
    /// Who may pull, list and push; likewise.
    pub writers: Vec<String>,
    /// Who may do everything, by name.
    pub admins: Vec<String>,
    /// From where everyone may pull, without a login too.
    pub open_networks: Vec<IpNet>,
}

impl Presets {
    /// What the readers may do.
    pub const READ: &'static [Word] = &[Word::Pull, Word::List];
    /// What the writers may do. Nobody deletes by a preset.
    pub const WRITE: &'static [Word] = &[Word::Pull, Word::List, Word::Push];
    /// What the admins may do.
    pub const ADMIN: &'static [Word] = &[Word::Admin];

    /// The document that says the same, for the users of `account`. It names principals, and is attached to every caller.
    pub fn document(&self, account: &Account) -> Result<Document, Faults> {
        let mut statements = Vec::new();
        if !self.anonymous.is_empty() {
            statements.push(statement("anonymous", &self.anonymous, &json!("*"), None));
        }
        if !self.open_networks.is_empty() {
            let networks: Vec<String> = self.open_networks.iter().map(ToString::to_string).collect();
            let from = json!({"IpAddress": {"aws:SourceIp": networks}});
            statements.push(statement("open_networks", &[Word::Pull], &json!("*"), Some(from)));
        }
        for (sid, words, names) in [
            ("readers", Self::READ, &self.readers),
            ("writers", Self::WRITE, &self.writers),
            ("admins", Self::ADMIN, &self.admins),
        ] {
            if names.iter().any(|name| name == "*") {
                // Whoever has a login has an ARN; one at an upstream is none of ours.
                let logged_in = json!({
                    "Null": {"aws:PrincipalArn": "false"},
                    "StringNotEquals": {"wharfinger:Kind": "upstream"},
                });
                statements.push(statement(sid, words, &json!("*"), Some(logged_in)));
                continue;
            }
            let arn = |name: &&String| format!("arn:aws:iam::{account}:user/{name}");
            // Who can log in at an upstream is nothing that could be listed.
            let (upstreams, named): (Vec<_>, Vec<_>) = names.iter().partition(|name| is_of_upstream(name));
            if !named.is_empty() {
                let arns: Vec<String> = named.iter().map(arn).collect();
                statements.push(statement(sid, words, &json!({"AWS": arns}), None));
            }
            if !upstreams.is_empty() {
                let arns: Vec<String> = upstreams.iter().map(arn).collect();
                let alike = json!({"StringLike": {"aws:PrincipalArn": arns}});
                statements.push(statement(sid, words, &json!("*"), Some(alike)));
            }
        }
        let document = json!({"Version": "2012-10-17", "Statement": statements});
        // As long as the operator likes.
        Document::parse_within(&document.to_string(), usize::MAX)
    }

    /// Whether a caller without a login may do anything at all from this address; else it is asked for one, whatever the
    /// policies of repositories grant to `*`.
    pub fn admit_anonymous(&self, from: Option<IpAddr>) -> bool {
        !self.anonymous.is_empty() || self.is_open(from)
    }

    /// Whether this address is within the open networks.
    pub fn is_open(&self, from: Option<IpAddr>) -> bool {
        from.is_some_and(|ip| {
            let ip = ip.to_canonical();
            self.open_networks.iter().any(|network| network.contains(&ip))
        })
    }
}

/// Whether it means everyone with a login at some upstream: `upstream/ghcr.io/*`.
fn is_of_upstream(name: &str) -> bool {
    let prefix = name
        .strip_prefix("upstream/")
        .and_then(|rest| rest.strip_suffix("/*"));
    prefix.is_some_and(|prefix| !prefix.is_empty() && !prefix.contains(['*', '?', '/']))
}

fn statement(sid: &str, words: &[Word], principal: &Value, condition: Option<Value>) -> Value {
    let actions = scope::actions(words);
    let mut statement = json!({
        "Sid": sid,
        "Effect": "Allow",
        "Principal": principal,
        "Action": actions,
        "Resource": "*",
    });
    if let Some(condition) = condition {
        statement["Condition"] = condition;
    }
    statement
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

    fn names(all: &[&str]) -> Vec<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    fn may(presets: &Presets, who: &Identity, action: Action, from: &str) -> bool {
        let account = Account::default();
        let document = presets.document(&account).unwrap();
        let resource = Resource::named("eu-north-1", &account, "team/app");
        let mut context = Context::at(Timestamp(0));
        context.source_ip = Some(from.parse().unwrap());
        let request = Request {
            principal: who,
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
    }

    #[test]
    fn each_preset_grants_what_it_says_to_whom_it_says() {
        let account = Account::default();
        let named = |kind, name| Identity::named(kind, name, account.clone()).unwrap();
        let nobody = Identity::anonymous();
        let (alice, bob) = (named(Kind::User, "alice"), named(Kind::User, "bob"));
        let workload = named(Kind::Workload, "alice");
        let (pull, push, list) = (
            Action::BatchGetImage,
            Action::PutImage,
            Action::DescribeRepositories,
        );
        let delete = Action::BatchDeleteImage;
        let closed = Presets::default();
        let public = Presets {
            anonymous: vec![Word::Pull],
            ..Presets::default()
        };
        let team = Presets {
            readers: names(&["bob"]),
            writers: names(&["alice"]),
            ..Presets::default()
        };
        let members = Presets {
            readers: names(&["*"]),
            writers: names(&["workload/alice"]),
            ..Presets::default()
        };
        let there = Presets {
            readers: names(&["bob", "upstream/ghcr.io/*"]),
            ..Presets::default()
        };
        let (octocat, other) = (
            named(Kind::Upstream, "ghcr.io/octocat"),
            named(Kind::Upstream, "quay.io/octocat"),
        );
        let inside = Presets {
            open_networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
            ..Presets::default()
        };
        let cases = [
            (
                "nothing is granted by nothing",
                &closed,
                &alice,
                pull,
                "10.0.0.1",
                false,
            ),
            ("anonymous pulls", &public, &nobody, pull, "10.0.0.1", true),
            (
                "and so does whoever logged in",
                &public,
                &alice,
                pull,
                "10.0.0.1",
                true,
            ),
            ("but does not push", &public, &nobody, push, "10.0.0.1", false),
            ("nor list", &public, &nobody, list, "10.0.0.1", false),
            ("a reader pulls", &team, &bob, pull, "10.0.0.1", true),
            ("and lists", &team, &bob, list, "10.0.0.1", true),
            ("but does not push", &team, &bob, push, "10.0.0.1", false),
            ("a writer pushes", &team, &alice, push, "10.0.0.1", true),
            ("and pulls", &team, &alice, pull, "10.0.0.1", true),
            ("but does not delete", &team, &alice, delete, "10.0.0.1", false),
            ("others may nothing", &team, &nobody, pull, "10.0.0.1", false),
            (
                "a workload is not the user of its name",
                &team,
                &workload,
                push,
                "10.0.0.1",
                false,
            ),
            ("it is named as such", &members, &workload, push, "10.0.0.1", true),
            (
                "and the user is not it",
                &members,
                &alice,
                push,
                "10.0.0.1",
                false,
            ),
            ("every login reads", &members, &bob, pull, "10.0.0.1", true),
            ("but nobody without", &members, &nobody, pull, "10.0.0.1", false),
            (
                "nor a login at an upstream",
                &members,
                &octocat,
                pull,
                "10.0.0.1",
                false,
            ),
            ("unless it is named", &there, &octocat, pull, "10.0.0.1", true),
            ("beside those of ours", &there, &bob, pull, "10.0.0.1", true),
            ("of this upstream", &there, &other, pull, "10.0.0.1", false),
            ("to read", &there, &octocat, push, "10.0.0.1", false),
            ("an open network", &inside, &nobody, pull, "10.1.2.3", true),
            ("in IPv6", &inside, &nobody, pull, "fd00::1", true),
            (
                "through an IPv6 socket",
                &inside,
                &nobody,
                pull,
                "::ffff:10.1.2.3",
                true,
            ),
            ("and the others", &inside, &nobody, pull, "11.1.2.3", false),
            (
                "opens for nothing more",
                &inside,
                &nobody,
                push,
                "10.1.2.3",
                false,
            ),
        ];
        for (name, presets, who, action, from, expected) in cases {
            assert_eq!(may(presets, who, action, from), expected, "{name}");
        }
        assert!(public.admit_anonymous(None));
        assert!(inside.admit_anonymous(Some("::ffff:10.1.2.3".parse().unwrap())));
        assert!(!inside.admit_anonymous(Some("192.0.2.1".parse().unwrap())));
        assert!(!inside.admit_anonymous(None) && !team.admit_anonymous(None));
    }

    #[test]
    fn many_names_are_no_fault() {
        let presets = Presets {
            readers: (0..5000).map(|number| format!("user-{number}")).collect(),
            ..Presets::default()
        };
        let last = Identity::named(Kind::User, "user-4999", Account::default()).unwrap();
        assert!(may(&presets, &last, Action::BatchGetImage, "10.0.0.1"));
        // A name that could not be anybody's is told, not passed over.
        let presets = Presets {
            readers: names(&["team-*"]),
            ..Presets::default()
        };
        assert!(presets.document(&Account::default()).is_err());
    }
}
