//! GET and HEAD of blobs, whole and by ranges, from the disk or from a download that is still running.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::api::Asking;
use crate::api::body::Content;
use crate::api::multipart::{self, Part, Parts};
use crate::api::reply::{BYTES, DigestHeaders, OCTETS, Reply, is_known_to_client};
use crate::api::rescue::Failure;
use crate::oci::{ByteRange, Digest, RangeHeader};
use crate::registry::{BlobReader, Repository};

/// Answers with a blob, or a part of it.
pub(in crate::api) async fn get(
    asking: &mut Asking<'_>,
    repository: &Repository,
    digest: &Digest,
) -> Result<Reply, Failure> {
    asking.exchange.digest = Some(*digest);
    if asking.method == Method::HEAD {
        return head(asking, repository, digest).await;
    }
    let found = asking.shared.registry.blob(repository, digest).await;
    let answer = found.map_err(Failure::Registry)?;
    asking.note(answer.status);
    reply(asking, answer.value, digest).await
}

/// A blob or a part of it, unless the client has it; of one for HEAD the size.
pub(super) async fn reply(
    asking: &Asking<'_>,
    reader: BlobReader,
    digest: &Digest,
) -> Result<Reply, Failure> {
    let tag = DigestHeaders::new(digest);
    if is_known_to_client(asking.headers, tag.tag()) {
        return Ok(Reply::new(StatusCode::NOT_MODIFIED, Content::Empty).digest(tag));
    }
    if asking.method == Method::HEAD {
        let mut reply = described(Reply::new(StatusCode::OK, Content::Empty), tag);
        reply.length = reader.size();
        return Ok(reply);
    }
    let mapped = asking.connection.takes_mapped(asking.version);
    match wanted(asking.headers, tag.tag()) {
        Wanted::Whole => {
            let size = reader.size();
            let content = Content::blob(reader, 0, size, mapped);
            Ok(described(Reply::new(StatusCode::OK, content), tag))
        }
        Wanted::Parts(ranges) => parts(reader, &ranges, mapped, tag).await,
    }
}

/// HEAD: `Range` is defined for GET alone (RFC 9110 section 14.2).
async fn head(asking: &mut Asking<'_>, repository: &Repository, digest: &Digest) -> Result<Reply, Failure> {
    let found = asking.shared.registry.blob_size(repository, digest).await;
    let answer = found.map_err(Failure::Registry)?;
    asking.note(answer.status);
    let tag = DigestHeaders::new(digest);
    if is_known_to_client(asking.headers, tag.tag()) {
        return Ok(Reply::new(StatusCode::NOT_MODIFIED, Content::Empty).digest(tag));
    }
    let mut reply = described(Reply::new(StatusCode::OK, Content::Empty), tag);
    reply.length = Some(answer.value);
    Ok(reply)
}

/// Parts of a blob; no ranges are ones that nothing can satisfy.
async fn parts(
    mut reader: BlobReader,
    ranges: &[ByteRange],
    mapped: bool,
    tag: DigestHeaders,
) -> Result<Reply, Failure> {
    // `Content-Range` has to tell the size, since clients cannot read a `*` there.
    let size = match reader.size() {
        Some(size) => size,
        None => reader.settle_size().await.map_err(Failure::Read)?,
    };
    let mut parts: Vec<Part> = ranges
        .iter()
        .filter_map(|range| {
            let span = range.resolve(size)?;
            let bounded = !matches!(range, ByteRange::From(_));
            Some(Part { span, bounded })
        })
        .collect();
    disentangle(&mut parts);
    // The first one last: it is read first.
    let mut unverified = false;
    for part in parts.iter().rev() {
        unverified |= reader.want(part.span, part.bounded);
    }
    let mut reply = match parts.as_slice() {
        [] => return Err(Failure::Range(size)),
        // Never in several parts what is one (RFC 9110 section 15.3.7.2).
        [Part { span, .. }] => {
            let content = Content::blob(reader, span.start, Some(span.end), mapped);
            let mut reply = described(Reply::new(StatusCode::PARTIAL_CONTENT, content), tag);
            let value = HeaderValue::try_from(span.content_range(size));
            reply
                .headers
                .extend(value.ok().map(|value| (header::CONTENT_RANGE, value)));
            reply
        }
        several => {
            let boundary = multipart::boundary();
            let content = Parts::new(reader, several, size, &boundary, mapped);
            let content = Content::Parts(Box::new(content));
            described(Reply::new(StatusCode::PARTIAL_CONTENT, content), tag)
                .with(header::CONTENT_TYPE, multipart::content_type(&boundary))
        }
    };
    reply.unverified = unverified;
    Ok(reply)
}

/// Parts that overlap become one, in order: nobody gets a byte twice by asking twice (RFC 9110 section 17.15). Others
/// stay as they were asked for.
fn disentangle(parts: &mut Vec<Part>) {
    let mut sorted = parts.clone();
    sorted.sort_by_key(|part| part.span.start);
    if sorted
        .windows(2)
        .all(|pair| pair[0].span.end <= pair[1].span.start)
    {
        return;
    }
    parts.clear();
    for part in sorted {
        match parts.last_mut() {
            Some(last) if part.span.start < last.span.end => {
                last.span.end = last.span.end.max(part.span.end);
                last.bounded &= part.bounded;
            }
            _ => parts.push(part),
        }
    }
}

fn described(reply: Reply, tag: DigestHeaders) -> Reply {
    reply
        .with(header::CONTENT_TYPE, OCTETS.clone())
        .with(header::ACCEPT_RANGES, BYTES.clone())
        .digest(tag)
}

/// What of the blob the client wants.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// None: only what no blob could satisfy.
    Parts(Vec<ByteRange>),
}

fn wanted(headers: &HeaderMap, tag: &HeaderValue) -> Wanted {
    let mut lines = headers.get_all(header::RANGE).iter();
    let (Some(range), None) = (lines.next(), lines.next()) else {
        return Wanted::Whole;
    };
    // A validator that is not our tag, by strong comparison, means another representation, of which the client has no
    // part (RFC 9110 section 13.1.5). A date is none that we gave.
    if headers
        .get(header::IF_RANGE)
        .is_some_and(|validator| validator != tag)
    {
        return Wanted::Whole;
    }
    match range.to_str().map(RangeHeader::parse) {
        Ok(RangeHeader::Single(range)) => Wanted::Parts(vec![range]),
        Ok(RangeHeader::Several(ranges)) => Wanted::Parts(ranges),
        Ok(RangeHeader::Unsatisfiable) => Wanted::Parts(Vec::new()),
        Ok(RangeHeader::Ignored) | Err(_) => Wanted::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted() {
        let tag = HeaderValue::from_static("\"sha256:ab\"");
        let cases: [(&[&'static str], Option<&'static str>, Wanted); 10] = [
            (&[], None, Wanted::Whole),
            (&["bytes=0-"], None, Wanted::Parts(vec![ByteRange::From(0)])),
            (
                &["bytes=2-5"],
                Some("\"sha256:ab\""),
                Wanted::Parts(vec![ByteRange::FromTo(2, 5)]),
            ),
            (&["bytes=2-5"], Some("W/\"sha256:ab\""), Wanted::Whole),
            (
                &["bytes=2-5"],
                Some("Wed, 21 Oct 2015 07:28:00 GMT"),
                Wanted::Whole,
            ),
            (&["bytes=5-2"], None, Wanted::Parts(vec![])),
            (
                &["bytes=0-1,4-5"],
                None,
                Wanted::Parts(vec![ByteRange::FromTo(0, 1), ByteRange::FromTo(4, 5)]),
            ),
            (&["bytes=0-1", "bytes=4-5"], None, Wanted::Whole),
            (&["lines=1-2"], None, Wanted::Whole),
            (&["bytes=-3"], None, Wanted::Parts(vec![ByteRange::Last(3)])),
        ];
        for (ranges, validator, expected) in cases {
            let mut headers = HeaderMap::new();
            for range in ranges {
                headers.append(header::RANGE, HeaderValue::from_static(range));
            }
            if let Some(validator) = validator {
                headers.insert(header::IF_RANGE, HeaderValue::from_static(validator));
            }
            assert_eq!(wanted(&headers, &tag), expected, "{ranges:?} {validator:?}");
        }
    }
}
