//! Lifecycle policies in the language of ECR: which images of a hosted repository expire, or go to the archive. Pure:
//! `policy` understands a text, `evaluate` applies it to what a repository holds. Called by the job that expires, and by
//! previews.

mod evaluate;
mod policy;
#[cfg(test)]
mod tests;

pub use evaluate::{ImageFacts, Verdict, evaluate};
pub use policy::{Act, Fault, MAX_TEXT, Policy, StorageClass};
