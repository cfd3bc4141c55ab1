//! What holds for all policies: a deny wins wherever it stands, allowing more never takes away, and no text does harm.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{NOON, app, document, of, user};
use crate::auth::action::Action;
use crate::auth::identity::Identity;
use crate::auth::policy::{Attached, Context, Decision, Document, Request, Usage, Why, decide};

fn some_statement() -> impl Strategy<Value = Value> {
    let effect = prop_oneof![3 => Just("Allow"), 1 => Just("Deny")];
    let principal = prop_oneof![
        Just(json!("*")),
        Just(json!({"AWS": "123456789012"})),
        Just(json!({"AWS": "arn:aws:iam::123456789012:user/alice"})),
        Just(json!({"AWS": "arn:aws:iam::210987654321:user/alice"})),
    ];
    let action = prop_oneof![
        Just("*"),
        Just("ecr:Get*"),
        Just("ecr:PutImage"),
        Just("ecr:BatchGetImage")
    ];
    let resource = prop_oneof![
        Just("*"),
        Just("arn:aws:ecr:*:*:repository/team/*"),
        Just("arn:aws:ecr:*:*:repository/${aws:username}"),
    ];
    let condition = prop_oneof![
        3 => Just(json!({})),
        1 => Just(json!({"StringEquals": {"aws:username": "alice"}})),
        1 => Just(json!({"Bool": {"aws:SecureTransport": "true"}})),
        1 => Just(json!({"StringNotLike": {"aws:UserAgent": "docker*"}})),
    ];
    (effect, principal, any::<[bool; 3]>(), action, resource, condition).prop_map(
        |(effect, principal, contrary, action, resource, condition)| {
            let key = |name: &str, contrary: bool| {
                if contrary {
                    format!("Not{name}")
                } else {
                    name.to_owned()
                }
            };
            json!({
                "Effect": effect,
                key("Principal", contrary[0]): principal,
                key("Action", contrary[1]): action,
                key("Resource", contrary[2]): resource,
                "Condition": condition,
            })
        },
    )
}

fn some_statements() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(some_statement(), 0..4)
}

#[derive(Debug)]
struct Scene {
    who: Identity,
    action: Action,
    same_account: bool,
    owner: bool,
    /// Of the caller, the repository and the registry.
    statements: [Vec<Value>; 3],
}

fn some_scene() -> impl Strategy<Value = Scene> {
    let who = prop_oneof![
        Just(user("alice")),
        Just(user("bob")),
        Just(of("210987654321", "alice")),
        Just(Identity::anonymous()),
    ];
    let action = prop::sample::select(vec![
        Action::PutImage,
        Action::BatchGetImage,
        Action::GetDownloadUrlForLayer,
        Action::GetAuthorizationToken,
    ]);
    let statements = [some_statements(), some_statements(), some_statements()];
    (who, action, any::<bool>(), any::<bool>(), statements).prop_map(
        |(who, action, same_account, owner, statements)| Scene {
            who,
            action,
            same_account,
            owner,
            statements,
        },
    )
}

impl Scene {
    fn decide(&self) -> Decision {
        let [identity, repository, registry] = self.statements.each_ref().map(|all| document(&json!(all)));
        let request = Request {
            principal: &self.who,
            action: self.action,
            resource: &app(),
            context: &Context::at(NOON),
        };
        let attached = Attached {
            identity: &[identity],
            repository: Some(&repository),
            registry: Some(&registry),
            same_account: self.same_account,
            owner: self.owner,
        };
        decide(&request, &attached)
    }
}

proptest! {
    #[test]
    fn an_explicit_deny_always_wins(mut scene in some_scene(), place in 0..3_usize, at in 0..4_usize) {
        let deny = json!({"Effect": "Deny", "Principal": "*", "Action": "*", "Resource": "*"});
        let statements = &mut scene.statements[place];
        statements.insert(at.min(statements.len()), deny);
        let decision = scene.decide();
        prop_assert!(matches!(decision, Decision::Deny(Why::Denied { .. })), "{decision:?}");
    }

    #[test]
    fn denying_more_never_gives(mut scene in some_scene(), place in 0..3_usize, mut more in some_statement()) {
        more["Effect"] = json!("Deny");
        let before = scene.decide();
        scene.statements[place].push(more);
        prop_assert!(before.is_allowed() || !scene.decide().is_allowed());
    }

    #[test]
    fn allowing_more_never_takes(mut scene in some_scene(), place in 0..3_usize, mut more in some_statement()) {
        more["Effect"] = json!("Allow");
        let before = scene.decide();
        scene.statements[place].push(more);
        prop_assert!(!before.is_allowed() || scene.decide().is_allowed());
    }

    #[test]
    fn the_order_of_statements_says_nothing(mut scene in some_scene()) {
        let before = scene.decide().is_allowed();
        for statements in &mut scene.statements {
            statements.reverse();
        }
        prop_assert_eq!(scene.decide().is_allowed(), before);
    }

    #[test]
    fn nothing_said_is_nothing_allowed(mut scene in some_scene()) {
        scene.statements = [Vec::new(), Vec::new(), Vec::new()];
        prop_assert_eq!(scene.decide().is_allowed(), scene.owner);
    }

    #[test]
    fn any_text_is_judged(text in "\\PC{0,200}") {
        let _ = Document::parse_for(&text, Usage::Repository);
    }
}
