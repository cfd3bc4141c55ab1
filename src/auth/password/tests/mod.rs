//! Hashes that other programs made, files of `htpasswd`, and who may guess when.

mod files;
mod hashes;
mod properties;
mod throttling;
