//! Amazon ECR private registries: what their URL says of region and API. Pure.

use url::Url;

/// An ECR registry, for the calls to its API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcrConfig {
    /// The region of the registry.
    pub region: String,
    /// Where its API is.
    pub endpoint: Url,
    /// The profile of the AWS files; unset: what AWS_PROFILE says, or the default one.
    pub profile: Option<String>,
}

/// What the host of a private registry says: `<account>.dkr.ecr[-fips].<region>.amazonaws.com[.cn]`, or
/// `<account>.dkr-ecr[-fips].<region>.on.aws` (dual stack). Region and the API's host.
pub(in crate::config) fn region_and_api(url: &Url) -> Option<(String, String)> {
    let host = url.host_str()?.to_ascii_lowercase();
    let (account, rest) = host.split_once('.')?;
    if account.len() != 12 || !account.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (service, rest) = ["dkr.ecr-fips.", "dkr.ecr.", "dkr-ecr-fips.", "dkr-ecr."]
        .into_iter()
        .find_map(|service| Some((service, rest.strip_prefix(service)?)))?;
    let (region, domain) = rest.split_once('.')?;
    let is_word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
    };
    if !is_word(region) || !domain.split('.').all(is_word) {
        return None;
    }
    let fips = service.ends_with("-fips.");
    // AWS general reference, "Amazon ECR endpoints and quotas".
    let api = match (service.starts_with("dkr-"), fips) {
        (true, false) => format!("ecr.{region}.api.aws"),
        (true, true) => format!("ecr-fips.{region}.api.aws"),
        (false, false) => format!("api.ecr.{region}.{domain}"),
        (false, true) => format!("ecr-fips.{region}.{domain}"),
    };
    Some((region.to_owned(), api))
}

/// The API in a region, for a registry behind another name.
pub(in crate::config) fn api_of(region: &str) -> String {
    let china = if region.starts_with("cn-") { ".cn" } else { "" };
    format!("api.ecr.{region}.amazonaws.com{china}")
}

/// A region's name, as far as it can be told without a list: `eu-west-1`.
pub(in crate::config) fn region(text: &str) -> Result<String, String> {
    let valid = !text.is_empty()
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if valid {
        Ok(text.to_owned())
    } else {
        Err(format!("`{text}` is no region, like \"eu-west-1\""))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_private_registries() {
        let table = [
            (
                "https://123456789012.dkr.ecr.eu-west-1.amazonaws.com",
                Some(("eu-west-1", "api.ecr.eu-west-1.amazonaws.com")),
            ),
            (
                "https://123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
                Some(("cn-north-1", "api.ecr.cn-north-1.amazonaws.com.cn")),
            ),
            (
                "https://123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com",
                Some(("us-gov-west-1", "ecr-fips.us-gov-west-1.amazonaws.com")),
            ),
            (
                "https://123456789012.dkr-ecr.eu-west-1.on.aws",
                Some(("eu-west-1", "ecr.eu-west-1.api.aws")),
            ),
            ("https://12345678901.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("https://public.ecr.aws", None),
            ("https://x23456789012.dkr.ecr.eu-west-1.amazonaws.com", None),
            ("http://127.0.0.1:5000", None),
        ];
        for (url, expected) in table {
            let found = region_and_api(&Url::parse(url).unwrap());
            let found = found
                .as_ref()
                .map(|(region, api)| (region.as_str(), api.as_str()));
            assert_eq!(found, expected, "{url}");
        }
        assert_eq!(api_of("cn-north-1"), "api.ecr.cn-north-1.amazonaws.com.cn");
    }
}
