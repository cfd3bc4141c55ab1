//! Decisions: who is meant, about what, and how several policies come to one answer. Among them the policies that the
//! guides of Amazon ECR show.

use std::slice;

use serde_json::{Value, json};

use super::{HOME, NOON, allow, app, decision, deny, document, home, of, user};
use crate::auth::action::Action;
use crate::auth::identity::{Identity, Kind};
use crate::auth::policy::{Attached, Context, Decision, Document, Place, Request, Why, decide};
use crate::auth::resource::Resource;

const ROOT: &str = "arn:aws:iam::123456789012:root";
const ALICE: &str = "arn:aws:iam::123456789012:user/alice";

fn may(who: &Identity, own: &Value, repository: &Value) -> bool {
    let context = Context::at(NOON);
    decision(who, Action::BatchGetImage, &context, own, repository).is_allowed()
}

#[test]
fn who_is_meant() {
    let alice = user("alice");
    let nobody = Identity::anonymous();
    let operator = Identity::operator(home());
    let workload = Identity::named(Kind::Workload, "ci", home())
        .unwrap()
        .issued_by("https://issuer.example.com/path");
    let to = |principal: Value| json!([allow(&json!({"Principal": principal}))]);
    let aws = |principal: &str| to(json!({"AWS": principal}));
    let to_all_but = |principal: Value| json!([allow(&json!({"NotPrincipal": principal}))]);
    let pulls = json!([allow(&json!({"Action": "ecr:BatchGetImage", "Resource": "*"}))]);
    let none = json!([]);
    let cases = [
        ("everyone", &alice, &none, to(json!("*")), true),
        ("everyone, without a name", &nobody, &none, to(json!("*")), true),
        ("everyone of AWS is everyone", &nobody, &none, aws("*"), true),
        ("itself", &alice, &none, aws(ALICE), true),
        (
            "itself in a list",
            &alice,
            &none,
            to(json!({"AWS": ["210987654321", ALICE]})),
            true,
        ),
        ("another", &user("bob"), &none, aws(ALICE), false),
        (
            "of another account",
            &of("210987654321", "alice"),
            &pulls,
            aws(ALICE),
            false,
        ),
        (
            "the account passes on what it has",
            &alice,
            &none,
            aws(ROOT),
            false,
        ),
        ("to those whom it lets", &alice, &pulls, aws(ROOT), true),
        (
            "to one of another account whom that lets",
            &of("210987654321", "alice"),
            &pulls,
            aws("210987654321"),
            true,
        ),
        (
            "and to no other there",
            &of("210987654321", "alice"),
            &none,
            aws("210987654321"),
            false,
        ),
        (
            "itself, and as one of the account",
            &alice,
            &none,
            json!([
                allow(&json!({"Principal": {"AWS": ALICE}})),
                allow(&json!({"Principal": {"AWS": ROOT}})),
            ]),
            true,
        ),
        ("its root needs nobody", &operator, &none, aws(ROOT), true),
        ("an account by its number", &operator, &none, aws(HOME), true),
        (
            "nobody is of no account",
            &nobody,
            &none,
            aws("000000000000"),
            false,
        ),
        (
            "a service is nobody here",
            &alice,
            &none,
            to(json!({"Service": "codebuild.amazonaws.com"})),
            false,
        ),
        (
            "an issuer",
            &workload,
            &none,
            to(json!({"Federated": "issuer.example.com/path"})),
            true,
        ),
        (
            "by its URL",
            &workload,
            &none,
            to(json!({"Federated": "https://issuer.example.com/path"})),
            true,
        ),
        (
            "by the ARN of its provider",
            &workload,
            &none,
            to(json!({"Federated": "arn:aws:iam::123456789012:oidc-provider/issuer.example.com/path"})),
            true,
        ),
        (
            "another issuer",
            &workload,
            &none,
            to(json!({"Federated": "issuer.example.com"})),
            false,
        ),
        (
            "no issuer",
            &alice,
            &none,
            to(json!({"Federated": "issuer.example.com/path"})),
            false,
        ),
        ("nobody named", &alice, &none, to(json!({"AWS": []})), false),
        (
            "all but another",
            &user("bob"),
            &none,
            to_all_but(json!({"AWS": ALICE})),
            true,
        ),
        (
            "all but itself",
            &alice,
            &none,
            to_all_but(json!({"AWS": ALICE})),
            false,
        ),
        (
            "all but its account",
            &alice,
            &none,
            to_all_but(json!({"AWS": HOME})),
            false,
        ),
        ("all but everyone", &alice, &none, to_all_but(json!("*")), false),
    ];
    for (name, who, own, repository, expected) in cases {
        assert_eq!(may(who, own, &repository), expected, "{name}");
    }
    // A deny is about all of an account, and of everyone.
    let not = |principal: Value| json!([deny(&json!({"Principal": principal}))]);
    let everything = json!([allow(&json!({"Resource": "*"}))]);
    let cases = [
        ("itself", &alice, json!({"AWS": ALICE}), false),
        ("its account", &alice, json!({"AWS": HOME}), false),
        ("another account", &alice, json!({"AWS": "210987654321"}), true),
        ("everyone", &alice, json!("*"), false),
        ("an account", &nobody, json!({"AWS": "000000000000"}), true),
    ];
    for (name, who, principal, expected) in cases {
        assert_eq!(
            may(who, &everything, &not(principal)),
            expected,
            "denied to {name}"
        );
    }
    // Of a deny only those are excepted who are named themselves.
    let all_but = |principal: Value| json!([deny(&json!({"NotPrincipal": principal}))]);
    let cases = [
        ("itself", &alice, json!({"AWS": ALICE}), true),
        (
            "itself and its account",
            &alice,
            json!({"AWS": [ALICE, ROOT]}),
            true,
        ),
        ("its account alone", &alice, json!({"AWS": ROOT}), false),
        ("the root of it", &operator, json!({"AWS": ROOT}), true),
        ("another", &user("bob"), json!({"AWS": [ALICE, ROOT]}), false),
    ];
    for (name, who, principal, expected) in cases {
        assert_eq!(
            may(who, &everything, &all_but(principal)),
            expected,
            "denied to all but: {name}"
        );
    }
}

#[test]
fn what_it_is_about() {
    let app = "arn:aws:ecr:eu-north-1:123456789012:repository/team/app";
    let cases = [
        ("everything", json!({"Resource": "*"}), true),
        ("itself", json!({"Resource": app}), true),
        ("a list", json!({"Resource": ["arn:aws:s3:::x", app]}), true),
        (
            "a folder",
            json!({"Resource": "arn:aws:ecr:*:123456789012:repository/team/*"}),
            true,
        ),
        (
            "in any region",
            json!({"Resource": "arn:aws:ecr:*:*:repository/team/ap?"}),
            true,
        ),
        (
            "another",
            json!({"Resource": "arn:aws:ecr:eu-north-1:123456789012:repository/team/api"}),
            false,
        ),
        (
            "in other letters",
            json!({"Resource": "arn:aws:ecr:eu-north-1:123456789012:repository/TEAM/app"}),
            false,
        ),
        (
            "its beginning",
            json!({"Resource": "arn:aws:ecr:eu-north-1:123456789012:repository/team"}),
            false,
        ),
        ("all but itself", json!({"NotResource": app}), false),
        (
            "all but another",
            json!({"NotResource": "arn:aws:ecr:*:*:repository/other/*"}),
            true,
        ),
        (
            "the caller's own",
            json!({"Resource": "arn:aws:ecr:*:*:repository/${aws:PrincipalTag/team}/*"}),
            true,
        ),
        (
            "a variable without a value",
            json!({"Resource": "arn:aws:ecr:*:*:${aws:none}*"}),
            false,
        ),
        (
            "all but a variable without a value",
            json!({"NotResource": "arn:aws:ecr:*:*:${aws:none}"}),
            false,
        ),
    ];
    let mut context = Context::at(NOON);
    context
        .principal_tags
        .insert("team".to_owned(), "team".to_owned());
    for (name, about, expected) in cases {
        let own = json!([allow(&about)]);
        let found = decision(&user("alice"), Action::BatchGetImage, &context, &own, &json!([]));
        assert_eq!(found.is_allowed(), expected, "{name}");
    }
    // What asks for no repository by name is for those who may with all of them.
    let all = Resource::repositories("eu-north-1", &home());
    for (about, expected) in [("*", true), ("arn:aws:ecr:*:*:repository/*", true), (app, false)] {
        let own = document(&json!([allow(&json!({"Resource": about}))]));
        let request = Request {
            principal: &user("alice"),
            action: Action::DescribeRepositories,
            resource: &all,
            context: &context,
        };
        let attached = Attached {
            identity: slice::from_ref(&own),
            repository: None,
            registry: None,
            same_account: true,
            owner: false,
        };
        assert_eq!(decide(&request, &attached).is_allowed(), expected, "{about}");
    }
    // Denied is what cannot be told from what is to be denied.
    let own = json!([
        allow(&json!({"Resource": "*"})),
        deny(&json!({"NotResource": "arn:aws:ecr:*:*:${aws:none}"})),
    ]);
    assert!(!decision(&user("alice"), Action::BatchGetImage, &context, &own, &json!([])).is_allowed());
}

#[test]
fn variables_are_text_in_the_old_version() {
    let parse = |version: &str| {
        let statement = allow(&json!({"Resource": "arn:aws:ecr:*:*:repository/${aws:username, 'team'}/app"}));
        Document::parse(&json!({"Version": version, "Statement": statement}).to_string()).unwrap()
    };
    let workload = Identity::named(Kind::Workload, "ci", home()).unwrap();
    for (version, expected) in [("2012-10-17", true), ("2008-10-17", false)] {
        let document = parse(version);
        let found = decide(
            &Request {
                principal: &workload,
                action: Action::PutImage,
                resource: &app(),
                context: &Context::at(NOON),
            },
            &Attached {
                identity: slice::from_ref(&document),
                repository: None,
                registry: None,
                same_account: true,
                owner: false,
            },
        );
        assert_eq!(found.is_allowed(), expected, "{version}");
    }
}

/// What an identity, a repository and the registry say.
#[derive(Clone, Copy)]
enum Say {
    Nothing,
    Allow,
    Deny,
}

fn said(say: Say) -> Option<Document> {
    let everyone = json!({"Principal": "*"});
    match say {
        Say::Nothing => None,
        Say::Allow => Some(document(&json!([allow(&everyone)]))),
        Say::Deny => Some(document(&json!([allow(&everyone), deny(&everyone)]))),
    }
}

#[test]
fn several_policies_come_to_one_answer() {
    use Say::{Allow as A, Deny as D, Nothing as N};
    // Identity, repository, registry: in the same account, and across.
    let cases = [
        (N, N, N, false, false),
        (A, N, N, true, false),
        (N, A, N, true, false),
        (N, N, A, true, false),
        (A, A, N, true, true),
        (A, N, A, true, true),
        (A, A, A, true, true),
        (N, A, A, true, false),
        (D, A, A, false, false),
        (A, D, A, false, false),
        (A, A, D, false, false),
        (D, N, N, false, false),
        (N, D, N, false, false),
        (N, N, D, false, false),
    ];
    for (number, (identity, repository, registry, same, across)) in cases.into_iter().enumerate() {
        let identity: Vec<_> = said(identity).into_iter().collect();
        let (repository, registry) = (said(repository), said(registry));
        let denied = [&repository, &registry]
            .into_iter()
            .flatten()
            .chain(&identity)
            .any(|document| document.statements().len() > 1);
        let decided = |same_account, owner| {
            let request = Request {
                principal: &user("alice"),
                action: Action::PutImage,
                resource: &app(),
                context: &Context::at(NOON),
            };
            let attached = Attached {
                identity: &identity,
                repository: repository.as_ref(),
                registry: registry.as_ref(),
                same_account,
                owner,
            };
            decide(&request, &attached).is_allowed()
        };
        assert_eq!(decided(true, false), same, "case {number}, same account");
        assert_eq!(decided(false, false), across, "case {number}, across accounts");
        assert_eq!(decided(true, true), !denied, "case {number}, owner");
    }
}

#[test]
fn a_login_is_for_the_callers_own_policies_to_give() {
    let login = |own: &Value, other: &Value, same_account| {
        let (own, other) = ([document(own)], document(other));
        let request = Request {
            principal: &user("alice"),
            action: Action::GetAuthorizationToken,
            resource: &Resource::registry(),
            context: &Context::at(NOON),
        };
        let attached = Attached {
            identity: &own,
            repository: Some(&other),
            registry: Some(&other),
            same_account,
            owner: false,
        };
        decide(&request, &attached).is_allowed()
    };
    let any = json!([allow(&json!({"Principal": "*", "Resource": "*"}))]);
    let one = json!([allow(&json!({"Resource": "arn:aws:ecr:*:*:repository/*"}))]);
    assert!(!login(&json!([]), &any, true));
    assert!(!login(&one, &any, true));
    assert!(login(&any, &json!([]), true));
    assert!(login(&any, &json!([]), false));
    assert!(!login(&any, &json!([deny(&json!({"Principal": "*"}))]), true));
}

#[test]
fn reasons_are_told() {
    let context = Context::at(NOON);
    let alice = user("alice");
    let resource = app();
    let request = |principal| Request {
        principal,
        action: Action::PutImage,
        resource: &resource,
        context: &context,
    };
    let why = |who: &Identity, own: &Value, repository: &Value| match decision(
        who,
        Action::PutImage,
        &context,
        own,
        repository,
    ) {
        Decision::Deny(why) => why,
        Decision::Allow => panic!("allowed"),
    };
    let everything = json!([allow(&json!({"Resource": "*"}))]);
    let denied = json!([deny(&json!({"Sid": "no push", "Principal": "*"}))]);

    let found = why(&alice, &everything, &denied);
    let by = Why::Denied {
        by: Place::Repository,
        sid: Some("no push".to_owned()),
    };
    assert_eq!(found, by);
    assert_eq!(
        found.to_string(),
        "statement no push of the repository's policy denies it"
    );

    let found = why(&alice, &json!([deny(&json!({}))]), &json!([]));
    let by = Why::Denied {
        by: Place::Identity,
        sid: None,
    };
    assert_eq!(found, by);
    assert_eq!(
        found.to_string(),
        "a statement of the identity's policy denies it"
    );

    let found = why(&alice, &json!([]), &json!([]));
    let lacking = Place::Identity;
    assert_eq!(found, Why::NotAllowed { lacking });
    assert_eq!(found.to_string(), "no policy of the identity allows it");

    let other = of("210987654321", "bob");
    let lacking = Place::Repository;
    assert_eq!(why(&other, &everything, &json!([])), Why::NotAllowed { lacking });
    // Whichever it was, they hear the same.
    assert_eq!(
        request(&alice).refusal(),
        "User: arn:aws:iam::123456789012:user/alice is not authorized to perform: ecr:PutImage on resource: \
         arn:aws:ecr:eu-north-1:123456789012:repository/team/app"
    );
    let told = request(&Identity::anonymous()).refusal();
    assert!(told.starts_with("User: anonymous is not authorized"), "{told}");
}

#[test]
fn policies_that_guides_show() {
    let from = |ip: &str| {
        let mut context = Context::at(NOON);
        context.source_ip = Some(ip.parse().unwrap());
        context
    };
    // An allow with a network and an exception from it, in the old version and with a resource.
    let network = Document::parse(
        &json!({
            "Version": "2008-10-17",
            "Id": "ECRPolicyId1",
            "Statement": [{
                "Sid": "IPAllow",
                "Effect": "Allow",
                "Principal": "*",
                "Action": "ecr:*",
                "Resource": "arn:aws:ecr:eu-north-1:123456789012:repository/team/app",
                "Condition": {
                    "NotIpAddress": {"aws:SourceIp": "54.240.143.188/32"},
                    "IpAddress": {"aws:SourceIp": "54.240.143.0/24"},
                },
            }],
        })
        .to_string(),
    )
    .unwrap();
    // The same as a deny, which needs another policy to allow.
    let denied = document(&json!([
        {"Sid": "IPDeny", "Effect": "Deny", "Principal": "*", "Action": "ecr:*",
            "Condition": {"NotIpAddress": {"aws:SourceIp": ["54.240.143.0/24"]}}},
        {"Effect": "Allow", "Principal": {"AWS": [ALICE]}, "Action": ["ecr:BatchGetImage", "ecr:PutImage"]},
    ]));
    // A service on behalf of a project of one's own, in the spelling of a guide.
    let service = document(&json!([{
        "Effect": "Allow", "Principal": "*", "Action": "ecr:GetDownloadUrlForLayer",
        "Condition": {"StringLike": {"aws:sourceArn": "arn:aws:codebuild:eu-north-1:123456789012:project/*"}},
    }]));
    let mut on_behalf = from("192.0.2.1");
    on_behalf.source_arn = Some("arn:aws:codebuild:eu-north-1:123456789012:project/p".to_owned());
    let cases = [
        (
            "within the network",
            &network,
            from("54.240.143.1"),
            Action::PutImage,
            true,
        ),
        (
            "its exception",
            &network,
            from("54.240.143.188"),
            Action::PutImage,
            false,
        ),
        ("without", &network, from("192.0.2.1"), Action::PutImage, false),
        (
            "from nowhere",
            &network,
            Context::at(NOON),
            Action::PutImage,
            false,
        ),
        (
            "not denied, and allowed",
            &denied,
            from("54.240.143.1"),
            Action::PutImage,
            true,
        ),
        (
            "not denied, and not allowed",
            &denied,
            from("54.240.143.1"),
            Action::DeleteRepository,
            false,
        ),
        ("denied", &denied, from("192.0.2.1"), Action::PutImage, false),
        (
            "denied from nowhere",
            &denied,
            Context::at(NOON),
            Action::PutImage,
            false,
        ),
        (
            "on behalf of",
            &service,
            on_behalf,
            Action::GetDownloadUrlForLayer,
            true,
        ),
        (
            "on behalf of nothing",
            &service,
            from("192.0.2.1"),
            Action::GetDownloadUrlForLayer,
            false,
        ),
    ];
    for (name, policy, context, action, expected) in cases {
        let request = Request {
            principal: &user("alice"),
            action,
            resource: &app(),
            context: &context,
        };
        let attached = Attached {
            identity: &[],
            repository: Some(policy),
            registry: None,
            same_account: true,
            owner: false,
        };
        assert_eq!(decide(&request, &attached).is_allowed(), expected, "{name}");
    }
}
