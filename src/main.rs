//! The program: everything is in the library, where tests reach it.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use zeroizing_alloc::ZeroAlloc;

/// The backstop: whatever a library frees is wiped, also what it copied of a secret without our knowing.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<std::alloc::System> = ZeroAlloc(std::alloc::System);

fn main() -> ExitCode {
    keychain_auth::cli::run()
}
