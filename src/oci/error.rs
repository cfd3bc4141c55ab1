//! The error codes and error body of the distribution spec (section "Error Codes").

use serde::Serialize;

/// A code of the spec's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant is the spec's code of the same name")]
pub enum ErrorCode {
    BlobUnknown,
    BlobUploadInvalid,
    BlobUploadUnknown,
    DigestInvalid,
    ManifestBlobUnknown,
    ManifestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    SizeInvalid,
    Denied,
    Unauthorized,
    Unsupported,
    TooManyRequests,
    /// Not of the spec's table: what Amazon ECR and distribution say of a tag that is not to be had.
    TagInvalid,
    /// Not of the spec's table, but what clients of distribution know for 5xx.
    Unknown,
    /// As [`ErrorCode::Unknown`], for a failing or slow upstream.
    Unavailable,
}

impl ErrorCode {
    /// The code as written in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::TagInvalid => "TAG_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unknown => "UNKNOWN",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

#[derive(Serialize)]
struct Entry<'a> {
    code: &'static str,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a serde_json::Value>,
}

/// The JSON body `{"errors":[{"code","message","detail"}]}` with one entry.
pub struct ErrorBody;

impl ErrorBody {
    /// Renders the body.
    pub fn render(code: ErrorCode, message: &str, detail: Option<&serde_json::Value>) -> Vec<u8> {
        #[derive(Serialize)]
        struct Errors<'a> {
            errors: [Entry<'a>; 1],
        }
        let errors = Errors {
            errors: [Entry {
                code: code.as_str(),
                message,
                detail,
            }],
        };
        // Strings and JSON values always serialize; an empty body would still be valid for a 4xx.
        serde_json::to_vec(&errors).unwrap_or_default()
    }
}
