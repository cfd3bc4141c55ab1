//! Tables of paths: what clients ask, and what means nothing.

use super::*;
use proptest::prelude::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn get(uri: &str, entrance: Entrance) -> Result<String, RouteError> {
    ask(&Method::GET, uri, entrance)
}

/// Door, host, ns, name and the rest of a route in one line.
fn ask(method: &Method, uri: &str, entrance: Entrance) -> Result<String, RouteError> {
    let uri: Uri = uri.parse().unwrap();
    let route = parse(method, &uri, entrance, true)?;
    let place = route.target().map(|target| {
        let host = target.host.as_deref().unwrap_or("-");
        let ns = target.ns.as_deref().unwrap_or("-");
        format!("{:?} {host} {ns} {}", target.door, target.name)
    });
    let place = place.unwrap_or_default();
    Ok(match &route {
        Route::Base(door) => format!("base {door:?}"),
        Route::Manifest(_, reference) => format!("{place} manifest {reference}"),
        Route::PutManifest(_, reference) => format!("{place} put {reference}"),
        Route::DeleteManifest(_, reference) => format!("{place} delete {reference}"),
        Route::Blob(_, digest) => format!("{place} blob {digest}"),
        Route::DeleteBlob(_, digest) => format!("{place} delete blob {digest}"),
        Route::BeginUpload(_) => format!("{place} upload"),
        Route::Upload(_, step, Some(id)) => format!("{place} {step:?} {id}"),
        Route::Upload(_, step, None) => format!("{place} {step:?} of nobody"),
        Route::Catalog => "catalog".to_owned(),
        Route::Tags(_, page) => format!("{place} tags {page:?}"),
        Route::Referrers(_, digest) => format!("{place} referrers {digest}"),
        Route::Token => "token".to_owned(),
        Route::Live => "live".to_owned(),
        Route::Ready => "ready".to_owned(),
        Route::Metrics => "metrics".to_owned(),
        Route::Admin(route) => format!("admin {route:?}"),
    })
}

#[test]
fn all_the_ways_clients_ask() {
    let blob = format!("/v2/library/nginx/blobs/{DIGEST}");
    let escaped = format!("/v2/library/nginx/blobs/{}", DIGEST.replace(':', "%3A"));
    let referrers = format!("/v2/a/referrers/{DIGEST}?artifactType=x");
    let by_digest = format!("/v2/a/b/manifests/{DIGEST}");
    let cases = [
        ("/v2", "base Main"),
        ("/v2/", "base Main"),
        ("/v2/?ns=docker.io", "base Main"),
        ("/mirror/v2/", "base Mirror"),
        ("/mirror/v2", "base Mirror"),
        ("/docker.io/v2/", "base Main"),
        (
            "/v2/docker-hub/library/nginx/manifests/1",
            "Main - - docker-hub/library/nginx manifest 1",
        ),
        (
            "/v2/docker.io/library/nginx/manifests/1",
            "Main - - docker.io/library/nginx manifest 1",
        ),
        (
            "/v2/nginx/manifests/latest?ns=docker.io",
            "Main - docker.io nginx manifest latest",
        ),
        ("/v2/nginx/manifests/latest?ns=", "Main - - nginx manifest latest"),
        (
            "/v2/px/nginx/manifests/1?x=1&ns=reg.example%3A5000",
            "Main - reg.example:5000 px/nginx manifest 1",
        ),
        (
            "/mirror/v2/library/nginx/manifests/1",
            "Mirror - - library/nginx manifest 1",
        ),
        (
            "/docker.io/v2/library/nginx/manifests/1",
            "Main docker.io - library/nginx manifest 1",
        ),
        (
            "/reg.example:5000/v2/a/manifests/1?ns=b.c",
            "Main reg.example:5000 b.c a manifest 1",
        ),
        (
            "/v2/library%2Fnginx/manifests/1",
            "Main - - library/nginx manifest 1",
        ),
        (&blob, &format!("Main - - library/nginx blob {DIGEST}")),
        (&escaped, &format!("Main - - library/nginx blob {DIGEST}")),
        (&referrers, &format!("Main - - a referrers {DIGEST}")),
        (&by_digest, &format!("Main - - a/b manifest {DIGEST}")),
        ("/v2/a/tags/list", "Main - - a tags Some"),
        ("/v2/a/tags/list?n=10&last=x", "Main - - a tags Some"),
        ("/v2/a/tags/list?n=0", "Main - - a tags Nothing"),
        ("/livez", "live"),
        ("/readyz", "ready"),
        ("/metrics", "metrics"),
    ];
    for (uri, expected) in cases {
        assert_eq!(get(uri, Entrance::Main).as_deref(), Ok(expected), "{uri}");
    }
}

#[test]
fn the_admin_api_is_where_health_is() {
    for entrance in [Entrance::Main, Entrance::Admin, Entrance::Local] {
        let told = get("/api/status", entrance);
        assert_eq!(told.as_deref(), Ok("admin Status"), "{entrance:?}");
        assert_eq!(get("/livez", entrance).as_deref(), Ok("live"), "{entrance:?}");
    }
    assert_eq!(get("/api/status", Entrance::Mirror), Err(RouteError::NotFound));
    assert_eq!(get("/v2/", Entrance::Local), Err(RouteError::NotFound));
    let uri = Uri::from_static("/api/status");
    let elsewhere = parse(&Method::GET, &uri, Entrance::Main, false);
    assert_eq!(elsewhere.err(), Some(RouteError::NotFound));
    // Still a host before /v2.
    assert_eq!(get("/api/v2/", Entrance::Main).as_deref(), Ok("base Main"));
}

#[test]
fn names_with_the_paths_own_words() {
    let cases = [
        ("/v2/manifests/manifests/latest", "manifests manifest latest"),
        (
            "/v2/a/manifests/blobs/manifests/manifests",
            "a/manifests/blobs manifest manifests",
        ),
        ("/v2/tags/list/tags/list", "tags/list tags Some"),
        ("/v2/v2/manifests/v2", "v2 manifest v2"),
        ("/v2/a/blobs/uploads/manifests/x", "a/blobs/uploads manifest x"),
        ("/v2/mirror/v2/manifests/x", "mirror/v2 manifest x"),
        ("/v2/a/manifests/tags/list", "a/manifests tags Some"),
    ];
    for (uri, expected) in cases {
        assert_eq!(
            get(uri, Entrance::Main),
            Ok(format!("Main - - {expected}")),
            "{uri}"
        );
    }
}

#[test]
fn the_mirrors_own_port() {
    let mirror = |uri| get(uri, Entrance::Mirror);
    assert_eq!(mirror("/v2/").as_deref(), Ok("base Mirror"));
    assert_eq!(
        mirror("/v2/nginx/manifests/1").as_deref(),
        Ok("Mirror - - nginx manifest 1")
    );
    assert_eq!(
        mirror("/mirror/v2/nginx/manifests/1").as_deref(),
        Ok("Mirror - - nginx manifest 1")
    );
    assert_eq!(mirror("/metrics"), Err(RouteError::NotFound));
    assert_eq!(get("/readyz", Entrance::Admin).as_deref(), Ok("ready"));
    assert_eq!(get("/v2/", Entrance::Admin), Err(RouteError::NotFound));
    let uri = Uri::from_static("/metrics");
    assert_eq!(
        parse(&Method::GET, &uri, Entrance::Main, false),
        Err(RouteError::NotFound)
    );
}

#[test]
fn what_means_nothing() {
    let name = RouteError::Name(NameError::Name);
    let malformed = RouteError::Digest(DigestError::Malformed);
    let long = format!("/v2/{}/manifests/x", "a".repeat(256));
    let long_tag = format!("/v2/a/manifests/{}", "a".repeat(129));
    let cases = [
        ("/", RouteError::NotFound),
        ("//v2/a/manifests/x", RouteError::NotFound),
        ("/v1/", RouteError::NotFound),
        ("/v2/a", RouteError::NotFound),
        ("/v2/a/b/c", RouteError::NotFound),
        ("/v2/a/tags/list/", RouteError::NotFound),
        ("/v2/uploads/x", RouteError::NotFound),
        ("/a%20b/v2/x/manifests/y", RouteError::NotFound),
        ("/%00/v2/x/manifests/y", RouteError::NotFound),
        ("/a/b/v2/x/manifests/y", RouteError::NotFound),
        ("/v2/manifests/latest", name),
        ("/v2//manifests/latest", name),
        ("/v2//a/manifests/latest", name),
        ("/v2/a//b/manifests/latest", name),
        ("/v2/../manifests/latest", name),
        ("/v2/a/../../manifests/latest", name),
        ("/v2/%2e%2e/manifests/latest", name),
        ("/v2/a%00b/manifests/latest", name),
        ("/v2/A/manifests/latest", name),
        ("/v2/host:5000/a/manifests/latest", name),
        (&long, name),
        ("/v2/a%zz/manifests/x", RouteError::Encoding),
        ("/v2/a%ff/manifests/x", RouteError::Encoding),
        ("/v2/a%2/manifests/x", RouteError::Encoding),
        (
            "/v2/a/manifests/.INVALID_MANIFEST_NAME",
            RouteError::Tag(NameError::Tag),
        ),
        ("/v2/a/manifests/", RouteError::Tag(NameError::Tag)),
        ("/v2/a/manifests/..", RouteError::Tag(NameError::Tag)),
        (&long_tag, RouteError::Tag(NameError::Tag)),
        ("/v2/a/manifests/sha256:abc", malformed),
        ("/v2/a/manifests/sha256%3Aabc", malformed),
        ("/v2/a/blobs/latest", malformed),
        ("/v2/a/blobs/", malformed),
        ("/v2/a/referrers/latest", malformed),
        (
            "/v2/a/blobs/blake3:abcd",
            RouteError::Digest(DigestError::Unsupported),
        ),
        ("/v2/a/tags/list?n=-1", RouteError::Page),
        ("/v2/a/tags/list?n=x", RouteError::Page),
        ("/v2/a/tags/list?n=", RouteError::Page),
    ];
    for (uri, expected) in cases {
        assert_eq!(get(uri, Entrance::Main), Err(expected), "{uri}");
    }
}

#[test]
fn pushes_and_deletions() {
    const ID: &str = "6bcee613-d2be-479b-85e7-9b7ca8094f49";
    let (blob, by_digest) = (
        format!("/v2/a/blobs/{DIGEST}"),
        format!("/v2/a/manifests/{DIGEST}"),
    );
    let session = format!("/v2/a/b/blobs/uploads/{ID}?digest=x");
    let cases = [
        (
            Method::POST,
            "/v2/a/blobs/uploads/",
            "Main - - a upload".to_owned(),
        ),
        (
            Method::POST,
            "/v2/a/blobs/uploads",
            "Main - - a upload".to_owned(),
        ),
        (
            Method::POST,
            "/v2/a/blobs/uploads/?mount=x",
            "Main - - a upload".to_owned(),
        ),
        (Method::GET, &session, format!("Main - - a/b Status {ID}")),
        (Method::PATCH, &session, format!("Main - - a/b Append {ID}")),
        (Method::PUT, &session, format!("Main - - a/b Finish {ID}")),
        (Method::DELETE, &session, format!("Main - - a/b Cancel {ID}")),
        (
            Method::PUT,
            "/v2/a/manifests/latest?tag=b",
            "Main - - a put latest".to_owned(),
        ),
        (
            Method::DELETE,
            "/v2/a/manifests/latest",
            "Main - - a delete latest".to_owned(),
        ),
        (Method::DELETE, &by_digest, format!("Main - - a delete {DIGEST}")),
        (Method::DELETE, &blob, format!("Main - - a delete blob {DIGEST}")),
        (Method::GET, "/v2/_catalog?n=2", "catalog".to_owned()),
    ];
    for (method, uri, expected) in cases {
        assert_eq!(ask(&method, uri, Entrance::Main), Ok(expected), "{method} {uri}");
        let mirrored = ask(&method, uri, Entrance::Mirror);
        if method != Method::GET {
            assert_eq!(mirrored, Err(RouteError::MirrorMethod), "{method} {uri}");
        }
    }
    let refused = [
        (Method::GET, "/v2/a/blobs/uploads/", RouteError::Method),
        (Method::POST, "/v2/a/manifests/latest", RouteError::Method),
        (Method::PUT, &blob, RouteError::Method),
        (Method::DELETE, "/v2/a/tags/list", RouteError::Method),
        (Method::POST, "/v2/_catalog", RouteError::Method),
        (Method::POST, "/v2/", RouteError::Method),
        (Method::POST, "/metrics", RouteError::Method),
        (
            Method::PUT,
            "/v2/a/manifests/.bad",
            RouteError::NewTag(NameError::Tag),
        ),
        (Method::POST, "/nothing", RouteError::NotFound),
        (
            Method::PUT,
            "/v2/A/manifests/x",
            RouteError::Name(NameError::Name),
        ),
    ];
    for (method, uri, expected) in refused {
        assert_eq!(ask(&method, uri, Entrance::Main), Err(expected), "{method} {uri}");
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(path in "/[a-z0-9/%.:_?&=-]{0,80}", words in proptest::collection::vec(
        prop_oneof![
            Just("v2"), Just("mirror"), Just("manifests"), Just("blobs"), Just("uploads"), Just("tags"),
            Just("list"), Just("referrers"), Just(""), Just(".."), Just("a"), Just("%2F"), Just("sha256:x"),
        ], 0..9)) {
        for text in [path, format!("/{}", words.join("/"))] {
            if let Ok(uri) = text.parse::<Uri>() {
                for entrance in [Entrance::Main, Entrance::Mirror, Entrance::Admin] {
                    let _ = parse(&Method::GET, &uri, entrance, true);
                }
            }
        }
    }

    #[test]
    fn any_name_comes_back(name in "[a-z0-9]{1,5}(/(manifests|blobs|uploads|tags|list|v2|[a-z0-9]{1,5})){0,4}", tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}") {
        let expected = format!("Main - - {name} manifest {tag}");
        prop_assert_eq!(get(&format!("/v2/{name}/manifests/{tag}"), Entrance::Main), Ok(expected));
        let expected = format!("Main - - {name} blob {DIGEST}");
        prop_assert_eq!(get(&format!("/v2/{name}/blobs/{DIGEST}"), Entrance::Main), Ok(expected));
    }
}
