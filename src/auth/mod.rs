//! Who is it, and may they: identities, and policies in the language of IAM that say what each may do.
//!
//! Pure: no storage, no network; who asks has already parsed the request. Used by `api`, joined with its stores in `app`.

pub mod action;
pub mod identity;
pub mod password;
pub mod policy;
pub mod preset;
pub mod resource;
pub mod token;
