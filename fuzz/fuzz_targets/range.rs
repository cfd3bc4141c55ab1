//! `Range` and `Content-Range`: what is read lies within the content, and means the same when it is written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wharfinger::oci::{ByteRange, ContentRange, RangeHeader};

fuzz_target!(|input: (u64, &str)| {
    let (size, text) = input;
    let ranges = match RangeHeader::parse(text) {
        RangeHeader::Ignored | RangeHeader::Unsatisfiable => Vec::new(),
        RangeHeader::Single(range) => vec![range],
        RangeHeader::Several(ranges) => {
            assert!(ranges.len() > 1);
            ranges
        }
    };
    for range in ranges {
        if let ByteRange::FromTo(first, last) = range {
            assert!(first <= last);
        }
        assert_eq!(RangeHeader::parse(&range.to_string()), RangeHeader::Single(range));
        if let Some(span) = range.resolve(size) {
            assert!(span.start < span.end && span.end <= size && !span.is_empty());
            let told = ContentRange::parse(&span.content_range(size)).expect("what we say ourselves");
            assert_eq!((told.span, told.size), (Some(span), Some(size)));
        }
    }
    if let Some(told) = ContentRange::parse(text) {
        if let Some(span) = told.span {
            assert!(span.start < span.end && told.size.is_none_or(|size| span.end <= size));
        }
    }
});
