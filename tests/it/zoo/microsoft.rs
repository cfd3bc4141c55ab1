//! mcr.microsoft.com and azurecr.io: the one wants to know nothing of its callers, the other wants its user of nought.

use super::visit::Visit;
use crate::expect::assert_error;
use crate::support::prelude::*;
use crate::support::zoo::{Acr, Mcr, Personality};

#[tokio::test]
async fn nothing_is_proved_to_who_asks_for_nothing() {
    let mcr = Visit::<Mcr>::as_user("ci", &[]).await;
    let image = mcr.put_image(1);
    mcr.pull(Mcr::REPO, &image).await;
    for host in [&mcr.animal.registry, &mcr.animal.region] {
        assert!(
            host.requests()
                .iter()
                .all(|asked| asked.header("authorization").is_empty())
        );
        assert_eq!(host.token_requests(), 0);
    }
    assert_eq!(
        mcr.animal.region.requests().len(),
        2,
        "{:#?}",
        mcr.internet.requests()
    );
    // What it does not have is a plain 404.
    assert_error(
        &get(mcr.manifest("dotnet/none", "1")).await,
        404,
        "MANIFEST_UNKNOWN",
    );
}

#[tokio::test]
async fn azures_tokens_are_asked_for_by_get() {
    let azure = Visit::<Acr>::start().await;
    let image = azure.put_image(1);
    azure.pull(Acr::REPO, &image).await;
    let asked = azure.animal.registry.requests_of(&tokens());
    assert_eq!((asked.len(), asked[0].method()), (1, &Method::GET), "{asked:#?}");
    assert!(asked[0].header("authorization").starts_with("Basic "));
    assert!(
        azure
            .animal
            .storage
            .requests()
            .iter()
            .all(|asked| asked.header("authorization").is_empty())
    );
}
