//! Who is it, and may they: proofs of identity, and policies in the language of IAM that say what each may do.
//!
//! No storage, no network; who asks has already parsed the request. Used by `api`, joined with its stores in `app`.

pub mod action;
mod authenticator;
mod caller;
pub mod identity;
mod offered;
mod oidc;
pub mod password;
pub mod policy;
pub mod preset;
mod rate;
pub mod resource;
mod rights;
mod scope;
mod store;
#[cfg(test)]
mod tests;
pub mod token;
mod upstream_login;

pub use authenticator::{Arrival, Authenticator, Issued, Spans, Unproved};
pub use caller::Caller;
pub use offered::Offered;
pub use oidc::{Fetch, Issuer, Rule};
pub use rate::RequestRate;
pub use rights::{Circumstances, Rights, Wish};
pub use scope::{Scope, ScopeError};
pub use store::{IdentityStore, Login, LoginSecret};
pub use upstream_login::UpstreamLogin;
