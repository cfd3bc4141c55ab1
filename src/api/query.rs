//! Percent-encoding and query strings: the few operations that routes and links need, without a copy where nothing is
//! encoded.

use std::borrow::Cow;

/// Decodes percent escapes; `None` when one is broken, or the result is no UTF-8. A `+` stays what it is: media types
/// contain it, and nothing that is asked for here contains a space.
pub(super) fn decode(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        if first == b'%' {
            let digits = tail.get(..2)?;
            let mut byte = [0];
            hex::decode_to_slice(digits, &mut byte).ok()?;
            bytes.extend_from_slice(&byte);
            rest = &tail[2..];
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// Encodes what is not unreserved (RFC 3986 section 2.3).
fn encode(text: &str, into: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.push(char::from(DIGITS[usize::from(byte >> 4)]));
            into.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
    }
}

/// The parameters of a query, still encoded; a parameter without `=` has an empty value.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    query
        .split('&')
        .filter(|piece| !piece.is_empty())
        .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
}

/// The first parameter called `name`, decoded. What cannot be decoded stands as it is, and will be found unknown.
pub(super) fn get<'a>(query: &'a str, name: &str) -> Option<Cow<'a, str>> {
    pairs(query)
        .find(|(key, _)| *key == name)
        .map(|(_, value)| decode(value).unwrap_or(Cow::Borrowed(value)))
}

/// All parameters called `name`, as [`get`] gives the first.
pub(super) fn all<'a>(query: &'a str, name: &str) -> impl Iterator<Item = Cow<'a, str>> {
    pairs(query)
        .filter(move |(key, _)| *key == name)
        .map(|(_, value)| decode(value).unwrap_or(Cow::Borrowed(value)))
}

/// The query without `ns`, which is for us and nobody further on.
pub(super) fn without_ns(query: &str) -> Cow<'_, str> {
    if pairs(query).all(|(key, _)| key != "ns") {
        return Cow::Borrowed(query);
    }
    let kept: Vec<&str> = query
        .split('&')
        .filter(|piece| piece.split_once('=').map_or(*piece, |(key, _)| key) != "ns")
        .collect();
    Cow::Owned(kept.join("&"))
}

/// The `Link` to the next page: the path as the client asked it, the upstream's query, and the client's `ns`. It is
/// relative, so that it holds behind any proxy. What the upstream sent is decoded and encoded anew: nothing of it may
/// end the link.
pub(super) fn next_link(path: &str, upstream_query: &str, ns: Option<&str>) -> String {
    let mut link = String::with_capacity(path.len() + upstream_query.len() + 32);
    link.push('<');
    link.push_str(path);
    let mut mark = '?';
    let theirs = pairs(upstream_query).filter(|(key, _)| *key != "ns");
    for (key, value) in theirs.chain(ns.map(|ns| ("ns", ns))) {
        link.push(mark);
        mark = '&';
        let [key, value] = [key, value].map(|text| decode(text).unwrap_or(Cow::Borrowed(text)));
        encode(&key, &mut link);
        link.push('=');
        encode(&value, &mut link);
    }
    link.push_str(">; rel=\"next\"");
    link
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn decoding() {
        assert_eq!(decode("a+b/c").as_deref(), Some("a+b/c"));
        assert_eq!(decode("sha256%3aab%3A").as_deref(), Some("sha256:ab:"));
        assert_eq!(decode("%C3%A9").as_deref(), Some("é"));
        for broken in ["%", "%1", "%zz", "%ff", "a%+1"] {
            assert_eq!(decode(broken), None, "{broken}");
        }
    }

    #[test]
    fn parameters() {
        assert_eq!(
            get("n=1&ns=docker.io&ns=other", "ns").as_deref(),
            Some("docker.io")
        );
        assert_eq!(
            get("artifactType=a/b%2Bjson", "artifactType").as_deref(),
            Some("a/b+json")
        );
        assert_eq!(get("ns", "ns").as_deref(), Some(""));
        assert_eq!(get("xns=1", "ns"), None);
        assert_eq!(without_ns("n=1&last=a%20b"), "n=1&last=a%20b");
        assert_eq!(without_ns("ns=docker.io&n=1&ns=x&last=b"), "n=1&last=b");
        assert_eq!(without_ns("ns=docker.io"), "");
    }

    #[test]
    fn links_are_our_own() {
        assert_eq!(
            next_link("/v2/docker-hub/library/nginx/tags/list", "n=2&last=x", None),
            r#"</v2/docker-hub/library/nginx/tags/list?n=2&last=x>; rel="next""#
        );
        assert_eq!(
            next_link(
                "/docker.io/v2/nginx/tags/list",
                "last=a%2Bb&ns=theirs&n=2",
                Some("docker.io")
            ),
            r#"</docker.io/v2/nginx/tags/list?last=a%2Bb&n=2&ns=docker.io>; rel="next""#
        );
        assert_eq!(
            next_link("/mirror/v2/a/tags/list", "next_page=gAAA==%3D", Some("reg:5000")),
            r#"</mirror/v2/a/tags/list?next_page=gAAA%3D%3D%3D&ns=reg%3A5000>; rel="next""#
        );
        assert_eq!(
            next_link("/v2/a/tags/list", "last=x>; rel=\"prev\", </v2/evil", None),
            r#"</v2/a/tags/list?last=x%3E%3B%20rel%3D%22prev%22%2C%20%3C%2Fv2%2Fevil>; rel="next""#
        );
    }

    proptest! {
        #[test]
        fn a_link_holds_any_query(query in "\\PC{0,60}", ns in proptest::option::of("\\PC{0,20}")) {
            let link = next_link("/v2/a/tags/list", &query, ns.as_deref());
            prop_assert!(http::HeaderValue::from_str(&link).is_ok());
            let target = crate::oci::next_link(&link).unwrap();
            prop_assert!(target.parse::<http::Uri>().is_ok());
        }
    }
}
