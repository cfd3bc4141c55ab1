//! The clients of the tests: a plain one (no redirects, no decompression, a connection per request), and
//! under `raw` and `h2` two that see how a response really ends on the wire.

use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use reqwest::{Client, Method, Response};

mod h2;
mod raw;
mod secure;

pub use h2::{H2End, h2_get, h2_get_with};
pub use raw::{Ending, Head, Raw};
pub use secure::{Secure, SecureStream};

use super::soon;

/// Without a pool, since idle connections would belong to the runtime of a test that has ended.
#[expect(
    clippy::disallowed_methods,
    reason = "a test's own client, which follows nothing"
)]
static CLIENT: LazyLock<Client> = LazyLock::new(|| {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .pool_max_idle_per_host(0)
        .no_proxy()
        .http1_only()
        .tls_certs_only([])
        .build()
        .expect("a client")
});

/// A response as far as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// What arrived of the body, also when it broke off.
    pub body: Bytes,
    /// Why the body broke off.
    pub error: Option<String>,
}

impl Answer {
    /// The value of the first header line of this name, or "".
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// Whether the body came to a clean end.
    pub fn is_complete(&self) -> bool {
        self.error.is_none()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }

    /// The body of a 200 or 206 that is complete; anything else fails the test.
    pub fn ok(self) -> Bytes {
        let good = matches!(self.status, 200 | 206) && self.is_complete();
        assert!(
            good,
            "status {}, error {:?}, body {:.500}",
            self.status,
            self.error,
            self.text()
        );
        self.body
    }
}

/// GETs a URL to its end.
pub async fn get(url: impl Into<String>) -> Answer {
    get_with(url, &[]).await
}

/// GETs a URL to its end, with request headers.
pub async fn get_with(url: impl Into<String>, headers: &[(&str, &str)]) -> Answer {
    open_with(url, headers).await.finish().await
}

/// HEADs a URL.
pub async fn head(url: impl Into<String>) -> Answer {
    head_with(url, &[]).await
}

/// HEADs a URL, with request headers.
pub async fn head_with(url: impl Into<String>, headers: &[(&str, &str)]) -> Answer {
    ask(Method::HEAD, url.into(), headers).await.finish().await
}

/// Any method, with request headers.
pub async fn request(method: Method, url: impl Into<String>, headers: &[(&str, &str)]) -> Answer {
    ask(method, url.into(), headers).await.finish().await
}

/// Any method, with request headers and a body of known length.
pub async fn send(
    method: Method,
    url: impl Into<String>,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    let url = url.into();
    let sent = try_ask(method, url.clone(), headers, Some(body.into())).await;
    let open = sent.unwrap_or_else(|error| panic!("{url}: {error:?}"));
    open.finish().await
}

/// Starts a GET: returns when the head is here. Dropped, it closes the connection.
pub async fn open(url: impl Into<String>) -> Open {
    open_with(url, &[]).await
}

/// Starts a GET with request headers.
pub async fn open_with(url: impl Into<String>, headers: &[(&str, &str)]) -> Open {
    ask(Method::GET, url.into(), headers).await
}

/// GETs a URL to its end; `None` when nobody answers.
pub async fn try_get(url: &str, headers: &[(&str, &str)]) -> Option<Answer> {
    let opened = try_ask(Method::GET, url.to_owned(), headers, None).await.ok()?;
    Some(opened.finish().await)
}

async fn ask(method: Method, url: String, headers: &[(&str, &str)]) -> Open {
    let opened = try_ask(method, url.clone(), headers, None).await;
    opened.unwrap_or_else(|error| panic!("{url}: {error:?}"))
}

async fn try_ask(
    method: Method,
    url: String,
    headers: &[(&str, &str)],
    body: Option<Bytes>,
) -> Result<Open, reqwest::Error> {
    let mut request = CLIENT.request(method, &url);
    if let Some(body) = body {
        request = request.body(body);
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = soon(&format!("the head of {url}"), request.send()).await?;
    let answer = Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: Bytes::new(),
        error: None,
    };
    Ok(Open {
        answer,
        body: BytesMut::new(),
        response,
    })
}

/// A response whose body is still to be read.
pub struct Open {
    answer: Answer,
    body: BytesMut,
    response: Response,
}

impl Open {
    pub fn status(&self) -> u16 {
        self.answer.status
    }

    /// Reads at least `count` more bytes, or what there is; gives all that has been read so far.
    pub async fn read(&mut self, count: usize) -> &[u8] {
        let wanted = self.body.len().saturating_add(count);
        while self.body.len() < wanted && self.answer.error.is_none() {
            match soon("more of a body", self.response.chunk()).await {
                Ok(Some(chunk)) => self.body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(error) => self.answer.error = Some(format!("{error:?}")),
            }
        }
        &self.body
    }

    /// Reads to the end, clean or not.
    pub async fn finish(mut self) -> Answer {
        self.read(usize::MAX).await;
        self.answer.body = self.body.freeze();
        self.answer
    }
}
