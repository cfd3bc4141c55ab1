//! The words of the OCI distribution and image specifications, parsed once at the door.
//!
//! Pure values without I/O: everything above speaks in these types and never in strings. Used by every room.

mod challenge;
mod descriptor;
mod digest;
mod error;
mod link;
mod manifest;
mod media_type;
mod name;
mod platform;
mod range;

pub use challenge::{Challenge, parse_challenges};
pub use descriptor::{Descriptor, Platform};
pub use digest::{Algorithm, Digest, DigestError};
pub use error::{ErrorBody, ErrorCode};
pub use link::next_link;
pub use manifest::{Kind, MAX_MANIFEST_SIZE, Manifest, ManifestError, referrers_fallback_tag};
pub use media_type::{ACCEPT_MANIFESTS, MediaType, OCI_INDEX};
pub use name::{NameError, Reference, RepositoryName, Tag};
pub use platform::{PlatformError, WantedPlatform};
pub use range::{ByteRange, ContentRange, RangeHeader, Span};
