//! Times as people write them: a moment, or a span from now.

use jiff::{SignedDuration, Timestamp};

/// Reads `2h`, `30m`, `7d`, `2w`, `1h30m` or an RFC 3339 time as a moment in the past.
pub(super) fn since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let time = span(text).and_then(|ago| now.checked_sub(ago).ok());
    time.ok_or_else(|| "a time is like 2h, 30m or 7d, or like 2026-05-21T10:34:02Z".to_owned())
}

/// Reads `12h`, `30d`, `8w` or an RFC 3339 time as a moment in the future.
pub(super) fn until(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let time = match text.parse() {
        Ok(time) => Some(time),
        Err(_) => span(text).and_then(|ahead| now.checked_add(ahead).ok()),
    };
    let time = time.ok_or("a time is like 12h, 30d or 8w, or like 2026-05-21T10:34:02Z")?;
    if time > now { Ok(time) } else { Err("it must lie in the future".to_owned()) }
}

/// A span longer than nothing. Days have 24 hours.
fn span(text: &str) -> Option<SignedDuration> {
    let whole = |digits: &str, hours: i64| {
        digits.parse::<i64>().ok()?.checked_mul(hours).map(SignedDuration::try_from_hours)?
    };
    let span = match (text.strip_suffix('d'), text.strip_suffix('w')) {
        (Some(days), _) => whole(days, 24),
        (_, Some(weeks)) => whole(weeks, 7 * 24),
        _ => text.parse().ok(),
    };
    span.filter(SignedDuration::is_positive)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-05-21T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_time_is_a_distance_or_a_moment() {
        let hours = |text| (now().duration_since(since(text, now()).unwrap())).as_hours();
        assert_eq!((hours("2h"), hours("90m"), hours("7d"), hours("1w")), (2, 1, 168, 168));
        assert_eq!(since("2026-05-21T10:00:00Z", now()).unwrap().to_string(), "2026-05-21T10:00:00Z");
        for wrong in ["", "2", "soon", "-2h", "0h", "99999999999999999d", "d"] {
            assert!(since(wrong, now()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_end_lies_in_the_future() {
        let end = |text| until(text, now()).map(|end| end.to_string());
        assert_eq!(end("12h").as_deref(), Ok("2026-05-22T00:00:00Z"));
        assert_eq!(end("30d").as_deref(), Ok("2026-06-20T12:00:00Z"));
        assert_eq!(end("2027-01-01T01:00:00+01:00").as_deref(), Ok("2027-01-01T00:00:00Z"));
        for wrong in
            ["", "0d", "-1d", "30", "tomorrow", "2026-05-21T12:00:00Z", "1999-01-01T00:00:00Z", "99999999d"]
        {
            assert!(until(wrong, now()).is_err(), "{wrong}");
        }
    }
}
