//! Tag lists and referrers.

use super::server::{Server, answer};
use super::{configured, name, sha256, upstream};
use crate::oci::OCI_INDEX;
use crate::upstream::ErrorKind;

#[tokio::test]
async fn tags_in_pages() {
    let server = Server::start(|asked| async move {
        match (asked.path.as_str(), asked.query.as_str()) {
            ("/v2/a/tags/list", "") => answer(200, &[], r#"{"name":"a","tags":["1","2"]}"#),
            ("/v2/a/tags/list", "n=2") => {
                let link = "<https://elsewhere.test/x/tags/list?n=2&ns=docker.io&last=b%2Fc>; rel=\"next\"";
                answer(200, &[("link", link)], r#"{"tags":["b","a"]}"#)
            }
            ("/v2/empty/tags/list", _) => answer(200, &[], r#"{"name":"empty","tags":null}"#),
            ("/v2/circle/tags/list", query) => {
                let link = format!("<?{query}>; rel=next");
                answer(200, &[("link", &link)], r#"{"tags":[]}"#)
            }
            ("/v2/html/tags/list", _) => answer(200, &[], "<html>"),
            _ => answer(404, &[], ""),
        }
    })
    .await;
    let upstream = upstream(&server);
    let page = upstream.tags(&name("a"), "", &configured()).await.unwrap();
    assert_eq!(
        (page.tags, page.next_query),
        (vec!["1".to_owned(), "2".to_owned()], None)
    );
    let page = upstream.tags(&name("a"), "n=2", &configured()).await.unwrap();
    // The upstream's order stays, and neither its host nor ns.
    assert_eq!(page.tags, ["b", "a"]);
    assert_eq!(page.next_query.as_deref(), Some("n=2&last=b%2Fc"));
    assert!(
        upstream
            .tags(&name("empty"), "", &configured())
            .await
            .unwrap()
            .tags
            .is_empty()
    );
    assert_eq!(
        upstream
            .tags(&name("circle"), "n=1", &configured())
            .await
            .unwrap()
            .next_query,
        None
    );
    for (repository, kind) in [("html", ErrorKind::Protocol), ("none", ErrorKind::NotFound)] {
        assert_eq!(
            upstream
                .tags(&name(repository), "", &configured())
                .await
                .unwrap_err()
                .kind(),
            &kind
        );
    }
}

fn index(digests: &[char]) -> String {
    let entries: Vec<_> = digests
        .iter()
        .map(|letter| {
            let hex = letter.to_string().repeat(64);
            format!(r#"{{"mediaType":"m","digest":"sha256:{hex}","size":1,"artifactType":"t"}}"#)
        })
        .collect();
    let entries = entries.join(",");
    format!(r#"{{"schemaVersion":2,"mediaType":"{OCI_INDEX}","manifests":[{entries}]}}"#)
}

#[tokio::test]
async fn referrers_over_all_pages() {
    let server = Server::start(|asked| async move {
        let kind = ("content-type", OCI_INDEX);
        match asked.query.as_str() {
            "" => answer(
                200,
                &[
                    kind,
                    ("link", "<http://127.0.0.1:1/elsewhere?page=2>; rel=\"next\""),
                ],
                index(&['a']),
            ),
            "page=2" => answer(200, &[kind], index(&['b']).replace("[{", "[{\"size\":\"odd\"},{")),
            _ => answer(500, &[], ""),
        }
    })
    .await;
    let found = upstream(&server)
        .referrers(&name("a"), &sha256(b""), &configured())
        .await
        .unwrap()
        .unwrap();
    let digests: Vec<_> = found.iter().map(|descriptor| &descriptor.digest[7..8]).collect();
    assert_eq!(digests, ["a", "b"]);
    assert!(
        server
            .log()
            .iter()
            .all(|asked| asked.path == format!("/v2/a/referrers/{}", sha256(b"")))
    );
}

#[tokio::test]
async fn an_endless_list_of_referrers_ends() {
    let server = Server::start(|asked| async move {
        let page: u32 = asked.query.trim_start_matches("page=").parse().unwrap_or(0);
        let link = format!("<?page={}>; rel=\"next\"", page + 1);
        answer(
            200,
            &[("content-type", OCI_INDEX), ("link", &link)],
            index(&['a']),
        )
    })
    .await;
    let error = upstream(&server)
        .referrers(&name("a"), &sha256(b""), &configured())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Protocol);
    assert_eq!(server.log().len(), 50);
}

#[tokio::test]
async fn registries_without_referrers_say_so_in_many_ways() {
    let server = Server::start(|asked| async move {
        match asked.path.split('/').nth(2).unwrap() {
            "html" => answer(200, &[("content-type", "text/html")], "<html>"),
            "odd" => answer(200, &[("content-type", OCI_INDEX)], "<html>"),
            "303" => answer(303, &[("location", &format!("{}/elsewhere", asked.me))], ""),
            "basic" => answer(401, &[("www-authenticate", "Basic realm=\"r\"")], ""),
            "" => answer(401, &[], ""), // the ping
            code => answer(code.parse().unwrap(), &[], ""),
        }
    })
    .await;
    let upstream = upstream(&server);
    for repository in [
        "html", "odd", "303", "basic", "400", "401", "403", "404", "405", "406", "501",
    ] {
        let found = upstream
            .referrers(&name(repository), &sha256(b""), &configured())
            .await
            .unwrap();
        assert_eq!(found, None, "{repository}");
    }
    assert_eq!(server.count("/elsewhere"), 0);
    for repository in ["429", "503"] {
        let error = upstream
            .referrers(&name(repository), &sha256(b""), &configured())
            .await
            .unwrap_err();
        assert!(error.is_retryable(), "{repository}");
    }
}
