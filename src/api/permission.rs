//! Which rights a request needs: route to actions. Pure; called by `authentication`, which asks for them.

use http::Method;

use super::admin::{AdminRoute, Turn};
use super::query;
use super::route::{Route, UploadStep};
use crate::auth::action::Action;

/// What a request needs of its repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Need {
    /// One of these: AWS asks for different ones in different places.
    pub(super) any_of: &'static [Action],
    /// And this one.
    pub(super) and: Option<Action>,
    /// What a token has to be granted (Docker's token authentication).
    pub(super) word: &'static str,
}

/// What a route to content needs; `None` for what is about no repository.
pub(super) fn need(route: &Route<'_>, method: &Method, query: &str) -> Option<Need> {
    use Action as A;
    let (any_of, and, word): (&'static [Action], _, _) = match route {
        Route::Manifest(..) => (&[A::BatchGetImage], None, "pull"),
        // A HEAD asks whether it is here, which those who push may know, too.
        Route::Blob(..) if method == Method::HEAD => (
            &[A::GetDownloadUrlForLayer, A::BatchCheckLayerAvailability],
            None,
            "pull",
        ),
        Route::Blob(..) => (&[A::GetDownloadUrlForLayer], None, "pull"),
        Route::Tags(..) => (&[A::ListImages], None, "pull"),
        Route::Referrers(..) => (&[A::BatchGetImage, A::ListImageReferrers], None, "pull"),
        Route::PutManifest(..) => (&[A::PutImage], None, "push"),
        Route::BeginUpload(_) => {
            let whole = query::get(query, "digest").is_some();
            (
                &[A::InitiateLayerUpload],
                whole.then_some(A::CompleteLayerUpload),
                "push",
            )
        }
        Route::Upload(_, UploadStep::Finish, _) => (&[A::CompleteLayerUpload], None, "push"),
        Route::Upload(..) => (&[A::UploadLayerPart], None, "push"),
        Route::DeleteManifest(..) | Route::DeleteBlob(..) => (&[A::BatchDeleteImage], None, "delete"),
        Route::Base(_)
        | Route::Catalog
        | Route::Token
        | Route::Live
        | Route::Ready
        | Route::Metrics
        | Route::Admin(_) => return None,
    };
    Some(Need { any_of, and, word })
}

/// What a token is asked for, so that it opens what `word` stands for: who pushes looks first.
pub(super) fn wanted(word: &str) -> &'static str {
    match word {
        "push" => "pull,push",
        "delete" => "delete",
        _ => "pull",
    }
}

/// What a granted word stands for: a token is granted it when its owner may do any of this. Each request is decided by
/// itself all the same.
pub(super) fn behind(word: &str) -> &'static [Action] {
    use Action as A;
    match word {
        "pull" => &[
            A::BatchGetImage,
            A::GetDownloadUrlForLayer,
            A::BatchCheckLayerAvailability,
            A::ListImages,
            A::ListImageReferrers,
        ],
        "push" => &[
            A::InitiateLayerUpload,
            A::UploadLayerPart,
            A::CompleteLayerUpload,
            A::PutImage,
        ],
        "delete" => &[A::BatchDeleteImage],
        _ => &[],
    }
}

/// What an operator's request needs.
pub(super) fn operator(route: &AdminRoute) -> Action {
    match route {
        AdminRoute::Status
        | AdminRoute::Explain
        | AdminRoute::Pins
        | AdminRoute::Offline(Turn::Read)
        | AdminRoute::Repositories
        | AdminRoute::Repository
        | AdminRoute::PreviewLifecycle => Action::AdminRead,
        AdminRoute::Identities(_) => Action::AdminIdentities,
        AdminRoute::Refresh
        | AdminRoute::Purge
        | AdminRoute::Unpin
        | AdminRoute::CreateRepository
        | AdminRoute::ChangeRepository
        | AdminRoute::RemoveRepository => Action::AdminContent,
        // What takes content away, or brings it.
        AdminRoute::Job(name) if name.starts_with("bundle-") => Action::AdminContent,
        AdminRoute::Offline(Turn::Write) | AdminRoute::Job(_) => Action::AdminOperate,
    }
}
