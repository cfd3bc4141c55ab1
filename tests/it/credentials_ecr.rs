//! Amazon ECR, private: logins by GetAuthorizationToken, with AWS credentials from everywhere that they come from.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use wharfinger::clock::Timestamp;

use crate::admin::run;
use crate::expect::{assert_error, assert_manifest, get_all};
use crate::support::daemon::Builder;
use crate::support::prelude::*;
use crate::support::service::{Call, Service};
use crate::upstream_auth::with_image;

const NAME: &str = "docker-hub/acme/app";
const KEY: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// ECR's API: the n-th login has the password `pw<n>`.
async fn api() -> Service {
    let count = AtomicUsize::new(0);
    Service::start(move |call| {
        if call.header("x-amz-target") != "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken"
            || call.header("content-type") != "application/x-amz-json-1.1"
            || call.header("authorization") != expected_signature(call)
        {
            let excuse =
                json!({"__type": "InvalidSignatureException", "message": "The request signature is wrong"});
            return (400, excuse.to_string());
        }
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        let token = STANDARD.encode(format!("AWS:pw{number}"));
        let end = Timestamp::now().0 as f64 / 1000.0 + 43_200.0;
        let data = json!([{"authorizationToken": token, "expiresAt": end, "proxyEndpoint": "https://x"}]);
        (200, json!({ "authorizationData": data }).to_string())
    })
    .await
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let pad = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new()
        .chain_update(pad(0x36))
        .chain_update(text)
        .finalize();
    Sha256::new()
        .chain_update(pad(0x5c))
        .chain_update(inner)
        .finalize()
        .to_vec()
}

/// What the header must say (AWS, "Create a signed AWS API request"), with [`SECRET`].
fn expected_signature(call: &Call) -> String {
    let given = call.header("authorization");
    let field = |name: &str| {
        let (_, rest) = given.split_once(name)?;
        rest.split([',', ' ']).next().map(str::to_owned)
    };
    let (Some(scope), Some(names)) = (field("Credential="), field("SignedHeaders=")) else {
        return "a signature".to_owned();
    };
    let names_it_needs = ["host", "x-amz-date", "x-amz-target"];
    assert!(
        names_it_needs
            .iter()
            .all(|needed| names.split(';').any(|name| name == *needed)),
        "{names}"
    );
    let (key, scope) = scope.split_once('/').expect("a key and a scope");
    assert_eq!(key, KEY);
    let parts: Vec<&str> = scope.split('/').collect();
    assert_eq!(parts[1..], ["eu-west-1", "ecr", "aws4_request"]);
    let headers: Vec<String> = names
        .split(';')
        .map(|name| format!("{name}:{}\n", call.header(name)))
        .collect();
    let headers = headers.concat();
    let body = hex::encode(Sha256::digest(&call.body));
    let canonical = format!("{}\n{}\n\n{headers}\n{names}\n{body}", call.method, call.path);
    let text = format!(
        "AWS4-HMAC-SHA256\n{}\n{scope}\n{}",
        call.header("x-amz-date"),
        hex::encode(Sha256::digest(canonical))
    );
    let start = format!("AWS4{SECRET}").into_bytes();
    let key = parts.iter().fold(start, |key, part| hmac(&key, part));
    let signature = hex::encode(hmac(&key, &text));
    format!("AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders={names}, Signature={signature}")
}

/// A daemon in front of a private registry whose API this is.
fn over(upstream: &Upstream, api: &Service) -> Builder {
    let credential = format!(
        "[{{ ecr = true, region = \"eu-west-1\", endpoint = {:?} }}]",
        api.url()
    );
    Daemon::over(upstream)
        .setting("upstream.docker-hub.credential", &credential)
        .setting("upstream.docker-hub.share_private", "true")
        .env("HOME", "/nonexistent")
}

fn by_environment(builder: Builder) -> Builder {
    builder
        .env("AWS_ACCESS_KEY_ID", KEY)
        .env("AWS_SECRET_ACCESS_KEY", SECRET)
        .env("AWS_EC2_METADATA_DISABLED", "true")
}

/// The JSON in which metadata services give credentials.
fn credentials(token: &str) -> String {
    json!({
        "Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": KEY, "SecretAccessKey": SECRET, "Token": token,
        "LastUpdated": "2026-01-01T00:00:00Z", "Expiration": "2126-01-01T00:00:00Z",
    })
    .to_string()
}

async fn pull(daemon: &Daemon, image: &Image) {
    assert_manifest(&get(daemon.manifest_url(NAME, "1")).await, image, false);
}

#[tokio::test]
async fn one_login_for_all_and_a_new_one_when_it_has_expired() {
    let (upstream, image) = with_image("acme/app").await;
    for number in 2..20_u64 {
        upstream.put("acme/app", &number.to_string(), &Image::simple(number, 10));
    }
    upstream.require_basic(Basic::new("AWS", "pw1"));
    let api = api().await;
    let mut daemon = by_environment(over(&upstream, &api))
        .setting("log.level", "\"trace\"")
        .start()
        .await;
    let urls = |range: std::ops::Range<u64>| -> Vec<String> {
        range
            .map(|number| daemon.manifest_url(NAME, &number.to_string()))
            .collect()
    };
    for answer in get_all(urls(1..10)).await {
        assert_eq!(answer.status, 200);
    }
    assert_eq!(api.calls().len(), 1);
    upstream.expire_basic("pw2");
    for answer in get_all(urls(10..20)).await {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(api.calls().len(), 2);
    let layer = get(daemon.blob_url(NAME, &image.layer_digest(0))).await;
    assert_eq!(layer.ok(), image.layers()[0].bytes);
    assert!(daemon.stop().await.success());
    let log = daemon.logs().join("\n");
    for secret in [SECRET, "QVdTOnB3MQ==", "QVdTOnB3Mg=="] {
        assert!(!log.contains(secret), "a secret is in the log");
    }
}

#[tokio::test]
async fn aws_credentials_of_a_container() {
    let (upstream, image) = with_image("acme/app").await;
    upstream.require_basic(Basic::new("AWS", "pw1"));
    let api = api().await;
    let agent = Service::start(|call| {
        if call.path == "/v1/credentials" && call.header("authorization") == "pod-token" {
            (200, credentials("session"))
        } else {
            (403, String::new())
        }
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    fs::write(&file, "pod-token").expect("a file");
    let builder = over(&upstream, &api)
        .env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            &format!("{}/v1/credentials", agent.url()),
        )
        .env(
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            file.to_str().expect("a plain path"),
        )
        .env("AWS_EC2_METADATA_DISABLED", "true");
    pull(&builder.start().await, &image).await;
    assert_eq!(api.calls()[0].header("x-amz-security-token"), "session");
}

#[tokio::test]
async fn aws_credentials_of_a_machine() {
    let (upstream, image) = with_image("acme/app").await;
    upstream.require_basic(Basic::new("AWS", "pw1"));
    let api = api().await;
    let life = ("x-aws-ec2-metadata-token-ttl-seconds", "21600");
    let metadata = Service::with_header(life, |call| {
        if call.method == "PUT" && call.path == "/latest/api/token" {
            return (200, "imds-token".to_owned());
        }
        if call.header("x-aws-ec2-metadata-token") != "imds-token" {
            return (401, String::new());
        }
        match call
            .path
            .trim_end_matches('/')
            .rsplit_once("/iam/security-credentials")
        {
            Some((_, "")) => (200, "role".to_owned()),
            Some((_, "/role")) => (200, credentials("machine")),
            _ => (404, String::new()),
        }
    })
    .await;
    let builder = over(&upstream, &api).env("AWS_EC2_METADATA_SERVICE_ENDPOINT", &metadata.url());
    pull(&builder.start().await, &image).await;
    assert_eq!(api.calls()[0].header("x-amz-security-token"), "machine");
    assert_eq!(
        metadata.calls()[0].method,
        "PUT",
        "version 2 asks for a token first"
    );
}

#[tokio::test]
async fn offline_neither_the_machine_nor_the_api_is_asked_on() {
    let (upstream, image) = with_image("acme/app").await;
    upstream.require_basic(Basic::new("AWS", "pw1"));
    let api = api().await;
    let agent = Upstream::start().await;
    let gate = Gate::new();
    let found = reply(200).header("content-type", "application/json");
    let found = found.body(credentials("session"));
    agent.always(path_has("/v1/credentials"), found.hold_head(&gate));
    let builder = over(&upstream, &api)
        .env(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
            &format!("{}/v1/credentials", agent.url()),
        )
        .env("AWS_EC2_METADATA_DISABLED", "true");
    let daemon = builder.start().await;
    let client = tokio::spawn(get(daemon.manifest_url(NAME, "1")));
    gate.reached().await;
    run(&daemon, &["offline", "on"]).await.text();
    let answer = soon("the answer", client).await.expect("no panic");
    assert_error(&answer, 503, "UNAVAILABLE");
    assert!(answer.text().contains("offline"), "{}", answer.text());
    gate.release();
    assert_eq!(api.calls().len(), 0);
    // Online again it is asked anew, and not set aside for having been silent.
    let before = agent.count_of(&any());
    run(&daemon, &["offline", "off"]).await.text();
    pull(&daemon, &image).await;
    assert_eq!((agent.count_of(&any()), api.calls().len()), (before + 1, 1));
    assert!(!daemon.logs().join("\n").contains("set aside"));
}

#[tokio::test]
async fn aws_credentials_of_a_file_and_of_a_web_identity() {
    let (upstream, image) = with_image("acme/app").await;
    let api = api().await;
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("a plain path").to_owned()
    };
    let shared = format!(
        "[default]\naws_access_key_id = wrong\naws_secret_access_key = wrong\n\
         [pulls]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    );
    let shared = place("credentials", &shared);
    upstream.require_basic(Basic::new("AWS", "pw1"));
    let of_profile = format!(
        "[{{ ecr = true, region = \"eu-west-1\", profile = \"pulls\", endpoint = {:?} }}]",
        api.url()
    );
    let builder = over(&upstream, &api)
        .setting("upstream.docker-hub.credential", &of_profile)
        .env("AWS_SHARED_CREDENTIALS_FILE", &shared)
        .env("AWS_CONFIG_FILE", "/nonexistent")
        .env("AWS_EC2_METADATA_DISABLED", "true");
    pull(&builder.start().await, &image).await;

    // Kubernetes gives a token for the pod's service account, which STS takes for credentials.
    upstream.require_basic(Basic::new("AWS", "pw2"));
    let sts = Service::start(|call| {
        let good =
            call.body.contains("Action=AssumeRoleWithWebIdentity") && call.body.contains("service-account");
        let answer = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{KEY}</AccessKeyId>\
             <SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>assumed</SessionToken>\
             <Expiration>2126-01-01T00:00:00Z</Expiration></Credentials>\
             </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
        );
        if good { (200, answer) } else { (400, String::new()) }
    })
    .await;
    let builder = over(&upstream, &api)
        .env(
            "AWS_WEB_IDENTITY_TOKEN_FILE",
            &place("identity", "service-account"),
        )
        .env("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pulls")
        .env("AWS_ENDPOINT_URL_STS", &sts.url())
        .env("AWS_EC2_METADATA_DISABLED", "true");
    pull(&builder.start().await, &image).await;
    assert_eq!(api.calls()[1].header("x-amz-security-token"), "assumed");
}

#[tokio::test]
async fn without_aws_credentials_the_reason_is_told_and_so_is_a_refusal_by_the_api() {
    let (upstream, _) = with_image("acme/app").await;
    upstream.require_basic(Basic::new("AWS", "pw1"));
    let refusing = Arc::new(
        Service::start(|_| {
            let excuse =
                json!({"__type": "com.amazon#AccessDeniedException", "message": "not authorized to perform"});
            (400, excuse.to_string())
        })
        .await,
    );
    let none = over(&upstream, &refusing)
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .start()
        .await;
    assert_error(&get(none.manifest_url(NAME, "1")).await, 502, "UNAVAILABLE");
    let line = none.wait_for_log("a credential is set aside").await;
    assert!(line.contains("no AWS credentials"), "{line}");
    assert_eq!(refusing.calls().len(), 0);

    let refused = by_environment(over(&upstream, &refusing)).start().await;
    assert_error(&get(refused.manifest_url(NAME, "1")).await, 502, "UNAVAILABLE");
    let line = refused.wait_for_log("a credential is set aside").await;
    assert!(
        line.contains("AccessDeniedException") && line.contains("not authorized"),
        "{line}"
    );
}
