//! Conditions: every operator, with the key there, absent, and several times; and the keys themselves.

use serde_json::{Value, json};

use super::{NOON, decision, deny, user};
use crate::auth::action::Action;
use crate::auth::identity::{Account, Identity, Kind};
use crate::auth::policy::{Context, Decision};

/// Whether a statement with this condition is about a request in this context.
fn holds_for(who: &Identity, context: &Context, condition: &Value) -> bool {
    let own = json!([deny(&json!({"Condition": condition}))]);
    matches!(
        decision(who, Action::PutImage, context, &own, &json!([])),
        Decision::Deny(crate::auth::policy::Why::Denied { .. })
    )
}

fn context(further: &[(&str, &[&str])]) -> Context {
    let mut context = Context::at(NOON);
    for (key, values) in further {
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        context.further.insert((*key).to_owned(), values);
    }
    context
}

#[test]
fn operators() {
    // The operator, its value, what the key says, and whether it holds; then whether it holds without the key.
    let arn = "arn:aws:s3:::bucket/key";
    let cases: &[(&str, Value, &str, bool, bool)] = &[
        ("StringEquals", json!("a"), "a", true, false),
        ("StringEquals", json!(["a", "b"]), "b", true, false),
        ("StringEquals", json!("a"), "A", false, false),
        ("StringEquals", json!("*"), "a", false, false),
        ("StringEquals", json!([]), "a", false, false),
        ("StringNotEquals", json!("a"), "b", true, true),
        ("StringNotEquals", json!(["a", "b"]), "b", false, true),
        ("StringEqualsIgnoreCase", json!("aB"), "Ab", true, false),
        ("StringNotEqualsIgnoreCase", json!("aB"), "Ab", false, true),
        ("StringLike", json!("a*"), "abc", true, false),
        ("StringLike", json!("a?"), "abc", false, false),
        ("StringNotLike", json!("a*"), "abc", false, true),
        ("StringNotLike", json!("b*"), "abc", true, true),
        ("StringLikeIfExists", json!("b*"), "abc", false, true),
        ("StringLikeIfExists", json!("a*"), "abc", true, true),
        ("StringNotLikeIfExists", json!("a*"), "abc", false, true),
        ("NumericEquals", json!(10), "10.0", true, false),
        ("NumericNotEquals", json!("10"), "10", false, true),
        ("NumericNotEquals", json!("10"), "eleven", true, true),
        ("NumericLessThan", json!("10"), "9.5", true, false),
        ("NumericLessThan", json!("10"), "10", false, false),
        ("NumericLessThan", json!("10"), "nine", false, false),
        ("NumericLessThanEquals", json!("10"), "10", true, false),
        ("NumericGreaterThan", json!("-1"), "0", true, false),
        ("NumericGreaterThanEquals", json!("10"), "9", false, false),
        (
            "DateEquals",
            json!("2026-01-31T12:00:00Z"),
            "2026-01-31T13:00:00+01:00",
            true,
            false,
        ),
        (
            "DateEquals",
            json!(1_769_860_800),
            "2026-01-31T12:00:00Z",
            true,
            false,
        ),
        (
            "DateNotEquals",
            json!("2026-01-31"),
            "2026-01-31T00:00:00Z",
            false,
            true,
        ),
        (
            "DateLessThan",
            json!("2026-02-01T00:00:00Z"),
            "2026-01-31T23:59:59Z",
            true,
            false,
        ),
        (
            "DateLessThanEquals",
            json!("2026-02-01"),
            "2026-02-01T00:00:01Z",
            false,
            false,
        ),
        (
            "DateGreaterThan",
            json!("2026-02-01"),
            "2026-02-01T00:00:01Z",
            true,
            false,
        ),
        (
            "DateGreaterThanEquals",
            json!("2026-02-01"),
            "2026-02-01",
            true,
            false,
        ),
        ("Bool", json!("true"), "TRUE", true, false),
        ("Bool", json!(false), "true", false, false),
        ("Bool", json!("false"), "no", false, false),
        ("BoolIfExists", json!("true"), "false", false, true),
        ("BinaryEquals", json!("YQ=="), "YQ==", true, false),
        ("BinaryEquals", json!("YQ=="), "YWI=", false, false),
        ("IpAddress", json!("10.0.0.0/8"), "10.255.0.1", true, false),
        ("IpAddress", json!("10.0.0.0/8"), "11.0.0.1", false, false),
        (
            "IpAddress",
            json!(["192.0.2.1", "10.0.0.0/8"]),
            "192.0.2.1",
            true,
            false,
        ),
        ("IpAddress", json!("192.0.2.1"), "192.0.2.2", false, false),
        ("IpAddress", json!("10.1.2.3/8"), "10.9.9.9", true, false),
        ("IpAddress", json!("0.0.0.0/0"), "2001:db8::1", false, false),
        ("IpAddress", json!("2001:db8::/32"), "2001:db8:1::1", true, false),
        ("IpAddress", json!("2001:DB8::1"), "2001:db8:0::1", true, false),
        ("IpAddress", json!("::/0"), "not an address", false, false),
        ("NotIpAddress", json!("10.0.0.0/8"), "10.0.0.1", false, true),
        ("NotIpAddress", json!("10.0.0.0/8"), "11.0.0.1", true, true),
        (
            "NotIpAddressIfExists",
            json!("10.0.0.0/8"),
            "10.0.0.1",
            false,
            true,
        ),
        ("ArnEquals", json!("arn:aws:s3:::bucket/*"), arn, true, false),
        ("ArnLike", json!("arn:*:s3:*:*:bucket/k?y"), arn, true, false),
        ("ArnLike", json!("arn:aws:s3:*:bucket/key"), arn, false, false),
        ("ArnLike", json!("*"), arn, true, false),
        (
            "ArnLike",
            json!("arn:aws:s3:::bucket/key"),
            "arn:aws:s3",
            false,
            false,
        ),
        ("ArnLike", json!("arn:aws:s3:::other"), arn, false, false),
        ("ArnNotLike", json!("arn:aws:s3:::bucket/*"), arn, false, true),
        ("ArnNotEquals", json!("arn:aws:s3:::other"), arn, true, true),
        ("ArnLikeIfExists", json!("arn:aws:s3:::other"), arn, false, true),
        ("Null", json!("true"), "a", false, true),
        ("Null", json!(false), "a", true, false),
    ];
    let who = user("alice");
    for (operator, value, found, expected, if_absent) in cases {
        let condition = json!({*operator: {"Test:Key": value}});
        let with = context(&[("test:key", &[found])]);
        assert_eq!(
            holds_for(&who, &with, &condition),
            *expected,
            "{condition} {found}"
        );
        assert_eq!(
            holds_for(&who, &context(&[]), &condition),
            *if_absent,
            "{condition} absent"
        );
    }
}

#[test]
fn several_values() {
    let cases: &[(&str, &[&str], &[&str], bool)] = &[
        ("ForAllValues:StringEquals", &["a", "b"], &["a"], true),
        ("ForAllValues:StringEquals", &["a", "b"], &["a", "b"], true),
        ("ForAllValues:StringEquals", &["a", "b"], &["a", "c"], false),
        ("ForAllValues:StringEquals", &["a"], &[], true),
        ("ForAllValues:StringEquals", &[], &["a"], false),
        ("ForAllValues:StringNotEquals", &["a", "b"], &["c", "d"], true),
        ("ForAllValues:StringNotEquals", &["a", "b"], &["a", "d"], false),
        ("ForAllValues:StringLike", &["a*"], &["a1", "a2"], true),
        ("ForAnyValue:StringEquals", &["a", "b"], &["c", "a"], true),
        ("ForAnyValue:StringEquals", &["a", "b"], &["c"], false),
        ("ForAnyValue:StringEquals", &["a"], &[], false),
        ("ForAnyValue:StringEqualsIfExists", &["a"], &[], false),
        ("ForAnyValue:StringNotEquals", &["a"], &["a", "b"], true),
        ("ForAnyValue:StringNotEquals", &["a"], &["a"], false),
        ("ForAnyValue:StringNotEquals", &["a"], &[], false),
        ("foranyvalue:numericlessthan", &["3"], &["5", "2"], true),
        // Without a set: any is, or none.
        ("StringEquals", &["a"], &["b", "a"], true),
        ("StringNotEquals", &["a"], &["b", "a"], false),
    ];
    let who = user("alice");
    for (operator, wanted, found, expected) in cases {
        let condition = json!({*operator: {"test:keys": wanted}});
        let with = context(&[("test:keys", found)]);
        assert_eq!(
            holds_for(&who, &with, &condition),
            *expected,
            "{condition} {found:?}"
        );
    }
}

#[test]
fn no_values_are_no_key() {
    let who = user("alice");
    for key in ["test:keys", "aws:TagKeys", "aws:SourceIp", "test:none"] {
        let condition = json!({"Null": {key: "true"}});
        assert!(
            holds_for(&who, &context(&[("test:keys", &[])]), &condition),
            "{key}"
        );
    }
}

#[test]
fn clients_cannot_call_themselves_at_any_length() {
    let mut context = Context::at(NOON);
    context.user_agent = Some("ü".repeat(512) + "x");
    let ends = |with: &str| json!({"StringLike": {"aws:UserAgent": format!("*{with}")}});
    assert!(holds_for(&user("alice"), &context, &ends("ü")));
    assert!(!holds_for(&user("alice"), &context, &ends("x")));
}

#[test]
fn all_operators_and_keys_must_hold() {
    let with = context(&[("test:a", &["1"]), ("test:b", &["2"])]);
    let cases = [
        (json!({"StringEquals": {"test:a": "1", "test:b": "2"}}), true),
        (json!({"StringEquals": {"test:a": "1", "test:b": "1"}}), false),
        (
            json!({"StringEquals": {"test:a": "1"}, "StringLike": {"test:b": "?"}}),
            true,
        ),
        (
            json!({"StringEquals": {"test:a": "1"}, "NumericGreaterThan": {"test:b": "2"}}),
            false,
        ),
        // The same operator, and the same key, in two spellings.
        (
            json!({"StringLike": {"test:a": "1"}, "stringlike": {"test:a": "2"}}),
            false,
        ),
        (json!({"StringLike": {"test:a": "1", "TEST:A": "*"}}), true),
        (json!({}), true),
    ];
    for (condition, expected) in cases {
        assert_eq!(
            holds_for(&user("alice"), &with, &condition),
            expected,
            "{condition}"
        );
    }
}

#[test]
fn what_is_known_under_which_key() {
    let mut context = Context::at(NOON);
    context.source_ip = Some("::ffff:192.0.2.7".parse().unwrap());
    context.secure_transport = true;
    context.source_arn = Some("arn:aws:s3:::bucket".to_owned());
    context.source_account = Some("210987654321".to_owned());
    context.user_agent = Some("docker/29".to_owned());
    context.request_tags.insert("Team".to_owned(), "a".to_owned());
    context.request_tags.insert("cost".to_owned(), "b".to_owned());
    context.resource_tags.insert("Env".to_owned(), "prod".to_owned());
    context
        .principal_tags
        .insert("Team".to_owned(), "core".to_owned());
    context
        .further
        .insert("aws:username".to_owned(), vec!["mallory".to_owned()]);
    let who = user("alice");
    let workload = Identity::named(Kind::Workload, "ci", Account::default())
        .unwrap()
        .issued_by("https://issuer.example.com");
    let nobody = Identity::anonymous();
    let operator = Identity::operator(Account::default());
    let cases = [
        (
            &who,
            json!({"DateEquals": {"aws:CurrentTime": "2026-01-31T12:00:00Z"}}),
            true,
        ),
        (
            &who,
            json!({"NumericEquals": {"aws:EpochTime": 1_769_860_800}}),
            true,
        ),
        (
            &who,
            json!({"DateEquals": {"aws:EpochTime": "2026-01-31T12:00:00Z"}}),
            true,
        ),
        (&who, json!({"IpAddress": {"aws:sourceIp": "192.0.2.0/24"}}), true),
        (&who, json!({"Bool": {"aws:SecureTransport": "true"}}), true),
        (
            &who,
            json!({"ArnLike": {"aws:SourceArn": "arn:aws:s3:::*"}}),
            true,
        ),
        (
            &who,
            json!({"StringEquals": {"aws:SourceAccount": "210987654321"}}),
            true,
        ),
        (&who, json!({"StringLike": {"aws:UserAgent": "docker/*"}}), true),
        (&who, json!({"StringEquals": {"aws:RequestTag/team": "a"}}), true),
        (
            &who,
            json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["Team", "cost"]}}),
            true,
        ),
        (
            &who,
            json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["cost"]}}),
            false,
        ),
        (
            &who,
            json!({"StringEquals": {"aws:ResourceTag/Env": "prod", "ecr:ResourceTag/env": "prod"}}),
            true,
        ),
        (&who, json!({"Null": {"aws:ResourceTag/Owner": "true"}}), true),
        (
            &who,
            json!({"StringEquals": {"aws:PrincipalTag/Team": "core"}}),
            true,
        ),
        // What is said of a caller elsewhere is not believed against what is known.
        (&who, json!({"StringEquals": {"aws:username": "alice"}}), true),
        (
            &who,
            json!({"ArnEquals": {"aws:PrincipalArn": "arn:aws:iam::123456789012:user/alice"}}),
            true,
        ),
        (
            &who,
            json!({"StringEquals": {"aws:PrincipalAccount": "123456789012", "aws:PrincipalType": "User"}}),
            true,
        ),
        (
            &who,
            json!({"StringEquals": {"wharfinger:Kind": "user", "wharfinger:Name": "alice"}}),
            true,
        ),
        (&workload, json!({"Null": {"aws:username": "true"}}), true),
        (
            &workload,
            json!({"StringEquals": {"wharfinger:Issuer": "https://issuer.example.com"}}),
            true,
        ),
        (
            &nobody,
            json!({"Null": {"aws:username": "true", "aws:PrincipalArn": "true"}}),
            true,
        ),
        (
            &nobody,
            json!({"Null": {"aws:PrincipalAccount": "true", "wharfinger:Name": "true"}}),
            true,
        ),
        (
            &nobody,
            json!({"StringEquals": {"aws:PrincipalType": "Anonymous"}}),
            true,
        ),
        (
            &operator,
            json!({"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:root"}}),
            true,
        ),
        // A variable, one without a value, and one that has two.
        (
            &who,
            json!({"StringLike": {"aws:PrincipalArn": "*user/${aws:username}"}}),
            true,
        ),
        (
            &workload,
            json!({"StringLike": {"aws:PrincipalArn": "*${aws:username}*"}}),
            false,
        ),
        (
            &workload,
            json!({"StringNotLike": {"aws:PrincipalArn": "*${aws:username}*"}}),
            true,
        ),
        (
            &workload,
            json!({"StringLike": {"aws:PrincipalArn": "*${aws:username, 'ci'}"}}),
            true,
        ),
        (
            &who,
            json!({"ForAnyValue:StringEquals": {"aws:TagKeys": "${aws:TagKeys}"}}),
            false,
        ),
    ];
    for (who, condition, expected) in cases {
        assert_eq!(
            holds_for(who, &context, &condition),
            expected,
            "{who:?} {condition}"
        );
    }
}
