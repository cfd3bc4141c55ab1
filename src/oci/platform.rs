//! Platforms as people name them, and which entry of an index is for one: by the rules of containerd
//! (`platforms.Only`), which are those that nodes pull by.

use std::fmt;
use std::str::FromStr;

use super::descriptor::Platform;

/// A platform to pull for: `linux/amd64`, `linux/arm64`, `linux/arm/v6`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WantedPlatform {
    os: String,
    architecture: String,
    /// Empty where the architecture has none, or its usual one goes without saying.
    variant: String,
}

/// Why a text names no platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no platform: write \"linux/amd64\", \"linux/arm64\" or \"linux/arm/v7\"")]
pub struct PlatformError(String);

impl WantedPlatform {
    /// The platform that this program runs on, in Go's words.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            same => same,
        };
        Self::normal("linux", architecture, "")
    }

    fn normal(os: &str, architecture: &str, variant: &str) -> Self {
        let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "" | "8" | "v8") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
            ("armel", _) | ("arm", "6") => ("arm", "v6"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "8") => ("arm", "v8"),
            same => same,
        };
        let os = match os.to_ascii_lowercase() {
            os if os == "macos" => "darwin".to_owned(),
            os => os,
        };
        Self {
            os,
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    /// How well an entry of an index serves this platform: 0 is best; `None` when it does not run there.
    pub fn rank(&self, entry: &Platform) -> Option<usize> {
        let variant = entry.variant.as_deref().unwrap_or_default();
        let entry = Self::normal(&entry.os, &entry.architecture, variant);
        if entry.os != self.os {
            return None;
        }
        self.runs().iter().position(|(architecture, variant)| {
            *architecture == entry.architecture && *variant == entry.variant
        })
    }

    /// The architectures and variants that run here, the best first.
    fn runs(&self) -> Vec<(&str, String)> {
        let mut runs = vec![(self.architecture.as_str(), self.variant.clone())];
        match self.architecture.as_str() {
            "amd64" => {
                let level = number(&self.variant).unwrap_or(1);
                runs.extend((2..level).rev().map(|level| ("amd64", format!("v{level}"))));
                if level > 1 {
                    runs.push(("amd64", String::new()));
                }
                runs.push(("386", String::new()));
            }
            "arm64" => {
                if !self.variant.is_empty() {
                    runs.push(("arm64", String::new()));
                }
                runs.extend((5..=8).rev().map(|level| ("arm", format!("v{level}"))));
            }
            "arm" => {
                let level = number(&self.variant).unwrap_or(7);
                runs.extend((5..level).rev().map(|level| ("arm", format!("v{level}"))));
            }
            _ => {}
        }
        runs
    }
}

/// The number of a variant: 7 of `v7`.
fn number(variant: &str) -> Option<u8> {
    variant
        .strip_prefix('v')?
        .parse()
        .ok()
        .filter(|level| *level < 100)
}

impl FromStr for WantedPlatform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let error = || PlatformError(text.chars().filter(|c| !c.is_control()).take(100).collect());
        let fits = |part: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
            !part.is_empty() && part.bytes().all(fits)
        };
        let parts: Vec<&str> = text.trim().split('/').collect();
        if !parts.iter().all(|part| fits(part)) {
            return Err(error());
        }
        match parts.as_slice() {
            [os, architecture] => Ok(Self::normal(os, architecture, "")),
            [os, architecture, variant] => Ok(Self::normal(os, architecture, variant)),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for WantedPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() {
            Ok(())
        } else {
            write!(f, "/{}", self.variant)
        }
    }
}

impl fmt::Debug for WantedPlatform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Platform {
    /// `linux/arm64/v8`, and for Windows its version: `windows/amd64 10.0.20348.2113`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        if let Some(version) = &self.os_version {
            write!(f, " {version}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
            os_version: None,
        }
    }

    #[test]
    fn which_entry_runs_where_as_containerd_says() {
        let cases = [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/amd64", "linux/amd64/v1", Some(0)),
            ("linux/amd64", "linux/386", Some(1)),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/amd64", "linux/arm64", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/amd64/v3", "linux/amd64/v3", Some(0)),
            ("linux/amd64/v3", "linux/amd64/v2", Some(1)),
            ("linux/amd64/v3", "linux/amd64", Some(2)),
            ("linux/amd64/v3", "linux/386", Some(3)),
            ("linux/x86_64", "linux/amd64", Some(0)),
            ("linux/arm64", "linux/arm64", Some(0)),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64/v8", "linux/arm64", Some(0)),
            ("linux/arm64/v8", "linux/arm64/v8", Some(0)),
            ("linux/aarch64", "linux/arm64/v8", Some(0)),
            ("linux/arm64/v9", "linux/arm64/v8", Some(1)),
            ("linux/arm64", "linux/arm64/v9", None),
            ("linux/arm64", "linux/arm/v8", Some(1)),
            ("linux/arm64", "linux/arm/v7", Some(2)),
            ("linux/arm64", "linux/arm/v5", Some(4)),
            ("linux/arm", "linux/arm/v7", Some(0)),
            ("linux/arm", "linux/arm", Some(0)),
            ("linux/arm/v7", "linux/arm/v6", Some(1)),
            ("linux/arm/v6", "linux/arm/v7", None),
            ("linux/arm/v6", "linux/arm/v5", Some(1)),
            ("linux/386", "linux/386", Some(0)),
            ("linux/386", "linux/amd64", None),
            ("linux/s390x", "linux/s390x", Some(0)),
            ("linux/riscv64", "linux/riscv64", Some(0)),
            ("windows/amd64", "windows/amd64", Some(0)),
            ("linux/amd64", "unknown/unknown", None),
        ];
        for (wanted, has, rank) in cases {
            let wanted: WantedPlatform = wanted.parse().unwrap();
            assert_eq!(wanted.rank(&entry(has)), rank, "{wanted} of {has}");
        }
    }

    #[test]
    fn what_people_write() {
        for (text, shown) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/AMD64", "linux/amd64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/armhf", "linux/arm/v7"),
            ("macos/arm64", "darwin/arm64"),
            (" linux/ppc64le ", "linux/ppc64le"),
        ] {
            let parsed: WantedPlatform = text.parse().unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(shown.parse::<WantedPlatform>().unwrap(), parsed);
        }
        for text in [
            "",
            "amd64",
            "linux/",
            "/amd64",
            "linux/amd64/v1/x",
            "linux/am d64",
            "linux/*",
        ] {
            assert!(text.parse::<WantedPlatform>().is_err(), "{text}");
        }
        let host = WantedPlatform::host();
        assert_eq!(host.to_string().parse::<WantedPlatform>(), Ok(host));
    }
}
