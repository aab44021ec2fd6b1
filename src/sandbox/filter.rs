//! From a list of system calls to a filter on every thread.

use std::{collections::BTreeMap, env::consts::ARCH};

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

use crate::sys::trap;

/// A system call that a process may make, and why.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// Its number on this architecture.
    pub number: i64,
    /// Its name.
    pub name: &'static str,
    /// What needs it.
    pub why: &'static str,
    /// One of these must hold; none means always.
    pub only: &'static [Only],
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Only {
    /// The argument with this index has this value in its low 32 bits.
    Is(u8, u32),
    /// The argument with this index has none of these bits.
    Lacks(u8, u32),
    /// The pointer with this index is null.
    Null(u8),
    /// The argument with this index is the id of the process that installs the filter.
    Own(u8),
}

/// The filter is not there.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// The list can't be compiled for this architecture.
    #[error("seccomp: {0}")]
    Compile(#[from] seccompiler::BackendError),
    /// The kernel did not take it.
    #[error("seccomp: {0}")]
    Install(#[from] seccompiler::Error),
    /// The handler that reports a violation could not be installed.
    #[error("seccomp: {0}")]
    Handler(#[from] std::io::Error),
}

/// From now on no thread of this process makes any other call than these: another one ends the process with
/// [`trap::EXIT_CODE`] and a line on stderr that names it.
pub fn filter(calls: &[Call]) -> Result<(), FilterError> {
    trap::install()?;
    apply_filter_all_threads(&compile(calls)?)?;
    Ok(())
}

fn compile(calls: &[Call]) -> Result<BpfProgram, FilterError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in calls {
        let conditions: Result<Vec<_>, _> = call.only.iter().copied().map(rule).collect();
        rules.entry(call.number).or_default().extend(conditions?);
    }
    let architecture = TargetArch::try_from(ARCH)?;
    let filter = SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, architecture)?;
    Ok(filter.try_into()?)
}

fn rule(only: Only) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = match only {
        Only::Is(index, value) => {
            SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value.into())
        }
        Only::Lacks(index, bits) => {
            SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(bits.into()), 0)
        }
        Only::Null(index) => SeccompCondition::new(index, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0),
        Only::Own(index) => {
            let own = std::process::id().into();
            SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, own)
        }
    };
    SeccompRule::new(vec![condition?])
}
