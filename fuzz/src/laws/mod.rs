//! The laws: what must hold whatever the bytes are. Each is written once; the fuzz targets, the properties and the
//! replay of seeds on stable call the same function.
//!
//! A law panics when it is broken. It returns what became of the input, so that a seed's name can promise it.

pub mod audit_chain;
pub mod audit_line;
pub mod broker;
pub mod buffers;
pub mod config;
pub mod contract;
pub mod corridor;
pub mod frames;
pub mod imports;
pub mod pending;
pub mod procfs;
mod receipts;
pub mod reply;
pub mod request;
pub mod script;
pub mod sock_diag;
pub mod vault_files;
pub mod vault_key;
pub mod witness;
pub mod written;

/// What became of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was understood, as a whole.
    Accepted,
    /// It, or a part of it, was refused.
    Refused,
}

/// A law over bytes.
pub type Law = fn(&[u8]) -> Seen;

/// Every law that has a fuzz target, by the name of the target and of its seeds.
pub const ALL: [(&str, Law); 26] = [
    ("audit_chain", audit_chain::hold),
    ("audit_line", audit_line::hold),
    ("broker_answer", broker::answer),
    ("broker_question", broker::question),
    ("buffers", buffers::hold),
    ("config", config::hold),
    ("corridor", corridor::hold),
    ("env_file", imports::env_file),
    ("export_head", imports::export_head),
    ("export_lines", imports::export_lines),
    ("fdinfo", procfs::fdinfo),
    ("frames", frames::hold),
    ("go_json", imports::go_json),
    ("keychain_item", imports::keychain_item),
    ("maps", procfs::maps),
    ("mountinfo", procfs::mountinfo),
    ("pass_content", imports::pass_content),
    ("pending", pending::hold),
    ("reply", reply::hold),
    ("request", request::hold),
    ("sock_diag", sock_diag::hold),
    ("status", procfs::status),
    ("vault_files", vault_files::hold),
    ("vault_key", vault_key::hold),
    ("witness_answer", witness::answer),
    ("witness_question", witness::question),
];

impl Seen {
    fn when(accepted: bool) -> Self {
        if accepted { Self::Accepted } else { Self::Refused }
    }
}
