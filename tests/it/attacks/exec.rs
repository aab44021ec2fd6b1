//! Becoming the registered tool by execve while a sibling keeps the socket.

use super::{Arena, MARKER, Named, naive::Trust, run};
use crate::{cage::older_kernels::lacking, tools::Link};

/// How often each race is run against the daemon.
const RUNS: usize = 100;

fn race(link: Link, how: &str, order: &str) {
    race_in(Arena::new(link), how, order);
}

fn race_in(mut arena: Arena, how: &str, order: &str) {
    let attacker = arena.attacker("exec_race");
    let socket = arena.world.socket();
    // an exec with the wanted descriptor closed may also be seen as the change of executable, or as a writer who
    // is not the one that connected; each of these checks is enough
    let details = [
        "descriptor_inherited",
        "foreign_sender",
        "executable_changed",
        "peer_gone",
        "unreadable_peer",
        "reason:unregistered_binary_pending_approval",
    ];
    // the moment decides whether it is the tool already
    let named = [Named::Tool, Named::At(attacker.clone())];
    arena.play(Trust::Path, &details, &named, |arena| {
        let (tool, runs) = (arena.tool.to_str().unwrap(), RUNS.to_string());
        let request = Arena::request();
        run(arena, &attacker, &[socket.to_str().unwrap(), tool, how, order, &runs, &request]).out
    });
    let attempts = arena.world.audit().iter().filter(|record| record["result"] == "DENIED").count();
    assert!(attempts >= RUNS, "{attempts} of {RUNS} attempts are in the audit log");
    let leaked = arena.world.audit().iter().any(|record| record.to_string().contains(MARKER));
    assert!(!leaked, "the secret is in the audit log");
}

macro_rules! races {
    ($($name:ident: $how:literal, $order:literal;)*) => {$(
        mod $name {
            #[test]
            fn by_a_dynamic_tool() {
                super::race(crate::tools::Link::Dynamic, $how, $order);
            }

            #[test]
            fn by_a_static_tool() {
                super::race(crate::tools::Link::Static, $how, $order);
            }
        }
    )*};
}

races! {
    exec_after_send_leaks_nothing_to_a_sibling: "plain", "send-first";
    exec_after_send_with_cloexec_leaks_nothing_to_a_sibling: "cloexec", "send-first";
    exec_after_send_leaks_nothing_to_a_sibling_that_shares_memory: "vm", "send-first";
    exec_after_send_with_cloexec_leaks_nothing_to_a_sibling_that_shares_memory: "vm-cloexec", "send-first";
    exec_after_send_leaks_nothing_to_a_sibling_that_shares_descriptors: "files", "send-first";
    exec_after_send_with_cloexec_leaks_nothing_to_a_sibling_that_shares_descriptors: "files-cloexec", "send-first";
    exec_before_send_leaks_nothing_to_a_sibling: "plain", "exec-first";
    exec_before_send_with_cloexec_leaks_nothing_to_a_sibling: "cloexec", "exec-first";
    exec_before_send_leaks_nothing_to_a_sibling_that_shares_memory: "vm", "exec-first";
    exec_before_send_with_cloexec_leaks_nothing_to_a_sibling_that_shares_memory: "vm-cloexec", "exec-first";
    exec_before_send_leaks_nothing_to_a_sibling_that_shares_descriptors: "files", "exec-first";
    exec_before_send_with_cloexec_leaks_nothing_to_a_sibling_that_shares_descriptors: "files-cloexec", "exec-first";
}

/// Without SO_PEERPIDFD the address space pins the caller, and that is enough against these.
#[test]
fn exec_leaks_nothing_to_a_sibling_where_the_kernel_gives_no_handle_on_the_caller() {
    for order in ["send-first", "exec-first"] {
        let arena = Arena::in_world(lacking(&["peerpidfd"], "enforce"), Link::Static);
        race_in(arena, "cloexec", order);
    }
}
