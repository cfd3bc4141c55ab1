//! Who may read from an upstream: Basic, or Bearer with a token service that the same or another
//! upstream serves, after the Docker token specification and what registries really do.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::Upstream;
use super::matching::{Asked, Target};
use crate::support::locked;

/// Basic authentication: one user.
#[derive(Clone, Debug)]
pub struct Basic {
    user: String,
    password: String,
    expired: HashSet<String>,
    challenge: String,
}

impl Basic {
    /// Accepts this user with this password alone.
    pub fn new(user: &str, password: &str) -> Self {
        Self {
            user: user.to_owned(),
            password: password.to_owned(),
            expired: HashSet::new(),
            challenge: "Basic realm=\"registry.test\"".to_owned(),
        }
    }

    /// Challenges with this line.
    pub fn challenge(mut self, line: &str) -> Self {
        line.clone_into(&mut self.challenge);
        self
    }

    /// From now on the old password gets a 403 that says "expired", as Amazon ECR does.
    pub(super) fn expire(&mut self, new_password: &str) {
        let old = std::mem::replace(&mut self.password, new_password.to_owned());
        self.expired.insert(old);
    }
}

/// Bearer authentication, and its token service.
#[derive(Clone, Debug)]
pub struct Bearer {
    pub(super) realm: Option<String>,
    path: String,
    service: String,
    anonymous: bool,
    users: HashMap<String, String>,
    private: HashSet<String>,
    /// Users who may read but these of the private ones.
    limited: HashMap<String, HashSet<String>>,
    scope: Option<String>,
    expires_in: Option<u64>,
    keys: Vec<&'static str>,
    challenges: Vec<String>,
    /// Those for a token that has ended.
    when_ended: Option<Vec<String>>,
    only_on_ping: bool,
    hide_unknown: bool,
    issued: Arc<Mutex<Issued>>,
}

#[derive(Debug, Default)]
struct Issued {
    count: usize,
    valid: HashMap<String, Grant>,
}

#[derive(Debug)]
struct Grant {
    scopes: HashSet<String>,
    account: Option<String>,
}

impl Bearer {
    /// Anonymous tokens for everyone, good for 300 s, from `/token` on the upstream itself.
    pub fn new() -> Self {
        Self {
            realm: None,
            path: "/token".to_owned(),
            service: "registry.test".to_owned(),
            anonymous: true,
            users: HashMap::new(),
            private: HashSet::new(),
            limited: HashMap::new(),
            scope: None,
            expires_in: Some(300),
            keys: vec!["token"],
            challenges: Vec::new(),
            when_ended: None,
            only_on_ping: false,
            hide_unknown: true,
            issued: Arc::default(),
        }
    }

    /// Calls itself so; tokens of another service are not for it.
    pub fn service(mut self, name: &str) -> Self {
        name.clone_into(&mut self.service);
        self
    }

    /// Issues its tokens at this path, one of those that the matcher `tokens` knows.
    pub fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Gives no tokens without credentials.
    pub fn no_anonymous(mut self) -> Self {
        self.anonymous = false;
        self
    }

    /// Adds a user, who may read everything.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.insert(name.to_owned(), password.to_owned());
        self
    }

    /// Adds a user, who may read these of the private repositories alone.
    pub fn user_of(mut self, name: &str, password: &str, repos: &[&str]) -> Self {
        let repos = repos.iter().map(|repo| (*repo).to_owned()).collect();
        self.limited.insert(name.to_owned(), repos);
        self.user(name, password)
    }

    /// Makes a repository readable for users alone.
    pub fn private(mut self, repo: &str) -> Self {
        self.private.insert(repo.to_owned());
        self
    }

    /// Challenges with one constant scope, which opens every repository (ECR Public: `aws`).
    pub fn constant_scope(mut self, scope: &str) -> Self {
        self.scope = Some(scope.to_owned());
        self
    }

    /// What `expires_in` says, in seconds; None leaves it out. Tokens end by `revoke_tokens` alone.
    pub fn expires_in(mut self, seconds: Option<u64>) -> Self {
        self.expires_in = seconds;
        self
    }

    /// Under which keys the answer carries the token: `token`, `access_token`, or both.
    pub fn token_keys(mut self, keys: &[&'static str]) -> Self {
        self.keys = keys.to_vec();
        self
    }

    /// The `WWW-Authenticate` lines verbatim, with `{realm}`, `{service}` and `{scope}` filled in.
    pub fn challenges(mut self, lines: &[&str]) -> Self {
        self.challenges = lines.iter().map(|line| (*line).to_owned()).collect();
        self
    }

    /// What a token that has ended is answered with, in place of the challenge that no token gets.
    pub fn when_ended(mut self, lines: &[&str]) -> Self {
        self.when_ended = Some(lines.iter().map(|line| (*line).to_owned()).collect());
        self
    }

    /// Says how to authorize at `/v2/` alone; elsewhere it is a 401 and no more.
    pub fn only_on_ping(mut self) -> Self {
        self.only_on_ping = true;
        self
    }

    /// Answers 404 for unknown repositories, instead of 401 as Docker Hub does.
    pub fn show_unknown(mut self) -> Self {
        self.hide_unknown = false;
        self
    }

    /// A token that opens this scope to an account, without anybody having asked for it.
    pub fn grant_account(&self, scope: &str) -> String {
        let mut issued = locked(&self.issued);
        issued.count += 1;
        let token = format!("granted-{}", issued.count);
        let grant = Grant {
            scopes: HashSet::from([scope.to_owned()]),
            account: Some("granted".to_owned()),
        };
        issued.valid.insert(token.clone(), grant);
        token
    }

    /// Makes all tokens issued so far invalid.
    pub(super) fn revoke(&self) {
        locked(&self.issued).valid.clear();
    }

    fn scope_for(&self, asked: &Asked) -> Option<String> {
        let repo = asked.target().repo()?;
        Some(
            self.scope
                .clone()
                .unwrap_or_else(|| format!("repository:{repo}:pull")),
        )
    }

    fn challenge(&self, asked: &Asked, error: Option<&str>) -> Vec<String> {
        let realm = self.realm.as_deref().unwrap_or_default();
        let scope = self.scope_for(asked);
        if self.only_on_ping && asked.target() != Target::Ping {
            return Vec::new();
        }
        let ended = self
            .when_ended
            .as_ref()
            .filter(|_| error == Some("invalid_token"));
        let lines = ended.unwrap_or(&self.challenges);
        if !lines.is_empty() {
            let scope = scope.unwrap_or_default();
            let fill = |line: &String| {
                line.replace("{realm}", realm)
                    .replace("{service}", &self.service)
                    .replace("{scope}", &scope)
            };
            return lines.iter().map(fill).collect();
        }
        let mut line = format!("Bearer realm=\"{realm}\",service=\"{}\"", self.service);
        for (name, value) in [("scope", scope.as_deref()), ("error", error)] {
            if let Some(value) = value {
                line = format!("{line},{name}=\"{value}\"");
            }
        }
        vec![line]
    }

    fn check(&self, asked: &Asked, repo_exists: bool) -> Result<(), Refusal> {
        let refuse = |error| Err(Refusal::challenge(self.challenge(asked, error)));
        let Some(token) = asked.header("authorization").strip_prefix("Bearer ") else {
            return refuse(None);
        };
        let issued = locked(&self.issued);
        let Some(grant) = issued.valid.get(token) else {
            return refuse(Some("invalid_token"));
        };
        let Some(repo) = asked.target().repo() else {
            return Ok(());
        };
        let wanted = self.scope_for(asked).unwrap_or_default();
        let may = |account: &String| self.limited.get(account).is_none_or(|own| own.contains(repo));
        let readable = grant.scopes.contains(&wanted)
            && (!self.private.contains(repo) || grant.account.as_ref().is_some_and(may));
        if !readable || (self.hide_unknown && !repo_exists) {
            return refuse(Some("insufficient_scope"));
        }
        Ok(())
    }

    pub(super) fn serves(&self, service: Option<&str>) -> bool {
        service.is_none_or(|service| service == self.service)
    }

    /// What the token service answers: a token with the rights that the caller may have, or a refusal.
    pub(super) fn token(&self, asked: &Asked) -> Result<String, Refusal> {
        let account = match basic_credentials(asked) {
            None if self.anonymous => None,
            Some((user, password)) if self.users.get(&user) == Some(&password) => Some(user),
            _ => {
                return Err(Refusal::challenge(vec![
                    "Basic realm=\"token service\"".to_owned(),
                ]));
            }
        };
        // Fewer rights than asked for is no error: the token is just good for less.
        let scopes = asked
            .parameters("scope")
            .iter()
            .flat_map(|scope| split_scope(scope))
            .collect();
        let mut issued = locked(&self.issued);
        issued.count += 1;
        let token = format!("token-{}-{}", self.service, issued.count);
        issued.valid.insert(token.clone(), Grant { scopes, account });
        drop(issued);
        let mut body = json!({});
        for key in &self.keys {
            body[*key] = json!(token);
        }
        if let Some(seconds) = self.expires_in {
            body["expires_in"] = json!(seconds);
        }
        Ok(body.to_string())
    }
}

/// One entry per scope, reduced to reading: `repository:a:pull,push` allows what `repository:a:pull` asks.
fn split_scope(scopes: &str) -> Vec<String> {
    let reduce = |scope: &str| match scope.rsplit_once(':') {
        Some((resource, actions)) if actions.split(',').any(|action| action == "pull") => {
            format!("{resource}:pull")
        }
        _ => scope.to_owned(),
    };
    scopes
        .split(' ')
        .filter(|scope| !scope.is_empty())
        .map(reduce)
        .collect()
}

fn basic_credentials(asked: &Asked) -> Option<(String, String)> {
    let encoded = asked.header("authorization").strip_prefix("Basic ")?;
    let decoded = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

/// The door of one upstream.
#[derive(Clone, Debug, Default)]
pub(super) enum Door {
    #[default]
    Open,
    Basic(Basic),
    Bearer(Box<Bearer>),
}

/// An answer instead of content.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: &'static str,
    pub(super) challenges: Vec<String>,
}

impl Refusal {
    fn challenge(challenges: Vec<String>) -> Self {
        Self {
            status: 401,
            message: "authentication required",
            challenges,
        }
    }
}

impl Door {
    pub(super) fn check(&self, asked: &Asked, repo_exists: bool) -> Result<(), Refusal> {
        match self {
            Self::Open => Ok(()),
            Self::Bearer(bearer) => bearer.check(asked, repo_exists),
            Self::Basic(basic) => match basic_credentials(asked) {
                Some((user, password)) if user == basic.user && password == basic.password => Ok(()),
                Some((user, password)) if user == basic.user && basic.expired.contains(&password) => {
                    Err(Refusal {
                        status: 403,
                        message: "Your authorization token has expired. Reauthenticate and try again.",
                        challenges: Vec::new(),
                    })
                }
                _ => Err(Refusal::challenge(vec![basic.challenge.clone()])),
            },
        }
    }
}

/// Who may read.
impl Upstream {
    /// Wants Basic authentication.
    pub fn require_basic(&self, basic: Basic) {
        *locked(&self.inner.door) = Door::Basic(basic);
    }

    /// Answers the present Basic password with 403 "expired" from now on, and wants this one.
    pub fn expire_basic(&self, new_password: &str) {
        match &mut *locked(&self.inner.door) {
            Door::Basic(basic) => basic.expire(new_password),
            _ => panic!("there is no Basic authentication to expire"),
        }
    }

    /// Wants tokens, and issues them at `/token`.
    pub fn require_bearer(&self, bearer: Bearer) {
        self.require_bearer_of(bearer, self);
    }

    /// Wants tokens that another server issues.
    pub fn require_bearer_of(&self, mut bearer: Bearer, issuer: &Upstream) {
        bearer
            .realm
            .get_or_insert_with(|| format!("{}{}", issuer.url(), bearer.path));
        locked(&issuer.inner.token_services).push(bearer.clone());
        *locked(&self.inner.door) = Door::Bearer(Box::new(bearer));
    }

    /// As whom it is asked: the user of the login or of the token's login, None for nobody in particular.
    pub fn account_of(&self, asked: &Asked) -> Option<String> {
        match &*locked(&self.inner.door) {
            Door::Open => None,
            Door::Basic(_) => basic_credentials(asked).map(|(user, _)| user),
            Door::Bearer(bearer) => {
                let token = asked.header("authorization").strip_prefix("Bearer ")?;
                locked(&bearer.issued).valid.get(token)?.account.clone()
            }
        }
    }

    /// Makes all tokens issued so far invalid.
    pub fn revoke_tokens(&self) {
        match &*locked(&self.inner.door) {
            Door::Bearer(bearer) => bearer.revoke(),
            _ => panic!("there are no tokens to revoke"),
        }
    }
}
