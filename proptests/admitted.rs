//! A caller that passed every check, made through the public doors: facts, verdict, policy. Shared by the unit tests of
//! the store, the properties and the fuzz targets.

use std::collections::BTreeSet;

use jiff::Timestamp;
use keychain_auth::{
    caller::{Custody, Executable, Facts, FileKey, Namespace, Observer, Terms, VerifiedCaller, verify},
    digest::Digest,
    policy::{Admitted, Policy},
};

/// The path of the caller.
pub const PATH: &str = "/opt/tool";
/// The digest of the caller.
pub const DIGEST: Digest = Digest::new([7; 32]);

/// Facts in which nothing is wrong.
pub fn honest_facts() -> Facts {
    let key = FileKey { device: 1, inode: 2, size: 3, modified: 4, changed: 5 };
    let namespace = Namespace { device: 6, inode: 7 };
    Facts {
        pid: 8,
        uids: [9; 4],
        executable: Executable { path: PATH.into(), exact: true, deleted: false, key },
        digest: DIGEST,
        faithful_filesystem: true,
        custody: Custody::HeldCloseOnExec,
        executable_mapped: true,
        foreign_code: Vec::new(),
        tracer: 0,
        user_namespace: namespace,
        pid_namespace: namespace,
        mount_namespace: namespace,
        executable_stable: true,
        alive: true,
        pages: 10,
    }
}

/// The daemon that looks at [`honest_facts`].
pub fn observer() -> Observer {
    let namespace = Namespace { device: 6, inode: 7 };
    Observer { uid: 9, user_namespace: namespace, pid_namespace: namespace, mount_namespace: namespace }
}

/// The verified caller of [`honest_facts`].
pub fn caller() -> VerifiedCaller {
    let terms = Terms { relax: &BTreeSet::new(), libraries: &[] };
    verify(&honest_facts(), &observer(), terms).expect("nothing is wrong with these facts")
}

/// A policy with one entry for [`caller`], whose members besides path and hash are `members` (JSON without braces).
pub fn policy_with(members: &str) -> Policy {
    let entry = format!(r#"{{"path":"{PATH}","hash":"{DIGEST}",{members}}}"#);
    let document = format!(r#"{{"protocol_version":"1","registered_binaries":[{entry}]}}"#);
    Policy::parse(document.as_bytes()).expect("a policy that parses")
}

/// A policy in which [`caller`] may do everything in these services.
pub fn policy_for(services: &[&str]) -> Policy {
    let list = serde_json::to_string(services).expect("names are JSON");
    policy_with(&format!(
        r#""allowed_read_services":{list},"allowed_write_services":{list},"can_search":true"#
    ))
}

/// [`caller`], admitted.
pub fn admit(policy: &Policy) -> Admitted<'_> {
    policy.admit(&caller(), Timestamp::UNIX_EPOCH).expect("an entry for this caller")
}
