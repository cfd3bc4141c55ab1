//! What is known of a request besides who asks for what, looked up by the keys of conditions (IAM User Guide, "AWS global
//! condition context keys"). Filled by who asks for a decision, read by `condition` and for variables.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::evaluate::Request;
use crate::auth::identity::Kind;
use crate::clock::Timestamp;

/// The circumstances of a request. What is not known is absent, and conditions on it are told so.
#[derive(Clone, Debug)]
pub struct Context {
    /// When: `aws:CurrentTime`, `aws:EpochTime`.
    pub now: Timestamp,
    /// Where from, as far as it is to be believed: `aws:SourceIp`.
    pub source_ip: Option<IpAddr>,
    /// Whether it came over TLS: `aws:SecureTransport`.
    pub secure_transport: bool,
    /// On behalf of which resource: `aws:SourceArn`.
    pub source_arn: Option<String>,
    /// Of which account that is: `aws:SourceAccount`.
    pub source_account: Option<String>,
    /// What the client calls itself: `aws:UserAgent`. Its first 512 characters count.
    pub user_agent: Option<String>,
    /// Tags that the request carries: `aws:RequestTag/<key>`, and all their keys as `aws:TagKeys`.
    pub request_tags: BTreeMap<String, String>,
    /// Tags of the repository: `aws:ResourceTag/<key>`, also as `ecr:ResourceTag/<key>`.
    pub resource_tags: BTreeMap<String, String>,
    /// Tags of the caller: `aws:PrincipalTag/<key>`.
    pub principal_tags: BTreeMap<String, String>,
    /// Whatever else is known, such as the claims of a token, by keys in lower case.
    pub further: BTreeMap<String, Vec<String>>,
}

/// So much of what a client calls itself is compared: as it pleases, it could be as long as a header, and patterns cost
/// their length times that of the text.
const MAX_USER_AGENT: usize = 512;

/// The values under a key: usually one.
pub(super) type Values<'a> = Vec<Cow<'a, str>>;

impl Context {
    /// Nothing but the time is known.
    pub fn at(now: Timestamp) -> Self {
        Self {
            now,
            source_ip: None,
            secure_transport: false,
            source_arn: None,
            source_account: None,
            user_agent: None,
            request_tags: BTreeMap::new(),
            resource_tags: BTreeMap::new(),
            principal_tags: BTreeMap::new(),
            further: BTreeMap::new(),
        }
    }
}

/// Seconds and the time in words of a moment.
fn instant(now: Timestamp) -> Option<jiff::Timestamp> {
    i64::try_from(now.0)
        .ok()
        .and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok())
}

fn one<'a>(value: impl Into<Cow<'a, str>>) -> Values<'a> {
    vec![value.into()]
}

/// The tag whose key this is, in any case.
fn tag<'a>(tags: &'a BTreeMap<String, String>, wanted: &str) -> Option<Values<'a>> {
    let mut found = tags.iter().filter(|(key, _)| key.to_lowercase() == wanted);
    found.next().map(|(_, value)| one(value.as_str()))
}

impl<'a> Request<'a> {
    /// What is known under `key`, which is in lower case; `None` when nothing is.
    pub(super) fn values(&self, key: &str) -> Option<Values<'a>> {
        let (context, principal) = (self.context, self.principal);
        let of = |text: &'a Option<String>| text.as_deref().map(one);
        match key {
            "aws:currenttime" => instant(context.now).map(|at| one(at.to_string())),
            "aws:epochtime" => Some(one((context.now.0 / 1000).to_string())),
            // An IPv4 address that came through an IPv6 socket is an IPv4 address.
            "aws:sourceip" => context.source_ip.map(|ip| one(ip.to_canonical().to_string())),
            "aws:securetransport" => Some(one(if context.secure_transport { "true" } else { "false" })),
            "aws:sourcearn" => of(&context.source_arn),
            "aws:sourceaccount" => of(&context.source_account),
            "aws:useragent" => context.user_agent.as_deref().map(|text| {
                let end = text.char_indices().nth(MAX_USER_AGENT).map(|(at, _)| at);
                one(end.map_or(text, |end| &text[..end]))
            }),
            // Those who have no password and no key are no users to IAM.
            "aws:username" => {
                matches!(principal.kind(), Kind::User | Kind::Robot).then(|| one(principal.name()))
            }
            "aws:principalarn" => principal.arn().map(one),
            "aws:principalaccount" | "wharfinger:name" if principal.is_anonymous() => None,
            "aws:principalaccount" => Some(one(principal.account().as_str())),
            "aws:principaltype" => Some(one(match principal.kind() {
                Kind::Anonymous => "Anonymous",
                Kind::Operator => "Account",
                Kind::User | Kind::Robot | Kind::Workload | Kind::Certificate | Kind::Upstream => "User",
            })),
            "aws:tagkeys" => {
                let keys = context.request_tags.keys();
                let keys: Values<'a> = keys.map(|key| Cow::Borrowed(key.as_str())).collect();
                (!keys.is_empty()).then_some(keys)
            }
            "wharfinger:kind" => Some(one(principal.kind().as_str())),
            "wharfinger:name" => Some(one(principal.name())),
            "wharfinger:issuer" => principal.issuer().map(one),
            _ => self.tagged(key).or_else(|| {
                let further = context.further.get(key).filter(|values| !values.is_empty())?;
                Some(
                    further
                        .iter()
                        .map(|value| Cow::Borrowed(value.as_str()))
                        .collect(),
                )
            }),
        }
    }

    fn tagged(&self, key: &str) -> Option<Values<'a>> {
        let (of, wanted) = key.split_once('/')?;
        match of {
            "aws:requesttag" => tag(&self.context.request_tags, wanted),
            "aws:resourcetag" | "ecr:resourcetag" | "ecr-public:resourcetag" => {
                tag(&self.context.resource_tags, wanted)
            }
            "aws:principaltag" => tag(&self.context.principal_tags, wanted),
            _ => None,
        }
    }

    /// The one thing that is known under `key`, for a variable; nothing when it is several.
    pub(super) fn value(&self, key: &str) -> Option<String> {
        match self.values(key)?.as_slice() {
            [value] => Some(value.as_ref().to_owned()),
            _ => None,
        }
    }
}
