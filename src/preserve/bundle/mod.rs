//! `wharfinger bundle`: images with all that they need, as an OCI image layout (image spec, image-layout.md) in a tar
//! archive, from one cache to another that nothing reaches. Other tools read it too (`oci-archive:` of skopeo and podman,
//! `ctr images import`).
//!
//! | entry | what |
//! |---|---|
//! | `oci-layout`, `index.json` | first, so that who reads a stream knows what is to come |
//! | `manifest.json` | for `docker load`: images of one platform |
//! | `blobs/<alg>/<hex>` | image by image its manifests, each after those that name it, then its config and layers; each once |

mod archive;
mod conclude;
mod export;
mod import;
mod layout;
mod plan;
mod read;

pub use export::{BundleExport, ExportOptions, Exported};
pub use import::{BundleImport, Imported, ImportedImage, Refusal};
