//! From facts to rows: pure, so that every state of a machine can be tried without that machine.

mod daemon;
mod files;
mod policy;
mod programs;
mod system;

use super::{facts::Facts, row::Row};

/// The table.
pub(super) fn judge(facts: &Facts) -> Vec<Row> {
    let mut rows = daemon::rows(&facts.daemon, &facts.start, &facts.config);
    rows.extend(facts.untold.as_ref().map(daemon::untold));
    rows.extend(system::rows(&facts.system));
    rows.extend(files::rows(&facts.files, facts.key_source, facts.uid));
    rows.extend(policy::rows(&facts.policy, &facts.daemon, facts.key_source));
    rows.extend(programs::rows(&facts.programs));
    rows
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
