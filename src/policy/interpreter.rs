//! Programs that run what others write: registering one would trust every script, or every program it starts or debugs.

use std::{ffi::OsStr, path::Path};

/// Names without version. A name matches with a version behind it too: `python3.11`, `node18`, `lua-5.4`, `python3-dbg`.
const NAMES: &[&str] = &[
    // shells
    "sh",
    "bash",
    "rbash",
    "dash",
    "ash",
    "zsh",
    "ksh",
    "mksh",
    "oksh",
    "pdksh",
    "yash",
    "posh",
    "fish",
    "csh",
    "tcsh",
    "rc",
    "elvish",
    "nu",
    "xonsh",
    "pwsh",
    "powershell",
    "osh",
    "ysh",
    // languages
    "python",
    "pypy",
    "ipython",
    "micropython",
    "perl",
    "ruby",
    "jruby",
    "irb",
    "php",
    "php-cgi",
    "php-fpm",
    "phpdbg",
    "node",
    "nodejs",
    "deno",
    "bun",
    "qjs",
    "d8",
    "js",
    "lua",
    "luajit",
    "texlua",
    "java",
    "jshell",
    "javaw",
    "tclsh",
    "wish",
    "expect",
    "guile",
    "scheme",
    "racket",
    "sbcl",
    "clisp",
    "ecl",
    "csi",
    "chez",
    "emacs",
    "ocaml",
    "ghci",
    "runghc",
    "erl",
    "erlexec",
    "beam",
    "beam.smp",
    "escript",
    "elixir",
    "iex",
    "r",
    "rscript",
    "julia",
    "octave",
    "octave-cli",
    "gst",
    "gjs",
    "swipl",
    "gprolog",
    "mono",
    "mono-sgen",
    "dotnet",
    "scala",
    "groovy",
    "raku",
    "moar",
    "osascript",
    "wine",
    "wine64",
    "wasmtime",
    "wasmer",
    "qemu-x86_64",
    "qemu-aarch64",
    "qemu-x86_64-static",
    "qemu-aarch64-static",
    // text tools with a language of their own
    "awk",
    "gawk",
    "mawk",
    "nawk",
    "original-awk",
    "bwk",
    "sed",
    "m4",
    "make",
    "gmake",
    "vi",
    "vim",
    "vim.basic",
    "vim.tiny",
    "nvim",
    "ex",
    // many programs in one file, shells and interpreters among them
    "busybox",
    "toybox",
    "coreutils",
    "env",
    // debuggers and tracers
    "gdb",
    "gdbserver",
    "lldb",
    "lldb-server",
    "strace",
    "ltrace",
    "rr",
    "valgrind",
    "perf",
    "bpftrace",
    "frida",
    // programs that pass anybody's bytes to a socket
    "socat",
    "nc",
    "ncat",
    "netcat",
    "nc.openbsd",
    "nc.traditional",
    "curl",
    "openssl",
    "websocat",
];

/// What may follow a version number: builds of Python, LuaJIT and the like.
const TAILS: &[&str] = &["", "t", "d", "m", "u", "dm", "td", "-dbg", "-debug", "-intel64"];

/// Whether the file at this path is known by its name to run what others write.
pub fn runs_others(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(is_interpreter)
}

/// Whether a file of this name is known to run what others write. Case doesn't matter.
pub(super) fn is_interpreter(file_name: &str) -> bool {
    let name = file_name.to_ascii_lowercase();
    let name = name.strip_suffix(".exe").unwrap_or(&name);
    is_loader(name) || NAMES.iter().any(|stem| name.strip_prefix(stem).is_some_and(is_version))
}

/// The dynamic linker runs any program that is given to it, in its own image.
fn is_loader(name: &str) -> bool {
    let begins = ["ld-linux", "ld-musl", "ld.so", "ld64.so"].iter().any(|stem| name.starts_with(stem));
    begins || name.starts_with("ld-") && name.contains(".so")
}

fn is_version(rest: &str) -> bool {
    if TAILS.contains(&rest) {
        return true;
    }
    let number = rest.strip_prefix(['-', '.', '_']).unwrap_or(rest);
    if !number.starts_with(|first: char| first.is_ascii_digit()) {
        return false;
    }
    let tail = number.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    TAILS.contains(&tail) || tail.starts_with("-beta") || tail.starts_with("-rc")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_known_with_any_version() {
        for name in [
            "sh",
            "bash",
            "bash-5.2",
            "dash",
            "zsh",
            "node",
            "node18",
            "nodejs",
            "python",
            "python3",
            "python3.11",
            "python3.13t",
            "python3.11-dbg",
            "perl5.36.0",
            "ruby3.1",
            "php8.2",
            "php-fpm8.2",
            "lua5.4",
            "lua-5.4",
            "luajit-2.1.0-beta3",
            "java",
            "env",
            "busybox",
            "gawk-5.2.1",
            "mawk",
            "gdb",
            "strace",
            "tclsh8.6",
            "Rscript",
            "ld-linux-x86-64.so.2",
            "ld-linux.so.2",
            "ld-2.31.so",
            "ld-musl-x86_64.so.1",
            "ld.so",
            "Python",
            "BASH.EXE",
        ] {
            assert!(is_interpreter(name), "{name}");
        }
    }

    #[test]
    fn ordinary_tools_with_similar_names_are_not() {
        for name in [
            "agentsecrets",
            "node-exporter",
            "node_exporter",
            "perlite",
            "shellcheck",
            "ssh",
            "bashtop",
            "luacheck",
            "environment",
            "makepkg",
            "javac-wrapper",
            "rustc",
            "gh",
            "aws",
            "ld",
            "ld-wrapper",
            "nodemon",
            "python-build",
            "sha256sum",
            "curlie",
            "",
        ] {
            assert!(!is_interpreter(name), "{name}");
        }
    }
}
