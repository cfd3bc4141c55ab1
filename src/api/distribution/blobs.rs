//! GET and HEAD of blobs, whole and by single range, from the disk or from a download that is still running.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::api::Asking;
use crate::api::body::Content;
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
    let tag = DigestHeaders::new(digest);
    if is_known_to_client(asking.headers, tag.tag()) {
        return Ok(Reply::new(StatusCode::NOT_MODIFIED, Content::Empty).digest(tag));
    }
    let reader = answer.value;
    let mapped = asking.connection.takes_mapped(asking.version);
    match wanted(asking.headers, tag.tag()) {
        Wanted::Whole => {
            let size = reader.size();
            let content = Content::blob(reader, 0, size, mapped);
            Ok(described(Reply::new(StatusCode::OK, content), tag))
        }
        Wanted::Part(range) => part(reader, Some(range), mapped, tag).await,
        Wanted::Nothing => part(reader, None, mapped, tag).await,
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

/// A part of a blob; no range is one that nothing can satisfy.
async fn part(
    mut reader: BlobReader,
    range: Option<ByteRange>,
    mapped: bool,
    tag: DigestHeaders,
) -> Result<Reply, Failure> {
    // `Content-Range` has to tell the size, since clients cannot read a `*` there.
    let size = match reader.size() {
        Some(size) => size,
        None => reader.settle_size().await.map_err(Failure::Read)?,
    };
    let span = range
        .and_then(|range| range.resolve(size))
        .ok_or(Failure::Range(size))?;
    let bounded = !matches!(range, Some(ByteRange::From(_)));
    let unverified = reader.want(span, bounded);
    let content = Content::blob(reader, span.start, Some(span.end), mapped);
    let mut reply = described(Reply::new(StatusCode::PARTIAL_CONTENT, content), tag);
    reply.unverified = unverified;
    let value = HeaderValue::try_from(span.content_range(size));
    reply
        .headers
        .extend(value.ok().map(|value| (header::CONTENT_RANGE, value)));
    Ok(reply)
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
    Part(ByteRange),
    /// A range that no blob could satisfy.
    Nothing,
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
        Ok(RangeHeader::Single(range)) => Wanted::Part(range),
        Ok(RangeHeader::Unsatisfiable) => Wanted::Nothing,
        // Several ranges at once get the whole, which RFC 9110 section 14.2 allows and their clients understand.
        Ok(RangeHeader::Several(_) | RangeHeader::Ignored) | Err(_) => Wanted::Whole,
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
            (&["bytes=0-"], None, Wanted::Part(ByteRange::From(0))),
            (
                &["bytes=2-5"],
                Some("\"sha256:ab\""),
                Wanted::Part(ByteRange::FromTo(2, 5)),
            ),
            (&["bytes=2-5"], Some("W/\"sha256:ab\""), Wanted::Whole),
            (
                &["bytes=2-5"],
                Some("Wed, 21 Oct 2015 07:28:00 GMT"),
                Wanted::Whole,
            ),
            (&["bytes=5-2"], None, Wanted::Nothing),
            (&["bytes=0-1,4-5"], None, Wanted::Whole),
            (&["bytes=0-1", "bytes=4-5"], None, Wanted::Whole),
            (&["lines=1-2"], None, Wanted::Whole),
            (&["bytes=-3"], None, Wanted::Part(ByteRange::Last(3))),
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
