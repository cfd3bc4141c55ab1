//! Which of an image's parts are wanted: of an index the entries that nodes of the wanted platforms would pull. Pure; called
//! by `bring`.

use crate::oci::{Descriptor, PlatformError, WantedPlatform};

/// For which platforms.
#[derive(Clone, Debug)]
pub(super) enum Platforms {
    /// Whatever there is.
    All,
    /// These; all of them with `each`, else as many as there are.
    Wanted { these: Vec<WantedPlatform>, each: bool },
}

impl Platforms {
    /// As an operator asks for them: this machine's own, when none are named.
    pub(super) fn asked(platforms: &[String], all: bool) -> Result<Self, String> {
        if all {
            return Ok(Self::All);
        }
        let these: Result<Vec<_>, _> = platforms.iter().map(|text| text.parse()).collect();
        let mut these = these.map_err(|error: PlatformError| error.to_string())?;
        if these.is_empty() {
            these.push(WantedPlatform::host());
        }
        Ok(Self::Wanted { these, each: true })
    }
}

/// The word for [`Platforms::All`], where platforms are written down.
const ALL: &str = "all";

impl Platforms {
    /// As they are written down with a pin.
    pub(super) fn written(&self) -> Vec<String> {
        match self {
            Self::All => vec![ALL.to_owned()],
            Self::Wanted { these, .. } => these.iter().map(ToString::to_string).collect(),
        }
    }

    /// What [`Platforms::written`] wrote: as many of them as there are.
    pub(super) fn read(written: &[String]) -> Self {
        if written.iter().any(|word| word == ALL) {
            return Self::All;
        }
        Self::Wanted {
            these: written.iter().filter_map(|word| word.parse().ok()).collect(),
            each: false,
        }
    }
}

/// The entries of an index for the wanted platforms: of each platform the best that there is. One without a platform is
/// for all, as clients take it.
///
/// # Errors
/// What is there instead, when the wanted is not.
pub(super) fn choose<'a>(
    entries: &'a [Descriptor],
    platforms: &Platforms,
) -> Result<Vec<&'a Descriptor>, String> {
    let Platforms::Wanted { these, each } = platforms else {
        return Ok(entries.iter().collect());
    };
    let mut chosen = vec![false; entries.len()];
    let mut missing = Vec::new();
    for wanted in these {
        let rank = |entry: &Descriptor| wanted.rank(entry.platform.as_ref()?);
        match entries.iter().filter_map(rank).min() {
            Some(best) => {
                let found = entries.iter().map(|entry| rank(entry) == Some(best));
                chosen
                    .iter_mut()
                    .zip(found)
                    .for_each(|(chosen, found)| *chosen |= found);
            }
            None => missing.push(wanted.to_string()),
        }
    }
    let for_all = entries.iter().map(|entry| entry.platform.is_none());
    let (mut anything, mut picked) = (false, Vec::new());
    for ((entry, chosen), for_all) in entries.iter().zip(chosen).zip(for_all) {
        if chosen || for_all {
            anything = true;
            picked.push(entry);
        }
    }
    let none_is_for_all = entries.iter().all(|entry| entry.platform.is_some());
    if !missing.is_empty() && none_is_for_all && (*each || !anything) {
        let has: Vec<_> = entries
            .iter()
            .filter_map(|entry| entry.platform.as_ref())
            .map(ToString::to_string)
            .filter(|platform| platform != "unknown/unknown")
            .collect();
        return Err(format!(
            "it is not there for {}, but for {}",
            missing.join(", "),
            has.join(", ")
        ));
    }
    Ok(picked)
}

/// Whether an entry of an index is a blob: BuildKit's caches are written so.
pub(super) fn names_a_blob(media_type: &str) -> bool {
    [".layer.", ".rootfs.", ".cacheconfig.", ".image.config."]
        .iter()
        .any(|word| media_type.contains(word))
}

/// Whether a layer is by its type not kept in registries, and is had from its own addresses.
pub(super) fn is_elsewhere(entry: &Descriptor) -> bool {
    let kept_away = ["foreign", "nondistributable"]
        .iter()
        .any(|word| entry.media_type.contains(word));
    kept_away && !entry.urls.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Platform;

    fn entry(number: u8, platform: &str) -> Descriptor {
        let mut parts = platform.split('/').map(str::to_owned);
        let platform = (!platform.is_empty()).then(|| Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
            os_version: None,
        });
        Descriptor {
            media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
            digest: format!("sha256:{}", hex::encode([number; 32])),
            size: 1,
            artifact_type: None,
            annotations: std::collections::BTreeMap::new(),
            urls: Vec::new(),
            platform,
        }
    }

    /// What there is, what is wanted, whether each of it is; the numbers of what is chosen.
    type Case = (
        &'static [&'static str],
        &'static [&'static str],
        bool,
        Result<&'static [u8], &'static str>,
    );

    #[test]
    fn the_best_entry_of_each_platform() {
        const BUSYBOX: [&str; 6] = [
            "linux/amd64",
            "linux/arm/v5",
            "linux/arm/v6",
            "linux/arm/v7",
            "linux/arm64/v8",
            "unknown/unknown",
        ];
        const WINDOWS: [&str; 3] = ["windows/amd64", "windows/amd64", "linux/amd64"];
        let cases: [Case; 11] = [
            (&BUSYBOX, &["linux/amd64"], true, Ok(&[0])),
            (&BUSYBOX, &["linux/arm64"], true, Ok(&[4])),
            (&BUSYBOX, &["linux/arm"], true, Ok(&[3])),
            (&BUSYBOX, &["linux/arm/v6", "linux/amd64"], true, Ok(&[0, 2])),
            (
                &BUSYBOX,
                &["linux/amd64", "linux/s390x"],
                true,
                Err("not there for linux/s390x, but for linux/amd64, linux/arm/v5"),
            ),
            (&BUSYBOX, &["linux/amd64", "linux/s390x"], false, Ok(&[0])),
            (
                &BUSYBOX,
                &["linux/s390x"],
                false,
                Err("not there for linux/s390x"),
            ),
            (&["linux/arm/v7"], &["linux/arm64"], true, Ok(&[0])),
            // Several versions of Windows: which one a node needs is not known here.
            (&WINDOWS, &["windows/amd64"], true, Ok(&[0, 1])),
            (&["", "linux/amd64"], &["linux/amd64"], true, Ok(&[0, 1])),
            (&["", ""], &["linux/amd64"], true, Ok(&[0, 1])),
        ];
        for (has, wanted, each, expected) in cases {
            let entries: Vec<_> = (0..).zip(has).map(|(number, has)| entry(number, has)).collect();
            let these = wanted.iter().map(|text| text.parse().unwrap()).collect();
            let platforms = Platforms::Wanted { these, each };
            let chosen = choose(&entries, &platforms);
            match (chosen, expected) {
                (Ok(chosen), Ok(expected)) => {
                    let numbers: Vec<u8> = chosen
                        .iter()
                        .map(|chosen| hex::decode(&chosen.digest[7..9]).unwrap()[0])
                        .collect();
                    assert_eq!(numbers, expected, "{wanted:?} of {has:?}");
                }
                (Err(told), Err(reason)) => assert!(told.contains(reason), "{told}"),
                (chosen, _) => panic!("{wanted:?} of {has:?}: {chosen:?}"),
            }
        }
        let entries: Vec<_> = (0..)
            .zip(BUSYBOX)
            .map(|(number, has)| entry(number, has))
            .collect();
        assert_eq!(choose(&entries, &Platforms::All).map(|all| all.len()), Ok(6));
    }
}
