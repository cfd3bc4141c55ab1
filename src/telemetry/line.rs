//! Pieces of a log line, written into a reused buffer: time stamps, numbers, and text from clients, which must
//! neither end the line nor steer a terminal.

use std::io::Write as _;
use std::time::Duration;

/// Appends `millis` since 1970 as RFC 3339 in UTC: `2026-01-31T23:59:59.123Z`.
pub(super) fn push_time(line: &mut Vec<u8>, millis: u64) {
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    push(
        line,
        format_args!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z"),
    );
}

/// Year, month and day of a number of days since 1970 (Hinnant's `civil_from_days`, for days that are not negative).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01: the leap day comes last in such a year
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

/// Appends seconds with six decimals.
pub(super) fn push_seconds(line: &mut Vec<u8>, duration: Duration) {
    push(
        line,
        format_args!("{}.{:06}", duration.as_secs(), duration.subsec_micros()),
    );
}

/// Appends what `arguments` say.
pub(super) fn push(line: &mut Vec<u8>, arguments: std::fmt::Arguments<'_>) {
    // Writing into memory fails only when a Display does; the line is then shorter.
    let _ = line.write_fmt(arguments);
}

/// Appends a decimal number, without the formatting machinery.
pub(super) fn push_number(line: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    line.extend_from_slice(&digits[at..]);
}

/// Appends `text` in quotes, at most `most` bytes of it, escaped as JSON does it (RFC 8259 section 7); control
/// characters of every kind are escaped, and what is no UTF-8 becomes U+FFFD.
pub(super) fn push_quoted(line: &mut Vec<u8>, text: &[u8], most: usize) {
    line.push(b'"');
    let shown = &text[..text.len().min(most)];
    if shown
        .iter()
        .all(|b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\'))
    {
        line.extend_from_slice(shown);
    } else {
        for chunk in shown.utf8_chunks() {
            for c in chunk.valid().chars() {
                push_char(line, c);
            }
            if !chunk.invalid().is_empty() {
                line.extend_from_slice("\u{fffd}".as_bytes());
            }
        }
    }
    if shown.len() < text.len() {
        line.extend_from_slice(b"...");
    }
    line.push(b'"');
}

fn push_char(line: &mut Vec<u8>, c: char) {
    match c {
        '"' | '\\' => line.extend_from_slice(&[b'\\', c as u8]),
        // The separators U+2028 and U+2029 end lines for some readers.
        c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => {
            push(line, format_args!("\\u{:04x}", c as u32));
        }
        c => line.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut line = Vec::new();
        write(&mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn times() {
        for (millis, expected) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_735_689_600_001, "2025-01-01T00:00:00.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(written(|line| push_time(line, millis)), expected);
        }
        // An absurd clock must not panic.
        written(|line| push_time(line, u64::MAX));
    }

    #[test]
    fn numbers() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(written(|line| push_number(line, number)), number.to_string());
        }
        assert_eq!(
            written(|line| push_seconds(line, Duration::from_micros(1_000_042))),
            "1.000042"
        );
    }

    #[test]
    fn client_text_cannot_break_out() {
        let quoted = |text: &[u8]| written(|line| push_quoted(line, text, 20));
        assert_eq!(quoted(b"plain text/1.0"), r#""plain text/1.0""#);
        assert_eq!(quoted(b"a\"b\\c\nd"), r#""a\"b\\c\u000ad""#);
        assert_eq!(quoted(b"\x1b[31m\x7f"), r#""\u001b[31m\u007f""#);
        assert_eq!(quoted("\u{9b}\u{2028}é".as_bytes()), "\"\\u009b\\u2028é\"");
        assert_eq!(quoted(b"\xff\xfe"), "\"\u{fffd}\u{fffd}\"");
        assert_eq!(quoted(&[b'a'; 30]), format!("\"{}...\"", "a".repeat(20)));
    }

    proptest! {
        #[test]
        fn quoted_text_is_json_on_one_line(text in proptest::collection::vec(any::<u8>(), 0..60)) {
            let line = written(|line| push_quoted(line, &text, 64));
            let back: String = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(back, String::from_utf8_lossy(&text));
            prop_assert!(!line.contains(char::is_control));
        }
    }
}
