//! The vault's files, changed while no daemon ran: an error or every secret as it was, never fewer under success; but for
//! all of them put back to one earlier moment.
//!
//! The input is changes of six bytes: which file, what is done, a place of three bytes and a value. The vault is made
//! once a process, so its sealed bytes differ from run to run; where its parts lie does not.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    panic::{self, AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::LazyLock,
};

use keychain_auth::{
    name::{Attributes, Service, Target},
    policy::{decide_change, decide_query},
    secret::{Buffer, SecretValue},
    store::{Change, Names, PendingChange, Query, Selection, Store, StoreError, Vault, WriteItem},
};
use secrecy::ExposeSecret;
use tempfile::TempDir;

use super::Seen;
use crate::admitted::{admit, policy_for};

const FILES: [&str; 3] = ["vault.redb", "vault.key", "vault.head"];
const CHANGES: usize = 32;

/// The vault as it is, and an older state of each of its files.
struct States {
    now: [Vec<u8>; 3],
    older: [Vec<u8>; 3],
    values: Vec<String>,
    older_values: Vec<String>,
}

static STATES: LazyLock<States> = LazyLock::new(|| {
    let folder = private_folder();
    let files = || FILES.map(|name| fs::read(folder.path().join(name)).unwrap_or_default());
    let vault = Vault::open(folder.path()).expect("a new vault");
    write(&vault, 0..3);
    let older_values = values(&vault).expect("they are there");
    vault.close().expect("it closes");
    let older = files();
    let vault = Vault::open(folder.path()).expect("the same vault");
    write(&vault, 2..8);
    let values = values(&vault).expect("they are there");
    vault.close().expect("it closes");
    States { now: files(), older, values, older_values }
});

/// Whatever opens is whole, and a refusal says it without changing a file that it refused.
pub fn hold(changes: &[u8]) -> Seen {
    let states = &*STATES;
    let mut files = states.now.clone();
    for change in changes.as_chunks::<6>().0.iter().take(CHANGES) {
        apply(&mut files, *change);
    }
    let folder = private_folder();
    for (name, bytes) in FILES.iter().zip(&files) {
        // a file without a byte is one that is gone
        if !bytes.is_empty() {
            write_private(&folder.path().join(name), bytes);
        }
    }
    // redb's own checks of its pages are assertions: a panic is no success, and ends the daemon before it serves
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let vault = Vault::open(folder.path())?;
        values(&vault)
    }));
    panic::set_hook(hook);
    let Ok(Ok(found)) = opened else { return Seen::Refused };
    // the whole put back to one earlier moment is told by what the audit log knows, not by the files themselves
    let put_back = files[2] == states.older[2] && found == states.older_values;
    // and a key that is left alone is one that a crash left while a vault was made; the log tells the two apart as well
    let key_alone = files[0].is_empty() && files[2].is_empty() && found.is_empty();
    assert!(found == states.values || put_back || key_alone, "fewer or other secrets under success");
    Seen::Accepted
}

fn apply(files: &mut [Vec<u8>; 3], [file, how, low, middle, high, value]: [u8; 6]) {
    let which = usize::from(file) % files.len();
    let place = u32::from_le_bytes([low, middle, high, 0]) as usize;
    let older = &STATES.older[which];
    let bytes = &mut files[which];
    let at = place % bytes.len().max(1);
    match how % 6 {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= value),
        1 => bytes.truncate(at),
        2 => bytes.clone_from(older),
        // a page of zeros, of an older state, or of another place: what a disk gives that lost or swapped a write
        3 => bytes.iter_mut().skip(at & !0xfff).take(4096).for_each(|byte| *byte = 0),
        4 => {
            let page = at & !0xfff;
            if let Some(old) = older.get(page..(page + 4096).min(older.len())) {
                bytes.iter_mut().skip(page).zip(old).for_each(|(byte, old)| *byte = *old);
            }
        }
        _ => {
            let from = usize::from(value) << 12;
            let page = bytes.get(from..(from + 4096).min(bytes.len())).unwrap_or_default().to_vec();
            bytes.iter_mut().skip(at & !0xfff).zip(page).for_each(|(byte, other)| *byte = other);
        }
    }
}

fn private_folder() -> TempDir {
    let mode = fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().expect("a folder")
}

fn write_private(path: &Path, bytes: &[u8]) {
    let file = fs::File::options().create_new(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(bytes)).expect("a file of the vault");
}

fn service() -> Service {
    Service::parse("s").expect("a service")
}

fn write(vault: &Vault, numbers: std::ops::Range<u32>) {
    let item = |number: u32| WriteItem {
        target: Target::parse(&format!("target/{number}")).expect("a target"),
        value: SecretValue::from_buffer(Buffer::from(format!("value {number}").as_bytes())).expect("a value"),
    };
    let change = Change::Write {
        service: service(),
        items: numbers.map(item).collect(),
        attributes: Attributes::new(),
    };
    let policy = policy_for(&["s"]);
    let change = decide_change(&admit(&policy), change).expect("allowed");
    let record = Box::new(|_: &[Target]| b"a line".to_vec());
    let committed = vault.commit(vec![PendingChange { change, record }]).pop().expect("an outcome");
    assert!(committed.is_ok_and(|done| done.outbox().is_some()), "not written");
}

fn values(vault: &Vault) -> Result<Vec<String>, StoreError> {
    let policy = policy_for(&["s"]);
    let selection = Selection { service: service(), names: Names::All, filter: Attributes::new() };
    let query = decide_query(&admit(&policy), Query { selection, values: true }).expect("allowed");
    let answer = vault.read(query)?;
    let text = |value: &SecretValue| value.expose_secret().to_owned();
    Ok(answer.records().iter().filter_map(|record| record.value.as_ref().map(text)).collect())
}
