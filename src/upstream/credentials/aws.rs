//! AWS credentials as every AWS tool finds them: environment, shared files with their profiles, web identity (IRSA),
//! container endpoint (ECS, EKS Pod Identity), instance metadata (IMDSv2). By the vendor's own crate, over our HTTP
//! client, so that proxy and certificates are those of the upstream. Used by `ecr`.

use std::error::Error as _;
use std::time::Duration;

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::provider_config::ProviderConfig;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials as _;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;

use crate::upstream::error::{classify, tidy};

/// The largest answer of a service that gives credentials, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;
/// How long a request may take, unless who sends it says otherwise.
const TIME: Duration = Duration::from_secs(10);

/// HTTP to services that the operator named, or that are part of the machine.
#[derive(Clone, Debug)]
pub(in crate::upstream) struct Web {
    /// By way of the upstream's proxy, if there is one.
    proxied: reqwest::Client,
    /// Past it.
    direct: reqwest::Client,
}

impl Web {
    pub(in crate::upstream) fn new((proxied, direct): (reqwest::Client, reqwest::Client)) -> Self {
        Self { proxied, direct }
    }

    /// Sends a request, and reads the whole answer.
    ///
    /// # Errors
    /// Why there is none, and whether it was too slow.
    pub(super) async fn send(
        &self,
        request: http::Request<Bytes>,
        time: Duration,
    ) -> Result<http::Response<Bytes>, (bool, String)> {
        let request = reqwest::Request::try_from(request).map_err(|error| (false, classify(&error).1))?;
        // What is not encrypted is this machine's own: its metadata, or a side car.
        let client = if request.url().scheme() == "http" {
            &self.direct
        } else {
            &self.proxied
        };
        let exchange = async {
            let mut response = client.execute(request).await?;
            let mut body = Vec::new();
            while let Some(piece) = response.chunk().await? {
                body.extend_from_slice(&piece);
                if body.len() > MAX_ANSWER {
                    return Ok(None);
                }
            }
            let mut answer = http::Response::new(Bytes::from(body));
            *answer.status_mut() = response.status();
            *answer.headers_mut() = std::mem::take(response.headers_mut());
            Ok(Some(answer))
        };
        match tokio::time::timeout(time, exchange).await {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err((false, "the answer is too large".to_owned())),
            Ok(Err(error)) => {
                let error: reqwest::Error = error;
                Err((error.is_timeout(), classify(&error).1))
            }
            Err(_) => Err((true, format!("no answer within {time:?}"))),
        }
    }
}

impl HttpClient for Web {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        let times = [settings.connect_timeout(), settings.read_timeout()];
        let time = times.iter().flatten().sum::<Duration>();
        SharedHttpConnector::new(Connector {
            web: self.clone(),
            time: if time.is_zero() { TIME } else { time },
        })
    }
}

#[derive(Debug)]
struct Connector {
    web: Web,
    time: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (web, time) = (self.web.clone(), self.time);
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let (head, body) = request.into_parts();
            let body = Bytes::copy_from_slice(body.bytes().unwrap_or_default());
            let answer = web
                .send(http::Request::from_parts(head, body), time)
                .await
                .map_err(|(slow, why)| {
                    if slow {
                        ConnectorError::timeout(why.into())
                    } else {
                        ConnectorError::io(why.into())
                    }
                })?;
            HttpResponse::try_from(answer.map(SdkBody::from))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// The credentials that the environment gives.
///
/// # Errors
/// Why there are none.
pub(super) async fn credentials(
    web: &Web,
    region: &str,
    profile: Option<&str>,
) -> Result<Credentials, String> {
    let config = ProviderConfig::without_region()
        .with_behavior_version(Some(BehaviorVersion::latest()))
        .with_http_client(web.clone());
    let mut chain = DefaultCredentialsChain::builder()
        .region(Region::new(region.to_owned()))
        .configure(config);
    if let Some(profile) = profile {
        chain = chain.profile_name(profile);
    }
    let found = chain.build().await.provide_credentials().await;
    found.map_err(|error| {
        // The innermost cause is the one to act on.
        let mut told = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            told = format!("{told}: {cause}");
            source = cause.source();
        }
        format!("no AWS credentials: {}", tidy(&told))
    })
}
