//! The queue of strangers, with those of this second: the daemon writes them to pending.json at most once a second.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{context::Context, output::Output, status_query::QueueState};

/// How long a command waits for them: the daemon's second, and what hashing a large program takes.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the daemon is asked meanwhile.
const LOOK: Duration = Duration::from_millis(50);

/// Waits until pending.json has every stranger that the daemon had seen when it was asked first. Who comes later is not
/// waited for, so that strangers in a loop keep nobody waiting.
pub(super) fn await_arrivals(cx: &Context, out: &mut Output) {
    let Some(first) = state(cx) else { return };
    let (mut now, begun) = (first, Instant::now());
    // a daemon that was started anew has seen fewer
    while now.written < first.seen && now.seen >= first.seen {
        if begun.elapsed() > PATIENCE {
            out.note("note: a program that asked just now is not listed yet; ask again in a moment");
            return;
        }
        thread::sleep(LOOK);
        let Some(later) = state(cx) else { return };
        now = later;
    }
}

fn state(cx: &Context) -> Option<QueueState> {
    cx.daemon()?.queue
}
