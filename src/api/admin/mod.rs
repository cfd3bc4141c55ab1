//! The admin API, JSON in and out: for the subcommands through the unix socket, and for programs of this machine over
//! TCP.
//!
//! | request | answer |
//! |---|---|
//! | `GET /api/status` | [`registry::report::Status`](crate::registry::report::Status) |
//! | `GET /api/explain?ref=REF` | [`registry::report::Explanation`](crate::registry::report::Explanation) |
//! | `POST /api/refresh` with `{"ref": REF}` | [`registry::report::Refreshed`](crate::registry::report::Refreshed) |
//! | `POST /api/purge` with `{"ref": REF}` | [`registry::report::Purged`](crate::registry::report::Purged) |
//! | `GET /api/offline`, `POST` with `{"offline": true}` | [`registry::report::OfflineReport`](crate::registry::report::OfflineReport) |
//! | `GET /api/pins` | [`registry::report::Pins`](crate::registry::report::Pins) |
//! | `POST /api/unpin` with `{"refs": [REF]}` | a list of [`registry::report::Unpinned`](crate::registry::report::Unpinned) |
//! | `GET /api/identities` | a list of [`IdentityReport`](crate::identities::IdentityReport) |
//! | `POST /api/identities` with a [`Command`](crate::identities::Command) | [`Done`](crate::identities::Done) |
//! | `GET /api/repositories?last=NAME&n=N` | a page of hosted repositories: [`repositories::Page`] |
//! | `GET /api/repository?name=NAME` | [`registry::RepositoryReport`](crate::registry::RepositoryReport), with what it holds |
//! | `POST /api/repository-create`, `-set` with `{"name": NAME}` and what is to be set | the same |
//! | `POST /api/repository-delete` with `{"name": NAME, "force": false}` | the same, of what it was |
//! | `POST /api/lifecycle-preview` with `{"name": NAME}`, and maybe `"lifecycle": TEXT` | [`registry::RetentionPreview`](crate::registry::RetentionPreview) |
//! | `POST /api/JOB` with the job's options | a line of JSON for each [`job::Event`](crate::job::Event), while it runs |
//!
//! Errors have the distribution spec's form. Over TCP a request needs a login with the
//! rights for it (`wharfinger:Admin...`); as long as nobody can log in it has to pass [`access`] instead.

mod access;
mod commands;
mod identities;
mod jobs;
mod repositories;
mod request;

use http::Method;

use super::Asking;
use super::query;
use super::reply::Reply;
use super::rescue::Failure;
use super::route::RouteError;

pub(super) use access::{Refusal, check_machine, check_site};
pub(super) use request::BadRequest;

/// Whether a switch is to be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Read,
    Write,
}

/// A route below `/api/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdminRoute {
    Status,
    Explain,
    Refresh,
    Purge,
    /// Asked, or to be turned.
    Offline(Turn),
    Pins,
    Unpin,
    /// Listed, or one changed.
    Identities(Turn),
    Repositories,
    Repository,
    CreateRepository,
    ChangeRepository,
    RemoveRepository,
    PreviewLifecycle,
    /// Any other name: a job, if there is one of that name.
    Job(Box<str>),
}

impl AdminRoute {
    /// The route of a path; `None` when it is not below `/api/`.
    pub(super) fn parse(method: &Method, path: &str) -> Option<Result<Self, RouteError>> {
        let name = path.strip_prefix("/api/")?;
        let route = match name {
            "status" => Self::Status,
            "explain" => Self::Explain,
            "refresh" => Self::Refresh,
            "purge" => Self::Purge,
            "offline" if *method == Method::POST => Self::Offline(Turn::Write),
            "offline" => Self::Offline(Turn::Read),
            "pins" => Self::Pins,
            "unpin" => Self::Unpin,
            "identities" if *method == Method::POST => Self::Identities(Turn::Write),
            "identities" => Self::Identities(Turn::Read),
            "repositories" => Self::Repositories,
            "repository" => Self::Repository,
            "repository-create" => Self::CreateRepository,
            "repository-set" => Self::ChangeRepository,
            "repository-delete" => Self::RemoveRepository,
            "lifecycle-preview" => Self::PreviewLifecycle,
            // As a host before it, which gets the answer of an unknown one.
            "v2" => return None,
            _ if !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') => {
                Self::Job(name.into())
            }
            _ => return None,
        };
        let reads = matches!(
            route,
            Self::Status
                | Self::Explain
                | Self::Pins
                | Self::Offline(Turn::Read)
                | Self::Identities(Turn::Read)
                | Self::Repositories
                | Self::Repository
        );
        Some(match *method {
            Method::GET | Method::HEAD if reads => Ok(route),
            Method::POST if !reads => Ok(route),
            _ if reads => Err(RouteError::Method),
            _ => Err(RouteError::PostOnly),
        })
    }
}

/// Answers an admin request.
pub(super) async fn answer(asking: &mut Asking<'_>, route: &AdminRoute) -> Result<Reply, Failure> {
    match route {
        AdminRoute::Status => commands::status(asking).await,
        AdminRoute::Explain => {
            let query = asking.uri.query().unwrap_or_default();
            let text = query::get(query, "ref").filter(|text| !text.is_empty());
            let text = text.ok_or(BadRequest::Reference).map_err(Failure::Request)?;
            commands::explain(asking, &text).await
        }
        AdminRoute::Refresh => commands::refresh(asking).await,
        AdminRoute::Purge => commands::purge(asking).await,
        AdminRoute::Offline(turn) => commands::offline(asking, *turn).await,
        AdminRoute::Pins => commands::pins(asking).await,
        AdminRoute::Unpin => commands::unpin(asking).await,
        AdminRoute::Identities(Turn::Read) => identities::list(asking),
        AdminRoute::Identities(Turn::Write) => identities::run(asking).await,
        AdminRoute::Repositories => repositories::list(asking).await,
        AdminRoute::Repository => repositories::show(asking).await,
        AdminRoute::CreateRepository => repositories::create(asking).await,
        AdminRoute::ChangeRepository => repositories::change(asking).await,
        AdminRoute::RemoveRepository => repositories::remove(asking).await,
        AdminRoute::PreviewLifecycle => repositories::preview(asking).await,
        AdminRoute::Job(name) => jobs::start(asking, name).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let parse = |method: Method, path| AdminRoute::parse(&method, path);
        assert_eq!(parse(Method::GET, "/api/status"), Some(Ok(AdminRoute::Status)));
        assert_eq!(parse(Method::HEAD, "/api/explain"), Some(Ok(AdminRoute::Explain)));
        assert_eq!(parse(Method::POST, "/api/purge"), Some(Ok(AdminRoute::Purge)));
        for (method, turn) in [(Method::GET, Turn::Read), (Method::POST, Turn::Write)] {
            assert_eq!(parse(method, "/api/offline"), Some(Ok(AdminRoute::Offline(turn))));
        }
        assert_eq!(
            parse(Method::POST, "/api/rebuild-it"),
            Some(Ok(AdminRoute::Job("rebuild-it".into())))
        );
        assert_eq!(
            parse(Method::GET, "/api/repository"),
            Some(Ok(AdminRoute::Repository))
        );
        assert_eq!(
            parse(Method::POST, "/api/repository-set"),
            Some(Ok(AdminRoute::ChangeRepository))
        );
        assert_eq!(
            parse(Method::GET, "/api/repository-delete"),
            Some(Err(RouteError::PostOnly))
        );
        assert_eq!(parse(Method::GET, "/api/purge"), Some(Err(RouteError::PostOnly)));
        assert_eq!(
            parse(Method::DELETE, "/api/status"),
            Some(Err(RouteError::Method))
        );
        for path in [
            "/api",
            "/api/",
            "/api/v2",
            "/api/v2/a/tags/list",
            "/api/a/b",
            "/api/A",
            "/apis/status",
        ] {
            assert_eq!(parse(Method::GET, path), None, "{path}");
        }
    }
}
