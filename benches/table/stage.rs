//! A daemon with its store filled, the floor beside it, and the clients that ask both.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::{
    figures::Run,
    tools::{Link, compiled},
    world::{Entry, World},
};

/// The service that all secrets are in.
const SERVICE: &str = "bench";

/// Puts a program on a core of its own and becomes it.
const TASKSET: &str = "/usr/bin/taskset";

/// Clients run on the first core, daemon and floor on the second. Left alone, the scheduler puts two processes that
/// talk now on one core, now on two, and every figure jumps by a multiple between these.
fn on_core(core: usize) -> [String; 3] {
    [TASKSET.to_owned(), "-c".to_owned(), number_of(core).to_string()]
}

fn number_of(core: usize) -> usize {
    let allowed = sched_getaffinity(None).unwrap();
    let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
    let first = cores.next().unwrap();
    if core == 1 { cores.next().unwrap_or(first) } else { first }
}

/// Keeps the calling thread on that core.
pub fn stay_on_core(core: usize) {
    let mut only = CpuSet::new();
    only.set(number_of(core));
    sched_setaffinity(None, &only).unwrap();
}

/// Requests; each stands in a file that client and floor read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Read(usize),
    Prefix,
    Write(usize),
}

pub struct Stage {
    pub world: World,
    pub secrets: usize,
    pub client: PathBuf,
    pub large: PathBuf,
    pub stranger: PathBuf,
}

/// A process that ends with its guard.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    /// Starts a program and waits until it says that it is ready.
    pub fn ready(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }

    /// Starts a program that works beside.
    pub fn beside(command: &mut Command) -> Self {
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }
}

fn name(number: usize) -> String {
    format!("prod/p{:02}/KEY_{number:06}", number % 100)
}

impl Stage {
    /// A daemon, started with these arguments, with as many secrets, written through it.
    pub fn set(secrets: usize, large: usize, arguments: &[&str]) -> Self {
        let mut world = World::new();
        let small = compiled("../../benches/table/client.c", Link::Dynamic);
        let [client, padded, stranger] = ["client", "large", "stranger"].map(|name| {
            let path = world.root().join("bin").join(name);
            world.copy(&small, &path);
            path
        });
        // as long as a tool that carries its runtime with it
        OpenOptions::new().append(true).open(&padded).unwrap().write_all(&vec![0x5a; large]).unwrap();
        world.policy(&[Entry::all(&client, &[SERVICE]), Entry::all(&padded, &[SERVICE])]);
        world.start_through = on_core(1).to_vec();
        world.start_args = arguments.iter().map(|word| (*word).to_owned()).collect();
        world.start();
        let stage = Self { world, secrets, client, large: padded, stranger };
        let all: Vec<usize> = (0..secrets).collect();
        for numbers in all.chunks(1000) {
            stage.once(&stage.request(&write(numbers)));
        }
        stage
    }

    fn request(&self, text: &str) -> PathBuf {
        let path = self.world.tmp("request");
        self.world.write(&path, format!("{text}\n").as_bytes());
        path
    }

    /// The file of a request.
    pub fn file(&self, ask: Ask) -> PathBuf {
        // spread over the store, and none twice
        let step = |count: usize| (self.secrets / count).max(1);
        let spread =
            |count: usize| (0..count).map(|n| (n * step(count) + 77) % self.secrets).collect::<Vec<_>>();
        let text = match ask {
            Ask::Read(count) => {
                let names: Vec<String> = spread(count).into_iter().map(name).collect();
                format!(r#"{{"type":"REQUEST","action":"read","service":"{SERVICE}","targets":{names:?}}}"#)
            }
            Ask::Prefix => {
                // as many names as ten: those of one folder whose numbers begin alike
                let prefix = "prod/p07/KEY_000";
                format!(
                    r#"{{"type":"REQUEST","action":"search","service":"{SERVICE}","match":"prefix","targets":["{prefix}"]}}"#
                )
            }
            Ask::Write(count) => write(&spread(count)),
        };
        let path = self.world.tmp(&format!("{ask:?}").replace(['(', ')'], "-"));
        self.world.write(&path, format!("{text}\n").as_bytes());
        path
    }

    fn once(&self, request: &Path) -> Vec<u8> {
        run(self.command(&self.client, &self.world.socket(), "once", request))
    }

    /// The client `program` in the mode `how`, on the client's core.
    pub fn command(&self, program: &Path, socket: &Path, how: &str, request: &Path) -> Command {
        self.command_on(0, program, socket, how, request)
    }

    fn command_on(&self, core: usize, program: &Path, socket: &Path, how: &str, request: &Path) -> Command {
        let mut command = self.world.command(Path::new(TASKSET));
        command.args(&on_core(core)[1..]).arg(program).arg(socket).arg(how).arg(request);
        command
    }

    /// One run against the daemon.
    pub fn ours(&self, program: &Path, how: &str, ask: Ask, numbers: &[usize]) -> Run {
        self.ours_on(0, program, how, ask, numbers)
    }

    /// One run against the daemon by a client on this core.
    pub fn ours_on(&self, core: usize, program: &Path, how: &str, ask: Ask, numbers: &[usize]) -> Run {
        let mut command = self.command_on(core, program, &self.world.socket(), how, &self.file(ask));
        command.args(numbers.iter().map(ToString::to_string));
        Run::parse(&run(command))
    }

    /// One run against the floor, which answers what the daemon answers.
    pub fn floor_on(&self, core: usize, program: &Path, how: &str, ask: Ask, numbers: &[usize]) -> Run {
        let (request, reply, socket) =
            (self.file(ask), self.world.tmp("reply"), self.world.tmp("floor.sock"));
        self.world.write(&reply, &self.once(&request));
        let floor = compiled("../../benches/table/floor.c", Link::Dynamic);
        let place = self.world.root().join("bin/floor");
        if !place.exists() {
            self.world.copy(&floor, &place);
        }
        let _floor = {
            let mut floor = self.world.command(Path::new(TASKSET));
            Running::ready(floor.args(&on_core(1)[1..]).arg(&place).arg(&socket).arg(&reply))
        };
        let mut command = self.command_on(core, program, &socket, how, &request);
        command.args(numbers.iter().map(ToString::to_string));
        Run::parse(&run(command))
    }

    /// Resident memory of both processes, in KiB.
    pub fn resident(&self) -> u64 {
        [self.world.pid(), self.world.witness()].into_iter().map(|pid| number(pid, "VmRSS:")).sum()
    }

    /// How often any thread of both processes was woken.
    pub fn wakes(&self) -> u64 {
        let threads = |pid: u32| fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let all = threads(self.world.pid()).chain(threads(self.world.witness()));
        all.map(|thread| {
            let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
            field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:")
        })
        .sum()
    }
}

fn write(numbers: &[usize]) -> String {
    let names: Vec<String> = numbers.iter().copied().map(name).collect();
    let values: Vec<String> = numbers.iter().map(|number| format!("{number:026}")).collect();
    format!(
        r#"{{"type":"REQUEST","action":"write","service":"{SERVICE}","targets":{names:?},"values":{values:?}}}"#
    )
}

fn run(mut command: Command) -> Vec<u8> {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn number(pid: u32, name: &str) -> u64 {
    field(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap(), name)
}

fn field(status: &str, name: &str) -> u64 {
    optional(status, name).unwrap()
}

/// A number of a process's status file, where it has one.
pub fn optional(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
