//! What users and robots may be called: IAM's names of users, without those that clients mean something else by.

use super::Error;

/// Longest name, as IAM's.
const LONGEST: usize = 64;

/// Names that clients send with something that is no password of a user: ECR's, and those of token logins.
const TAKEN: [&str; 5] = ["AWS", "oidc", "oauth2accesstoken", "root", "anonymous"];

/// Whether somebody can be called that.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let of_name = |b: u8| b.is_ascii_alphanumeric() || b"+=,.@_-".contains(&b);
    let fits = !name.is_empty() && name.len() <= LONGEST && name.bytes().all(of_name);
    let taken = TAKEN.iter().any(|taken| taken.eq_ignore_ascii_case(name));
    // An access key is shown in the place of a name.
    let like_key = name.len() == 20 && name.starts_with("AKIA");
    if fits && !taken && !like_key {
        Ok(())
    } else {
        Err(Error::Name(name.chars().take(100).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["alice", "ci-bot", "a@b.example", "a+b=c,d.e_f", &"x".repeat(64)] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in [
            "",
            "a b",
            "a/b",
            "a:b",
            "a*",
            "ä",
            "AWS",
            "aws",
            "AKIAABCDEFGHIJKLMNOP",
            &"x".repeat(65),
        ] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
