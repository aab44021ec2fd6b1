//! The process that looks at callers. It reads /proc and the bytes of executables and tells facts; it decides nothing,
//! holds no secret, no store and no policy.
//!
//! It is a process of its own since Landlock, which cages the keeper, forbids looking into other processes.
#![forbid(unsafe_code)]

mod channel;
mod custody;
mod desk;
mod examine;
mod hashing;
mod libraries;
mod mounts;
mod procfs;
mod protocol;
mod written;

pub use custody::peer_in;
pub use desk::serve;
pub use procfs::{
    CodeMapping, Mount, ProcfsError, Status, parse_descriptor_flags, parse_maps, parse_mount_id,
    parse_mounts, parse_statm, parse_status,
};
pub use protocol::{
    Answer, MAX_MESSAGE, ProtocolError, Question, Unseen, Watched, decode_answer, decode_question, encode,
    watch_list,
};
