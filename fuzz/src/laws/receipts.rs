//! Receipts of audit records, from a real log: there is no other way to get one.

use std::cell::RefCell;

use jiff::Timestamp;
use keychain_auth::{
    audit::{Action, Event, Log, Outcome, Receipt, Rotation},
    chain::Head,
    store::{OutboxEntry, Seat},
    wire,
};
use tempfile::TempDir;

/// Records after which the log begins anew, so that a long run does not fill the disk.
const RECORDS: u32 = 20_000;

struct Ledger {
    log: Log,
    left: u32,
    /// The lines of changes that it has.
    lines: u64,
    // removed with its content
    _folder: TempDir,
}

thread_local! {
    static LEDGER: RefCell<Option<Ledger>> = const { RefCell::new(None) };
}

/// The receipt of a request's record.
pub(super) fn receipt(outcome: Outcome) -> Receipt {
    let event = Event {
        timestamp: Timestamp::UNIX_EPOCH,
        action: Action::Request(wire::Action::Read),
        pid: 1,
        binary_path: "/opt/tool".into(),
        binary_hash: None,
        service: None,
        targets: Vec::new(),
        outcome,
        reason: None,
        detail: None,
        uid: 1,
        count: None,
    };
    with_log(|Ledger { log, .. }| log.append(&event).expect("the log takes a record"))
}

/// The receipt of a committed change. Many stores share the log, so its line gets a number of the log's own, which takes
/// no line behind one that is missing.
pub(super) fn logged(entry: &OutboxEntry) -> Receipt {
    with_log(|Ledger { log, lines, .. }| {
        *lines += 1;
        let entry = OutboxEntry { id: *lines, line: entry.line.clone() };
        let receipt = log.append_rendered(&entry).expect("the log takes a committed line");
        receipt.expect("it is not in the log yet")
    })
}

fn with_log(append: impl FnOnce(&mut Ledger) -> Receipt) -> Receipt {
    LEDGER.with_borrow_mut(|ledger| {
        if ledger.as_ref().is_none_or(|ledger| ledger.left == 0) {
            *ledger = None;
        }
        let ledger = ledger.get_or_insert_with(|| {
            let folder = tempfile::Builder::new().prefix("laws-").tempdir().expect("a folder");
            let log = Log::open(
                &folder.path().join("audit/audit.log"),
                Seat::nowhere(),
                &Head::default(),
                Rotation::default(),
            )
            .expect("a log");
            Ledger { log, left: RECORDS, lines: 0, _folder: folder }
        });
        ledger.left -= 1;
        append(ledger)
    })
}
