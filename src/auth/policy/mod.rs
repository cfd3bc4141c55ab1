//! Policies in the language of IAM (both versions): documents, conditions, and the one decision about a request.
//!
//! All of it is pure. A document that parsed holds no surprise: what it does not understand it refused then, so that no
//! misspelt condition is passed over. Called by `auth::preset` and by who asks for decisions.

mod condition;
mod context;
mod document;
mod evaluate;
mod json;
mod pattern;
mod principal;
#[cfg(test)]
mod tests;

pub use context::Context;
pub use document::{Document, Effect, Fault, Faults, MAX_TEXT, Statement, Usage};
pub use evaluate::{Attached, Decision, Place, Request, Why, decide};
