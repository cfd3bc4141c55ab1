//! Policies by table and by property. Each case has a name and says all that it depends on.

mod conditions;
mod decisions;
mod documents;
mod patterns;
mod properties;

use serde_json::{Value, json};

use super::{Attached, Context, Decision, Document, Request, decide};
use crate::auth::action::Action;
use crate::auth::identity::{Account, Identity, Kind};
use crate::auth::resource::Resource;
use crate::clock::Timestamp;

/// 2026-01-31T12:00:00Z.
const NOON: Timestamp = Timestamp(1_769_860_800_000);
const HOME: &str = "123456789012";

fn home() -> Account {
    HOME.parse().unwrap()
}

fn user(name: &str) -> Identity {
    Identity::named(Kind::User, name, home()).unwrap()
}

fn of(account: &str, name: &str) -> Identity {
    Identity::named(Kind::User, name, account.parse().unwrap()).unwrap()
}

fn app() -> Resource {
    Resource::named("eu-north-1", &home(), "team/app")
}

fn document(statements: &Value) -> Document {
    let text = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    Document::parse(&text).unwrap_or_else(|faults| panic!("{text}: {faults}"))
}

/// A statement about everything, but for what is said otherwise.
fn statement(effect: &str, more: &Value) -> Value {
    let mut statement = json!({"Effect": effect});
    let object = statement.as_object_mut().unwrap();
    object.extend(more.as_object().unwrap().clone());
    if !object.contains_key("Action") && !object.contains_key("NotAction") {
        object.insert("Action".to_owned(), json!("*"));
    }
    statement
}

fn allow(more: &Value) -> Value {
    statement("Allow", more)
}

fn deny(more: &Value) -> Value {
    statement("Deny", more)
}

/// The decision about `who` doing `action` with team/app under the caller's own statements and those of the repository.
fn decision(who: &Identity, action: Action, context: &Context, own: &Value, repository: &Value) -> Decision {
    let own = [document(own)];
    let repository = document(repository);
    let request = Request {
        principal: who,
        action,
        resource: &app(),
        context,
    };
    let attached = Attached {
        identity: &own,
        repository: Some(&repository),
        registry: None,
        same_account: who.is_anonymous() || who.account() == &home(),
        owner: false,
    };
    decide(&request, &attached)
}
