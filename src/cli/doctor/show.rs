//! The table for people and the report for programs.

use serde::Serialize;

use super::{
    count,
    row::{Area, Row, State},
};
use crate::cli::output::{Output, Style};

/// Where columns end at the latest; what is longer pushes its own line only.
const WIDEST: usize = 28;

#[derive(Serialize)]
pub(super) struct Report<'r> {
    /// Nothing is bad.
    ok: bool,
    bad: usize,
    warn: usize,
    unknown: usize,
    checks: &'r [Row],
}

pub(super) fn report(rows: &[Row]) -> Report<'_> {
    let bad = count(rows, State::Bad);
    Report {
        ok: bad == 0,
        bad,
        warn: count(rows, State::Warn),
        unknown: count(rows, State::Unknown),
        checks: rows,
    }
}

pub(super) fn table(rows: &[Row], out: &mut Output) {
    for area in Area::ALL {
        let rows: Vec<&Row> = rows.iter().filter(|row| row.area == area).collect();
        let width = |text: &dyn Fn(&Row) -> usize| {
            rows.iter().map(|row| text(row)).filter(|width| *width <= WIDEST).max().unwrap_or(0)
        };
        let (names, founds) =
            (width(&|row| row.name.chars().count()), width(&|row| row.found.chars().count()));
        if !rows.is_empty() {
            out.cells(&[(Style::Bold, area.as_str())]);
        }
        for row in rows {
            line(row, names, founds, out);
        }
    }
    let (bad, warn, unknown) =
        (count(rows, State::Bad), count(rows, State::Warn), count(rows, State::Unknown));
    out.line(&format!("{bad} bad, {warn} to look at, {unknown} unknown"));
}

fn line(row: &Row, names: usize, founds: usize, out: &mut Output) {
    let style = match row.state {
        State::Ok => Style::Good,
        State::Warn => Style::Warn,
        State::Bad => Style::Bad,
        State::Unknown => Style::Faint,
    };
    let Row { name, found, means, .. } = row;
    out.cells(&[
        (style, &format!("  {:<7}", row.state.as_str())),
        (Style::Plain, &format!("  {name:<names$}  {found:<founds$}  {means}")),
    ]);
    if let Some(advice) = &row.advice {
        out.cells(&[(Style::Faint, &format!("           try: {advice}"))]);
    }
}
