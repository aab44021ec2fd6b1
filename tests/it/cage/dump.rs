//! All memory of a process, as root finds it, and the forms in which a secret could lie there.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    process::Command,
};

use data_encoding::{BASE64, BASE64URL, HEXLOWER, HEXUPPER};
use memchr::memmem::Finder;

use super::inside::{Call, Came, Debugger};
use crate::world::{World, run};

/// Some bytes that were found in a process, and where that is.
pub struct Piece {
    pub place: String,
    pub bytes: Vec<u8>,
}

/// What root reads through `/proc/P/mem`, one piece for each mapping; and the mappings that it can't read.
pub fn mapped(pid: u32) -> (Vec<Piece>, Vec<String>) {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut pieces, mut closed) = (Vec::new(), Vec::new());
    for line in fs::read_to_string(format!("/proc/{pid}/maps")).unwrap().lines() {
        let (start, end, rest) = range(line);
        // the kernel's own pages, and pages that the process can't read either
        if !rest.starts_with('r') || rest.contains("[v") {
            continue;
        }
        let mut bytes = vec![0; (end - start) as usize];
        match memory.read_exact_at(&mut bytes, start) {
            Ok(()) => pieces.push(Piece { place: format!("{pid}: {line}"), bytes }),
            Err(_) => closed.push(line.to_owned()),
        }
    }
    (pieces, closed)
}

fn range(line: &str) -> (u64, u64, &str) {
    let (range, rest) = line.split_once(' ').unwrap();
    let (start, end) = range.split_once('-').unwrap();
    let number = |hex| u64::from_str_radix(hex, 16).unwrap();
    (number(start), number(end), rest)
}

/// A core file with everything that a debugger of root can save: memory, also what is marked to be left out, and the
/// registers of every thread.
pub fn core(world: &World, pid: u32) -> Piece {
    let file = world.root().join(format!("core-{pid}"));
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-iex", "set auto-load off", "-iex", "set debuginfod enabled off"]);
    gdb.args([
        "-p",
        &pid.to_string(),
        "-ex",
        "set use-coredump-filter off",
        "-ex",
        "set dump-excluded-mappings on",
    ]);
    gdb.arg("-ex").arg(format!("generate-core-file {}", file.display()));
    let outcome = run(gdb.current_dir(world.root()));
    let bytes = fs::read(&file).unwrap_or_else(|_| panic!("{}{}", outcome.out, outcome.err));
    fs::remove_file(&file).unwrap();
    Piece { place: format!("{pid}: core file"), bytes }
}

/// The memory that even root can't read from outside: code in the process itself writes it to a file.
pub fn secret_memory(debugger: &Debugger, world: &World) -> Piece {
    let pid = world.pid();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let line = maps.lines().find(|line| line.contains("secretmem")).expect("a slab of secret memory");
    let (start, end, _) = range(line);
    let file = world.data().join("slab");
    let open = Call::new(
        libc::SYS_openat,
        serde_json::json!([libc::AT_FDCWD, file, libc::O_RDWR | libc::O_CREAT | libc::O_EXCL, 0o600]),
    );
    let Came::Done(descriptor) = debugger.calls(world, pid, &[pid], &[open])[0][0] else {
        panic!("not opened")
    };
    let write = Call::new(libc::SYS_pwrite64, serde_json::json!([descriptor, start, end - start, 0]));
    let close = Call::new(libc::SYS_close, serde_json::json!([descriptor]));
    let came = debugger.calls(world, pid, &[pid], &[write, close]);
    assert_eq!(came[0][0], Came::Done((end - start).cast_signed()), "all of it was written");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    Piece { place: format!("{pid}: {line}"), bytes }
}

/// One form of a secret.
pub struct Form {
    name: String,
    finder: Finder<'static>,
}

/// The forms in which `secret` could lie in memory.
pub fn forms(name: &str, secret: &[u8]) -> Vec<Form> {
    let mut forms = vec![("raw", secret.to_vec())];
    for (form, bytes) in [("hex", HEXLOWER.encode(secret)), ("HEX", HEXUPPER.encode(secret))] {
        forms.push((form, bytes.into_bytes()));
    }
    for shift in 0..3 {
        for (form, encoding) in [("base64", &BASE64), ("base64url", &BASE64URL)] {
            let text = encoding.encode(&[&[0; 3][..shift], secret].concat());
            // the characters that depend on nothing but the secret
            let (first, last) = ((shift * 8).div_ceil(6), (shift + secret.len()) * 8 / 6);
            forms.push((form, text.as_bytes()[first..last].to_vec()));
        }
    }
    if let Ok(text) = std::str::from_utf8(secret) {
        forms.push(("UTF-16LE", text.encode_utf16().flat_map(u16::to_le_bytes).collect()));
        forms.push(("UTF-16BE", text.encode_utf16().flat_map(u16::to_be_bytes).collect()));
        let json = serde_json::to_string(text).unwrap();
        let inside = json.trim_matches('"').to_owned();
        forms.push(("JSON", inside.clone().into_bytes()));
        forms.push(("JSON with slashes", inside.replace('/', "\\/").into_bytes()));
        forms.push(("JSON in ASCII", ascii(&inside, false).into_bytes()));
        forms.push(("JSON in ASCII, upper case", ascii(&inside, true).into_bytes()));
    }
    forms
        .into_iter()
        .map(|(form, bytes)| Form {
            name: format!("{name} {form}"),
            finder: Finder::new(&bytes).into_owned(),
        })
        .collect()
}

/// What is not ASCII as `\u` escapes.
fn ascii(text: &str, upper: bool) -> String {
    text.chars()
        .map(|character| {
            if character.is_ascii() {
                return character.to_string();
            }
            let units = character.encode_utf16(&mut [0; 2]).to_vec();
            let escape = |unit: &u16| if upper { format!("\\u{unit:04X}") } else { format!("\\u{unit:04x}") };
            units.iter().map(escape).collect()
        })
        .collect()
}

/// Where which form was found.
pub fn found(forms: &[Form], pieces: &[Piece]) -> Vec<String> {
    let mut places = Vec::new();
    for piece in pieces {
        for form in forms {
            let hits: Vec<usize> = form.finder.find_iter(&piece.bytes).collect();
            if !hits.is_empty() {
                let at = hits[0];
                let around = &piece.bytes[at.saturating_sub(96)..(at + 96).min(piece.bytes.len())];
                let around: String =
                    around.iter().map(|b| if b.is_ascii_graphic() { *b as char } else { '.' }).collect();
                places.push(format!("{} in {}, at {hits:x?}: {around}", form.name, piece.place));
            }
        }
    }
    places
}
