//! `doctor`: every protection, how it stands, and what to do about it.
//!
//! `gather` looks at the machine, `judge` says what that means, `show` prints it.

mod facts;
mod gather;
mod judge;
mod row;
mod show;

use self::row::{Row, State};
use super::{context::Context, failure::Failure, output::Output};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Print JSON; the exit code says the same
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, cx: &Context, out: &mut Output) -> Result<(), Failure> {
    let rows = judge::judge(&gather::gather(cx));
    if args.json {
        out.json(&show::report(&rows));
    } else {
        show::table(&rows, out);
    }
    match count(&rows, State::Bad) {
        0 => Ok(()),
        bad => Err(Failure::new(
            format!(
                "{bad} of {} checks {} bad: a protection is missing, or something is exposed",
                rows.len(),
                if bad == 1 { "is" } else { "are" }
            ),
            "follow the advice below each line marked bad",
        )),
    }
}

fn count(rows: &[Row], state: State) -> usize {
    rows.iter().filter(|row| row.state == state).count()
}
