//! Small C programs that play clients and attackers, compiled once and kept by the hash of their source.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use sha2::{Digest as _, Sha256};

/// How a program is linked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// Against the system's C library; also names libm, so that a search path can be played with.
    Dynamic,
    /// Whole.
    Static,
    /// A shared library.
    Library,
}

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn compiler_args(link: Link) -> &'static [&'static str] {
    match link {
        Link::Dynamic => &["-Wl,--no-as-needed", "-lm"],
        Link::Static => &["-static", "-DSTATIC_BUILD"],
        Link::Library => &["-shared", "-fPIC"],
    }
}

/// The compiled form of `tests/it/<source>`, in a folder that the tests don't share with their worlds.
pub fn compiled(source: &str, link: Link) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it").join(source);
    let text = fs::read(&source).unwrap();
    let stem = source.file_stem().unwrap().to_str().unwrap();
    let shared = fs::read(source.with_file_name("attack.h")).unwrap_or_default();
    let hash: String =
        Sha256::digest([text, shared].concat()).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let made = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{stem}-{link:?}-{hash}"));
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if !made.exists() {
        let fresh = made.with_extension(format!("{}.new", std::process::id()));
        let mut cc = Command::new("cc");
        cc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&fresh)
            .arg(&source)
            .args(compiler_args(link));
        let output = cc.output().expect("cc (Debian: gcc, libc6-dev) is needed");
        assert!(output.status.success(), "{source:?}: {}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&fresh, &made).unwrap();
    }
    made
}

/// `sha256:<hex>` of a file, as config.json has it.
pub fn hash_of(file: &Path) -> String {
    let digest = Sha256::digest(fs::read(file).unwrap());
    format!("sha256:{}", data_encoding::HEXLOWER.encode(&digest))
}
