//! What the protocol tests look for in an answer: the specification's error form, the headers that clients insist
//! on, the cache's own word. Used by the test files beside it.

use futures_util::future::join_all;

use crate::support::prelude::*;

/// The type of an index, as referrers lists must say it to the letter.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The codes that a client may meet: the specification's, and what distribution says of tags and for 5xx.
const CODES: [&str; 17] = [
    "BLOB_UNKNOWN",
    "BLOB_UPLOAD_INVALID",
    "BLOB_UPLOAD_UNKNOWN",
    "DENIED",
    "DIGEST_INVALID",
    "MANIFEST_BLOB_UNKNOWN",
    "MANIFEST_INVALID",
    "MANIFEST_UNKNOWN",
    "NAME_INVALID",
    "NAME_UNKNOWN",
    "SIZE_INVALID",
    "TAG_INVALID",
    "TOOMANYREQUESTS",
    "UNAUTHORIZED",
    "UNAVAILABLE",
    "UNKNOWN",
    "UNSUPPORTED",
];

/// The code of an error answer, after a look at its form: JSON of the specification, and no challenge, which would
/// make clients hand over credentials that are meant for somebody else.
pub fn code(answer: &Answer) -> String {
    let told = format!("{} {}", answer.status, answer.text());
    assert!(
        answer.status >= 400 && answer.is_complete(),
        "not an error: {told}"
    );
    let media_type = answer.header("content-type");
    assert!(
        media_type.starts_with("application/json"),
        "{media_type:?} of {told}"
    );
    assert_eq!(answer.header("www-authenticate"), "", "{told}");
    let body = answer.json();
    let first = &body["errors"][0];
    let code = first["code"].as_str().unwrap_or_default().to_owned();
    assert!(CODES.contains(&code.as_str()), "{told}");
    assert!(
        first["message"].as_str().is_some_and(|text| !text.is_empty()),
        "{told}"
    );
    code
}

/// An error of this status and code.
pub fn assert_error(answer: &Answer, status: u16, expected: &str) {
    let code = code(answer);
    assert_eq!(
        (answer.status, code.as_str()),
        (status, expected),
        "{}",
        answer.text()
    );
}

/// What the cache did, as `Cache-Status` says it.
pub fn cached(answer: &Answer) -> &str {
    answer.header("cache-status")
}

/// The cache answered from what it has, without a question to the upstream.
pub fn assert_hit(answer: &Answer) {
    assert_eq!(
        (answer.status, cached(answer)),
        (200, "wharfinger; hit"),
        "{}",
        answer.text()
    );
}

/// The answer is the old copy, because of this status of the upstream (none: it could not be asked).
pub fn assert_stale(answer: &Answer, status: Option<u16>) {
    let expected = status.map_or("wharfinger; fwd=stale".to_owned(), |status| {
        format!("wharfinger; fwd=stale; fwd-status={status}")
    });
    assert_eq!(
        (answer.status, cached(answer)),
        (200, expected.as_str()),
        "{}",
        answer.text()
    );
}

/// The root manifest of `content`, with all the headers without which clients do not go on; the body too, unless
/// it is the answer to a HEAD.
pub fn assert_manifest(answer: &Answer, content: &impl Content, is_head: bool) {
    let part = content.root();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), part.media_type);
    assert_eq!(answer.header("content-length"), part.bytes.len().to_string());
    assert_eq!(answer.header("docker-content-digest"), part.digest);
    assert_eq!(answer.header("content-encoding"), "");
    assert!(answer.is_complete(), "{:?}", answer.error);
    let body = if is_head { "".into() } else { part.bytes };
    assert_eq!(answer.body, body);
}

/// GETs all of them at once.
pub async fn get_all(urls: impl IntoIterator<Item = String>) -> Vec<Answer> {
    join_all(urls.into_iter().map(get)).await
}
