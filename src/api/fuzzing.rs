//! What the fuzzer (`fuzz/`) sees of this room; compiled for it alone.

use http::{Method, Uri};

use super::Entrance;
use super::route::{Route, parse};

/// Reads a request, and checks that what was understood means the same when it is asked for plainly.
pub fn route(method: &Method, uri: &Uri, entrance: u8) {
    let doors = [Entrance::Main, Entrance::Mirror, Entrance::Admin, Entrance::Local];
    let entrance = doors[usize::from(entrance) % doors.len()];
    for admin in [false, true] {
        let Ok(route) = parse(method, uri, entrance, admin) else {
            continue;
        };
        let (target, rest) = match &route {
            Route::Manifest(target, reference) => (target, format!("manifests/{reference}")),
            Route::Blob(target, digest) => (target, format!("blobs/{digest}")),
            Route::Referrers(target, digest) => (target, format!("referrers/{digest}")),
            _ => continue,
        };
        assert!(!target.name.as_str().is_empty());
        let plain: Uri = format!("/v2/{}/{rest}", target.name)
            .parse()
            .expect("plain words");
        let again = parse(method, &plain, Entrance::Main, admin).expect("the same, plainly");
        let told = again.target().expect("a repository");
        assert_eq!(told.name, target.name);
        match (&route, &again) {
            (Route::Manifest(_, one), Route::Manifest(_, other)) => assert_eq!(one, other),
            (Route::Blob(_, one), Route::Blob(_, other))
            | (Route::Referrers(_, one), Route::Referrers(_, other)) => {
                assert_eq!(one, other);
            }
            _ => panic!("{route:?} became {again:?}"),
        }
    }
}
