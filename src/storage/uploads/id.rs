//! What an upload session is called: whoever knows it can go on with it.

use uuid::Uuid;

/// The name of a session: a random UUID, which nobody guesses.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct UploadId(Uuid);

impl UploadId {
    /// A new one, which nobody guesses.
    pub(super) fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads what [`Display`](std::fmt::Display) writes, and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        let id = Self(Uuid::try_parse(text).ok()?);
        (id.to_string() == text).then_some(id)
    }
}

impl std::fmt::Display for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl std::fmt::Debug for UploadId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Whoever knows one can go on with it: not for logs.
        f.write_str("UploadId(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_nothing_else() {
        let id = UploadId::random();
        assert_eq!(UploadId::parse(&id.to_string()), Some(id));
        assert!(!format!("{id:?}").contains(&id.to_string()));
        let upper = id.to_string().to_ascii_uppercase();
        for nonsense in [
            "",
            "..",
            "../../index.redb",
            "zz",
            &"0".repeat(31),
            &"0".repeat(34),
        ] {
            assert_eq!(UploadId::parse(nonsense), None, "{nonsense}");
        }
        assert!(UploadId::parse(&upper).is_none() || upper == id.to_string());
    }
}
