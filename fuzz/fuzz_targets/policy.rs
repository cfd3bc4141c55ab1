//! IAM policies: what is understood decides every request, says the same when it is read again, and gives nothing once
//! all is denied.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharfinger::auth::action::Action;
use wharfinger::auth::identity::{Account, Identity, Kind};
use wharfinger::auth::policy::{Attached, Context, Decision, Document, Request, Usage, decide};
use wharfinger::auth::resource::Resource;
use wharfinger::clock::Timestamp;

fuzz_target!(|text: &str| {
    for usage in [Usage::Identity, Usage::Repository, Usage::Registry] {
        if let Err(faults) = Document::parse_for(text, usage) {
            assert!(!faults.0.is_empty() && !faults.to_string().is_empty());
        }
    }
    let Ok(document) = Document::parse(text) else {
        return;
    };
    let again = Document::parse(text).expect("what was read once");
    let deny = "{\"Statement\":{\"Effect\":\"Deny\",\"Principal\":\"*\",\"Action\":\"*\"}}";
    let deny = Document::parse(deny).expect("our own");
    let account = Account::default();
    let resource = Resource::named("eu-north-1", &account, "team/app");
    let mut context = Context::at(Timestamp(1_769_860_800_000));
    context.source_ip = Some([192, 0, 2, 1].into());
    context.request_tags.insert("a".to_owned(), "*".to_owned());
    context
        .request_tags
        .insert("b".to_owned(), "${aws:username}".to_owned());
    let alice = Identity::named(Kind::User, "alice", account.clone()).expect("a name");
    let workload = Identity::named(Kind::Workload, "ci", account).expect("a name");
    for principal in [
        &alice,
        &workload.issued_by("https://issuer.example.com"),
        &Identity::anonymous(),
    ] {
        for action in [Action::PutImage, Action::GetAuthorizationToken] {
            let request = Request {
                principal,
                action,
                resource: &resource,
                context: &context,
            };
            let decide = |identity: &[Document], repository| {
                let attached = Attached {
                    identity,
                    repository: Some(repository),
                    registry: None,
                    same_account: true,
                    owner: false,
                };
                decide(&request, &attached)
            };
            let decided = decide(&[document.clone()], &document);
            assert_eq!(decided, decide(&[again.clone()], &again));
            if let Decision::Deny(why) = decided {
                assert!(!why.to_string().is_empty() && request.refusal().starts_with("User: "));
            }
            assert!(!decide(&[document.clone()], &deny).is_allowed());
        }
    }
});
