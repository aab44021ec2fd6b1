//! What a verified caller may do: config.json as types, and one pure decision that denies by default.
//!
//! `decide`, `document`, `draft`, `terms`, `mask` and `pending` are pure; `source`, `registry`, `candidate`, `library` and
//! `pending_file` are the files behind them. Knows no sockets and no secrets.
#![forbid(unsafe_code)]

mod candidate;
mod changes;
mod decide;
mod document;
mod draft;
mod interpreter;
mod library;
mod lock;
mod mask;
mod measure;
mod parse;
mod pending;
mod pending_file;
mod permissions;
mod registry;
mod sealed_copy;
mod source;
mod stamp;
mod terms;

pub use candidate::{Allowances, Candidate, CandidateError, Risk};
pub use changes::{PolicyChange, changes};
pub use decide::{Admitted, Authorized, Denial, decide_change, decide_check, decide_query};
pub use document::{Entry, Library, Policy, Standing, Warning};
pub use draft::{Draft, DraftError, Grant, Registration};
pub use interpreter::runs_others;
pub use library::{LibraryError, LibraryFile};
pub use mask::mask_argument;
pub use measure::{MeasureError, Measured};
pub use parse::ConfigError;
pub use pending::{CommandLine, MAX_PENDING, Pending, PendingQueue, Sighting};
pub use pending_file::{COMMAND_PATIENCE, Foreign, PendingError, PendingFile};
pub use permissions::Permissions;
pub use registry::{Registry, RegistryError, SealEdit};
pub use sealed_copy::{Difference, SealedCopy, differences, read_config};
pub use source::{Distrust, MAX_CONFIG, PolicyError, PolicySource};
pub use terms::{Lift, Lifted, Narrowed, NeverRelaxed, Relaxable, Targets, Terms};
