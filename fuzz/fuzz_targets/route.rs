//! Method and URI of a request: total, and what is understood can be said plainly.
#![no_main]

use http::{Method, Uri};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, u8, &str)| {
    let (method, entrance, target) = input;
    let method = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
    ][usize::from(method) % 5]
        .clone();
    if let Ok(uri) = target.parse::<Uri>() {
        wharfinger::api::fuzzing::route(&method, &uri, entrance);
    }
});
