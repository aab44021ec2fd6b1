//! A debugger of root that makes system calls inside the daemon, on a thread of its choice.

use std::{fs, path::PathBuf, process::Command};

use serde_json::{Value, json};

use crate::{
    skip::{need, skip},
    world::{World, is_root, run},
};

/// One call.
#[derive(Debug, Clone)]
pub struct Call(Value);

impl Call {
    /// The system call of that number. Its arguments are numbers, paths, or lists of bytes to which a pointer is passed.
    pub fn new(number: i64, args: Value) -> Self {
        Self(json!({"number": number, "args": args}))
    }

    /// A function of the C library.
    pub fn function(name: &str, args: Value) -> Self {
        Self(json!({"number": name, "args": args}))
    }

    /// Machine code, put over a function that is not needed any more.
    pub fn code(code: &[u8]) -> Self {
        Self(json!({"number": "getppid", "args": [], "code": code}))
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// It was made.
    Done(i64),
    /// The kernel or Landlock refused it.
    Errno(i32),
    /// The filter caught the call of this number: the signal that ends the process was on its way.
    Trapped(i64),
    /// The process is over.
    Over,
}

/// A small debugger in Python, which asks for root.
pub struct Debugger(PathBuf);

impl Debugger {
    /// None, and the test is skipped, where there is no Python or no root.
    pub fn new() -> Option<Self> {
        if !is_root() {
            skip("only root may debug a process that is closed to its own user");
            return None;
        }
        need("python3").map(Self)
    }

    /// Makes the calls on each of `threads` of `pid`, in order. A call that the filter catches is undone, so that the
    /// next can be made.
    #[track_caller]
    pub fn calls(&self, world: &World, pid: u32, threads: &[u32], calls: &[Call]) -> Vec<Vec<Came>> {
        let all = threads.iter().flat_map(|thread| calls.iter().map(|call| (*thread, call.clone())));
        let came = self.run(world, pid, false, &all.collect::<Vec<_>>());
        came.chunks(calls.len()).map(<[Came]>::to_vec).collect()
    }

    /// Makes calls one after the other, and lets them have their consequences. Those that the process survives must
    /// have been done.
    #[track_caller]
    pub fn fatal_calls(&self, world: &World, pid: u32, thread: u32, calls: &[Call]) {
        let all: Vec<_> = calls.iter().map(|call| (thread, call.clone())).collect();
        let mut came = self.run(world, pid, true, &all);
        came.pop_if(|last| *last == Came::Over);
        assert!(
            came.len() < calls.len() && came.iter().all(|came| matches!(came, Came::Done(_))),
            "{came:?}"
        );
    }

    #[track_caller]
    fn run(&self, world: &World, pid: u32, deliver: bool, calls: &[(u32, Call)]) -> Vec<Came> {
        let lines: String = calls
            .iter()
            .map(|(thread, call)| {
                let mut line = call.0.clone();
                line["thread"] = json!(thread);
                format!("{line}\n")
            })
            .collect();
        let file = world.tmp(&format!("calls-{pid}"));
        fs::write(&file, lines).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/cage/inside.py");
        let mut python = Command::new(&self.0);
        python.args(["-I", script, &pid.to_string()]);
        python.env("CALLS", &file).env("DELIVER", if deliver { "1" } else { "0" });
        let outcome = run(python.current_dir(world.root()));
        let answers = outcome.out.lines().filter(|line| line.starts_with('{'));
        let came: Vec<Came> = answers.map(|line| came(&serde_json::from_str(line).unwrap())).collect();
        assert!(
            outcome.code == Some(0) && (deliver || came.len() == calls.len()),
            "not all calls were made: {}{}",
            outcome.out,
            outcome.err
        );
        came
    }
}

fn came(answer: &Value) -> Came {
    let number = |name: &str| answer[name].as_i64();
    match (number("result"), number("errno"), number("trapped")) {
        (Some(result), None, None) => Came::Done(result),
        (None, Some(errno), None) => Came::Errno(errno.try_into().unwrap()),
        (None, None, Some(trapped)) => Came::Trapped(trapped),
        _ if answer.get("ended").is_some() => Came::Over,
        _ => panic!("an answer of another kind: {answer}"),
    }
}
