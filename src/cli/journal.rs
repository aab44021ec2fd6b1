//! The operator's log as journald reads it: a priority in front of each line, and no time of its own.

use std::{fmt, os::unix::fs::MetadataExt};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Lines like `<4>the audit log was changed`.
pub(super) struct Journal;

impl Journal {
    /// Whether `stream`, the value of `JOURNAL_STREAM`, is what stderr leads to: it is inherited by whoever redirects.
    pub(super) fn is_stderr(stream: &str) -> bool {
        let is = std::fs::metadata("/proc/self/fd/2").map(|found| format!("{}:{}", found.dev(), found.ino()));
        is.is_ok_and(|is| is == stream)
    }
}

impl<S, N> FormatEvent<S, N> for Journal
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, cx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let priority = match *event.metadata().level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            Level::DEBUG | Level::TRACE => 7,
        };
        write!(out, "<{priority}>")?;
        cx.format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}
