//! Amazon ECR private registries: a login for twelve hours by `GetAuthorizationToken` (AWS JSON 1.1), signed with AWS
//! credentials (SigV4). The login is Basic; an expired one is a 403 there, which `client` knows.

use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_TYPE, HeaderName};
use serde::Deserialize;

use super::aws::{self, Web};
use super::{Grant, Obtain, Obtained, sensitive};
use crate::clock::Timestamp;
use crate::config::EcrConfig;
use crate::upstream::error::tidy;

/// How long all of it may take: metadata services, STS, ECR.
const TIME: Duration = Duration::from_secs(30);
/// How long the call to ECR alone may take.
const CALL: Duration = Duration::from_secs(15);
/// What a login is good for when the service does not tell.
const LIFE: Duration = Duration::from_hours(6);
/// So long before its end a login is used no more.
const MARGIN: Duration = Duration::from_mins(1);

const TARGET: &str = "AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken";
const BODY: &[u8] = b"{}";

/// A registry whose logins are fetched.
pub(super) struct Ecr {
    config: EcrConfig,
    web: Web,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    authorization_data: Vec<Authorization>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Authorization {
    /// Base64 of `AWS:<password>`: what Basic wants.
    authorization_token: String,
    /// Seconds since 1970.
    expires_at: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Excuse {
    #[serde(rename = "__type")]
    kind: String,
    #[serde(alias = "Message")]
    message: String,
}

impl Ecr {
    pub(super) fn new(config: EcrConfig, web: Web) -> Self {
        Self { config, web }
    }

    async fn ask(&self) -> Result<Obtained, String> {
        let (region, profile) = (&self.config.region, self.config.profile.as_deref());
        let credentials = aws::credentials(&self.web, region, profile).await?;
        let request = self
            .request(credentials)
            .map_err(|error| format!("the request to ECR cannot be signed: {error}"))?;
        let host = self.config.endpoint.host_str().unwrap_or_default();
        let answer = self
            .web
            .send(request, CALL)
            .await
            .map_err(|(_, why)| format!("{host}: {why}"))?;
        let status = answer.status();
        if !status.is_success() {
            let excuse: Excuse = serde_json::from_slice(answer.body()).unwrap_or_default();
            // `com.amazonaws...#AccessDeniedException`
            let kind = excuse.kind.rsplit('#').next().unwrap_or_default();
            let why = tidy(&format!("{kind} {}", excuse.message));
            return Err(format!(
                "{host} gives no login (status {}): {why}",
                status.as_u16()
            ));
        }
        read(answer.body(), Timestamp::now()).ok_or_else(|| format!("{host} answers with no login"))
    }

    fn request(
        &self,
        credentials: Credentials,
    ) -> Result<http::Request<Bytes>, Box<dyn std::error::Error + Send + Sync>> {
        let url = self.config.endpoint.as_str();
        let mut request = http::Request::post(url)
            .header(CONTENT_TYPE, "application/x-amz-json-1.1")
            .header(HeaderName::from_static("x-amz-target"), TARGET)
            .body(Bytes::from_static(BODY))?;
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.config.region)
            .name("ecr")
            .time(UNIX_EPOCH + Duration::from_millis(Timestamp::now().0))
            .settings(SigningSettings::default())
            .build()?
            .into();
        let headers = request
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new("POST", url, headers, SignableBody::Bytes(BODY))?;
        let (instructions, _) = sign(signable, &parameters)?.into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

impl Obtain for Ecr {
    fn obtain(&self) -> BoxFuture<'_, Result<Obtained, String>> {
        Box::pin(async move {
            match tokio::time::timeout(TIME, self.ask()).await {
                Ok(obtained) => obtained,
                Err(_) => Err(format!("no login from ECR within {} s", TIME.as_secs())),
            }
        })
    }
}

/// The login in an answer: renewed when four fifths of its time are over.
fn read(body: &[u8], now: Timestamp) -> Option<Obtained> {
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let first = answer.authorization_data.into_iter().next()?;
    let header = sensitive(&format!("Basic {}", first.authorization_token))
        .filter(|_| !first.authorization_token.is_empty())?;
    let life = first.expires_at.map_or(LIFE, |end| {
        // Ten years are forever, and do not overflow.
        let end = Duration::from_secs_f64(end.clamp(0.0, 1e11));
        end.saturating_sub(Duration::from_millis(now.0))
            .min(Duration::from_hours(87_600))
    });
    Some(Obtained {
        grant: Grant::Basic(header),
        renew_in: Some(life.mul_f64(0.8)),
        ends_in: Some(life.saturating_sub(MARGIN)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let now = Timestamp(1_000_000_000);
        let of = |json: &str| read(json.as_bytes(), now);
        let twelve = of(r#"{"authorizationData":[{"authorizationToken":"QVdTOnB3","expiresAt":1043200.5,"proxyEndpoint":"https://x"}]}"#).unwrap();
        assert_eq!(twelve.ends_in, Some(Duration::from_millis(43_140_500)));
        assert_eq!(twelve.renew_in, Some(Duration::from_millis(34_560_400)));
        assert!(matches!(&twelve.grant, Grant::Basic(header) if header == "Basic QVdTOnB3"));
        let untold = of(r#"{"authorizationData":[{"authorizationToken":"QVdTOnB3"}]}"#).unwrap();
        assert_eq!(untold.ends_in, Some(LIFE.saturating_sub(MARGIN)));
        for json in [
            "{}",
            r#"{"authorizationData":[]}"#,
            r#"{"authorizationData":[{"authorizationToken":""}]}"#,
            r#"{"authorizationData":[{"authorizationToken":"a\nb"}]}"#,
            "<xml/>",
        ] {
            assert!(of(json).is_none(), "{json}");
        }
        let past =
            of(r#"{"authorizationData":[{"authorizationToken":"QVdTOnB3","expiresAt":-7e300}]}"#).unwrap();
        assert_eq!(past.ends_in, Some(Duration::ZERO));
    }
}
