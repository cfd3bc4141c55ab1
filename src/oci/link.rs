//! `Link` headers (RFC 8288) as registries page with: `<url>; rel="next"`.

/// The target of the first link whose relation is `next`, as written (absolute, or relative to the request).
pub fn next_link(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let open = rest.find('<')?;
        let close = open + rest[open..].find('>')?;
        let target = &rest[open + 1..close];
        let tail = &rest[close + 1..];
        let end = tail.find('<').unwrap_or(tail.len());
        let is_next = tail[..end].split([';', ',']).any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel")
                    && value
                        .trim()
                        .trim_matches('"')
                        .split_whitespace()
                        .any(|r| r.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            return Some(target);
        }
        rest = &tail[end..];
    }
}

#[cfg(test)]
mod tests {
    use super::next_link;

    #[test]
    fn links() {
        assert_eq!(
            next_link(r#"</v2/a/tags/list?last=x&n=2>; rel="next""#),
            Some("/v2/a/tags/list?last=x&n=2")
        );
        assert_eq!(next_link("<https://a/b>; title=x; REL=next"), Some("https://a/b"));
        assert_eq!(next_link(r#"</p>; rel="prev", </n>; rel="next""#), Some("/n"));
        for none in ["", "<", "<a", "<a>", r#"<a>; rel="prev""#] {
            assert_eq!(next_link(none), None, "{none}");
        }
    }
}
