//! Documents: what is understood, what is refused, and where that is said to be.

use serde_json::{Value, json};

use super::{allow, document};
use crate::auth::action::Action;
use crate::auth::policy::{Document, Effect, MAX_TEXT, Usage};

fn faults(text: &str) -> String {
    Document::parse(text).map(|_| ()).unwrap_err().to_string()
}

fn of(statement: &Value) -> String {
    faults(&json!({"Version": "2012-10-17", "Statement": [statement]}).to_string())
}

#[test]
fn what_is_refused_and_why() {
    let full = || json!({"Effect": "Allow", "Principal": "*", "Action": "ecr:*", "Resource": "*"});
    let with = |key: &str, value: Value| {
        let mut statement = full();
        statement[key] = value;
        of(&statement)
    };
    let without = |key: &str| {
        let mut statement = full();
        statement.as_object_mut().unwrap().remove(key);
        of(&statement)
    };
    let condition = |condition: Value| with("Condition", condition);
    let cases = [
        ("no JSON", faults("{"), "EOF"),
        ("nothing", faults(""), "EOF"),
        ("no object", faults("[]"), "expected an object, not a list"),
        ("no statement", faults("{}"), "Statement is missing"),
        ("a text after it", faults("{\"Statement\":[]} x"), "trailing"),
        (
            "a key twice",
            faults("{\"Statement\":[],\"Statement\":[]}"),
            "a key is there twice",
        ),
        (
            "an operator twice",
            faults(
                "{\"Statement\":{\"Effect\":\"Allow\",\"Action\":\"*\",\"Condition\":{\"Bool\":{\"a\":\"true\"},\
                 \"Bool\":{\"b\":\"true\"}}}}",
            ),
            "a key is there twice",
        ),
        (
            "a version of tomorrow",
            faults("{\"Version\":\"2030-01-01\",\"Statement\":[]}"),
            "Version: expected",
        ),
        (
            "a version that is a number",
            faults("{\"Version\":1,\"Statement\":[]}"),
            "Version: expected",
        ),
        (
            "an id that is a number",
            faults("{\"Id\":1,\"Statement\":[]}"),
            "Id: expected a string",
        ),
        (
            "an element unknown",
            faults("{\"Statements\":[],\"Statement\":[]}"),
            "`Statements` is no element",
        ),
        (
            "a statement that is none",
            of(&json!("x")),
            "Statement[0]: expected an object, not a string",
        ),
        ("no effect", without("Effect"), "Statement[0]: Effect is missing"),
        (
            "another effect",
            with("Effect", json!("allow")),
            "Statement[0].Effect: expected \"Allow\" or \"Deny\"",
        ),
        ("no action", without("Action"), "Statement[0]: Action is missing"),
        (
            "an action and its contrary",
            with("NotAction", json!("*")),
            "Action and NotAction exclude each other",
        ),
        (
            "principals and not",
            with("NotPrincipal", json!("*")),
            "Principal and NotPrincipal exclude",
        ),
        (
            "resources and not",
            with("NotResource", json!("*")),
            "Resource and NotResource exclude",
        ),
        (
            "an empty list of actions",
            with("Action", json!([])),
            "Statement[0].Action: names nothing",
        ),
        (
            "an action without service",
            with("Action", json!("PutImage")),
            "`PutImage` is no action",
        ),
        (
            "an action that is a number",
            with("Action", json!(["ecr:*", 1])),
            "expected a string, not a number",
        ),
        (
            "a misspelt condition",
            with("Conditions", json!({})),
            "`Conditions` is no element",
        ),
        (
            "a sid that is a number",
            with("Sid", json!(1)),
            "Statement[0].Sid: expected a string",
        ),
        (
            "a resource by its name",
            with("Resource", json!("team/app")),
            "`team/app` is no resource",
        ),
        (
            "a variable cut off",
            with("Resource", json!("arn:${aws:username")),
            "malformed variable",
        ),
        (
            "a principal by its name",
            with("Principal", json!("alice")),
            "Statement[0].Principal: expected \"*\"",
        ),
        (
            "a principal of no kind",
            with("Principal", json!({"User": "a"})),
            "`User` is no kind of principal",
        ),
        (
            "a user by its name",
            with("Principal", json!({"AWS": "alice"})),
            "`alice` is no principal",
        ),
        (
            "a star among the users",
            with("Principal", json!({"AWS": "arn:aws:iam::123456789012:user/*"})),
            "wildcards mean nothing in a principal",
        ),
        (
            "the root of no account",
            with("Principal", json!({"AWS": "arn:aws:iam::1:root"})),
            "twelve digits",
        ),
        (
            "a principal of another service",
            with("Principal", json!({"AWS": "arn:aws:s3:::b"})),
            "is no principal",
        ),
        (
            "a principal that is a number",
            with("Principal", json!({"AWS": [1]})),
            "a principal is a string",
        ),
        (
            "conditions that are a list",
            condition(json!([])),
            "Condition: expected an object, not a list",
        ),
        (
            "an operator unknown",
            condition(json!({"StringIs": {"a": "b"}})),
            "`StringIs` is no condition operator",
        ),
        (
            "a set of nothing",
            condition(json!({"ForAllValues:": {"a": "b"}})),
            "is no condition operator",
        ),
        (
            "a set unknown",
            condition(json!({"ForSome:StringLike": {"a": "b"}})),
            "is no condition operator",
        ),
        (
            "an operator without keys",
            condition(json!({"Bool": "true"})),
            "Condition.Bool: expected an object",
        ),
        (
            "a value that is null",
            condition(json!({"Bool": {"a": null}})),
            "is a string, not null",
        ),
        (
            "a value that is a list in a list",
            condition(json!({"Bool": {"a": [[]]}})),
            "is a string, not a list",
        ),
        (
            "no boolean",
            condition(json!({"Bool": {"a": "yes"}})),
            "`yes` is no boolean",
        ),
        (
            "no number",
            condition(json!({"NumericEquals": {"a": "NaN"}})),
            "`NaN` is no number",
        ),
        (
            "no date",
            condition(json!({"DateLessThan": {"a": "tomorrow"}})),
            "`tomorrow` is no date",
        ),
        (
            "a time without its zone",
            condition(json!({"DateLessThan": {"a": "2026-01-31T12:00:00"}})),
            "`2026-01-31T12:00:00` is no date",
        ),
        (
            "no address",
            condition(json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/33"}})),
            "`10.0.0.0/33` is no",
        ),
        (
            "no base64",
            condition(json!({"BinaryEquals": {"a": "*"}})),
            "`*` is no base64",
        ),
        (
            "a variable that is an address",
            condition(json!({"IpAddress": {"aws:SourceIp": "${aws:SourceIp}"}})),
            "is no address",
        ),
        (
            "null, if it exists",
            condition(json!({"NullIfExists": {"a": "true"}})),
            "takes neither",
        ),
        (
            "an empty key",
            condition(json!({"Bool": {"": "true"}})),
            "a condition key is empty",
        ),
        (
            "too long",
            faults(&" ".repeat(MAX_TEXT + 1)),
            "longer than 10240 bytes",
        ),
        ("too deep", faults(&"[".repeat(5_000)), "recursion limit"),
    ];
    for (name, found, expected) in cases {
        assert!(found.contains(expected), "{name}: {found}");
    }
}

#[test]
fn all_faults_are_told_at_once() {
    let found = faults("{\"Statement\":[{},{\"Effect\":\"Maybe\",\"Action\":\"x\"}]}");
    for part in [
        "Statement[0]: Effect is missing",
        "Statement[0]: Action is missing",
        "Statement[1].Effect: expected",
        "Statement[1].Action: `x`",
    ] {
        assert!(found.contains(part), "{found}");
    }
}

#[test]
fn what_is_understood() {
    let cases = [
        (
            "one statement without a list",
            json!({"Statement": allow(&json!({}))}),
        ),
        ("no statement at all", json!({"Statement": []})),
        (
            "the old version",
            json!({"Version": "2008-10-17", "Id": "x", "Statement": []}),
        ),
        (
            "an empty condition",
            json!({"Statement": [allow(&json!({"Condition": {}}))]}),
        ),
        (
            "principals of all kinds",
            json!({"Statement": [allow(&json!({"Principal": {
                "AWS": ["*", "123456789012", "arn:aws:iam::123456789012:root", "arn:aws-cn:iam::123456789012:role/r",
                    "arn:aws:sts::123456789012:assumed-role/r/s"],
                "Service": ["codebuild.amazonaws.com"],
                "Federated": "token.actions.example.com",
                "CanonicalUser": "79a5",
            }}))]}),
        ),
        (
            "operators in any case, numbers and booleans as such",
            json!({"Statement": [allow(&json!({"Condition": {
                "stringlikeifexists": {"aws:UserAgent": "docker*"},
                "FORANYVALUE:StringEquals": {"aws:TagKeys": ["a"]},
                "Bool": {"aws:SecureTransport": true},
                "NumericLessThan": {"wharfinger:level": 3.5},
                "DateGreaterThan": {"aws:CurrentTime": ["2026-01-31", "2026-01-31T12:00:00Z", 1_769_860_800]},
                "ForAllValues:ArnLikeIfExists": {"aws:SourceArn": "arn:aws:s3:::*"},
            }}))]}),
        ),
    ];
    for (name, json) in cases {
        let text = json.to_string();
        let parsed = Document::parse(&text);
        assert!(parsed.is_ok(), "{name}: {}", parsed.unwrap_err());
    }
}

#[test]
fn as_long_as_may_be() {
    let text = "{\"Statement\":[]}";
    let padded = format!("{text}{}", " ".repeat(MAX_TEXT - text.len()));
    assert!(Document::parse(&padded).is_ok());
    assert!(Document::parse(&(padded + " ")).is_err());
}

#[test]
fn actions_are_met_by_name() {
    let cases: &[(&str, Value, Action, bool)] = &[
        (
            "the name",
            json!({"Action": "ecr:PutImage"}),
            Action::PutImage,
            true,
        ),
        (
            "in any case",
            json!({"Action": "ECR:putimage"}),
            Action::PutImage,
            true,
        ),
        (
            "another name",
            json!({"Action": "ecr:PutImage"}),
            Action::BatchGetImage,
            false,
        ),
        (
            "a list",
            json!({"Action": ["ecr:PutImage", "ecr:BatchGetImage"]}),
            Action::BatchGetImage,
            true,
        ),
        ("the service", json!({"Action": "ecr:*"}), Action::PutImage, true),
        (
            "but not its neighbour",
            json!({"Action": "ecr:*"}),
            Action::PublicPutImage,
            false,
        ),
        (
            "nor our own",
            json!({"Action": "ecr:*"}),
            Action::AdminRead,
            false,
        ),
        (
            "which a star alone means",
            json!({"Action": "*"}),
            Action::AdminRead,
            true,
        ),
        (
            "the beginning of a name",
            json!({"Action": "ecr:Get*"}),
            Action::GetDownloadUrlForLayer,
            true,
        ),
        (
            "one character",
            json!({"Action": "ecr:PutImag?"}),
            Action::PutImage,
            true,
        ),
        (
            "another service",
            json!({"Action": "s3:*"}),
            Action::PutImage,
            false,
        ),
        (
            "all but",
            json!({"NotAction": "ecr:Get*"}),
            Action::PutImage,
            true,
        ),
        (
            "those",
            json!({"NotAction": "ecr:Get*"}),
            Action::GetDownloadUrlForLayer,
            false,
        ),
        (
            "all but what is elsewhere",
            json!({"NotAction": "s3:*"}),
            Action::PutImage,
            true,
        ),
    ];
    for (name, more, action, expected) in cases {
        let document = document(&json!([allow(more)]));
        assert_eq!(
            document.statements()[0].actions.contains(*action),
            *expected,
            "{name}"
        );
    }
}

#[test]
fn misspelt_actions_are_told() {
    let document = document(&json!([
        allow(&json!({"Action": ["ecr:PutImage", "ECR:PutImages", "s3:*", "*"]})),
        allow(&json!({"NotAction": ["ecr-public:Pull*", "other:PutImage"]})),
    ]));
    assert_eq!(document.unknown_actions(), ["ECR:PutImages", "ecr-public:Pull*"]);
}

#[test]
fn statements_tell_what_they_are() {
    let document = document(&json!([
        {"Sid": "new pull", "Effect": "Allow", "Action": "ecr:*"},
        {"Effect": "Deny", "Action": "ecr:*"},
    ]));
    let told: Vec<_> = document
        .statements()
        .iter()
        .map(|statement| (statement.sid.as_deref(), statement.effect))
        .collect();
    assert_eq!(told, [(Some("new pull"), Effect::Allow), (None, Effect::Deny)]);
}

#[test]
fn what_a_document_is_attached_to_decides_what_it_must_say() {
    let cases = [
        (json!({"Resource": "*"}), true, false),
        (json!({}), false, false),
        (json!({"Principal": "*"}), false, true),
        (json!({"Principal": "*", "Resource": "*"}), false, true),
        (json!({"NotPrincipal": {"AWS": HOME_ROOT}}), false, true),
    ];
    for (more, for_identity, for_repository) in cases {
        let text = json!({"Version": "2012-10-17", "Statement": [allow(&more)]}).to_string();
        assert_eq!(
            Document::parse_for(&text, Usage::Identity).is_ok(),
            for_identity,
            "{text}"
        );
        for usage in [Usage::Repository, Usage::Registry] {
            assert_eq!(
                Document::parse_for(&text, usage).is_ok(),
                for_repository,
                "{text}"
            );
        }
    }
}

const HOME_ROOT: &str = "arn:aws:iam::123456789012:root";
