//! Linux 5.10 and later; what newer kernels add is probed.

pub mod activation;
pub mod filesystem;
pub mod locked;
pub mod notify;
pub mod peer;
pub mod process;
pub mod readiness;
pub mod stderr;
pub mod trap;
pub mod trial;
