//! The `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date.

use std::time::Duration;
use std::time::UNIX_EPOCH;

use chrono::DateTime;

use crate::flow::time::Timestamp;

/// Whatever a receiver asks for, no wait is longer. The lane's own cap is far below; this one
/// keeps sums of times away from overflow.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Reads a `Retry-After` header: seconds, also with a fraction, or an HTTP date, which is taken against `now`. `None` if
/// it is neither.
pub(crate) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only a number beyond 64 bits fails here.
        let seconds = value.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    // Not by the standard, and sent all the same.
    if value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
        && let Ok(seconds) = value.parse::<f64>()
    {
        let seconds = Duration::try_from_secs_f64(seconds).unwrap_or(RETRY_AFTER_MAX);
        return Some(seconds.min(RETRY_AFTER_MAX));
    }
    Some(date(value)?.since(now).min(RETRY_AFTER_MAX))
}

/// A date as HTTP writes it, as mail does (`-0000` for `GMT`, which libraries make of a date), or ISO 8601.
fn date(value: &str) -> Option<Timestamp> {
    if let Ok(date) = httpdate::parse_http_date(value) {
        let since_epoch = date.duration_since(UNIX_EPOCH).ok()?;
        return Some(Timestamp::from_seconds(i64::try_from(since_epoch.as_secs()).ok()?));
    }
    let date = DateTime::parse_from_rfc2822(value).or_else(|_| DateTime::parse_from_rfc3339(value));
    Some(Timestamp::from_micros(date.ok()?.timestamp_micros()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms() {
        // 1994-11-06 08:49:37 UTC, the date of RFC 9110's examples.
        let now = Timestamp::from_micros(784_111_777_000_000 - 90_500_000);
        let seconds = |n| Some(Duration::from_secs(n));
        let cases = [
            ("120", seconds(120)),
            (" 0 ", seconds(0)),
            ("99999999999999999999999999", Some(RETRY_AFTER_MAX)),
            ("18446744073709551615", Some(RETRY_AFTER_MAX)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::from_millis(90_500))),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(Duration::from_millis(90_500))),
            ("Sun Nov  6 08:49:37 1994", Some(Duration::from_millis(90_500))),
            ("Sun, 06 Nov 1994 08:00:00 GMT", seconds(0)),
            ("Fri, 31 Dec 9999 23:59:59 GMT", Some(RETRY_AFTER_MAX)),
            ("Sun, 06 Nov 1994 08:49:37 -0000", Some(Duration::from_millis(90_500))),
            ("Sun, 06 Nov 1994 09:49:37 +0100", Some(Duration::from_millis(90_500))),
            ("1994-11-06T08:49:37Z", Some(Duration::from_millis(90_500))),
            ("-1", None),
            ("1.5", Some(Duration::from_millis(1500))),
            ("0.25", Some(Duration::from_millis(250))),
            ("1e3", None),
            ("1.2.3", None),
            ("", None),
            ("soon", None),
        ];
        for (value, expected) in cases {
            assert_eq!(retry_after(value, now), expected, "case: {value:?}");
        }
    }
}
