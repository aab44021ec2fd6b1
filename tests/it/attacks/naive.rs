//! The foil: a daemon that believes SO_PEERCRED and /proc/P/exe, as the earlier system did.
//!
//! Each attack is played against it first and must succeed there. Otherwise a broken attacker would look like a
//! good defence.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::json;

use super::MARKER;
use crate::{
    tools,
    world::{World, is_root, ordinary_uid},
};

/// What the foil compares.
#[derive(Debug, Clone, Copy)]
pub enum Trust {
    /// The path that /proc/P/exe reads as, without " (deleted)".
    Path,
    /// The hash of what /proc/P/exe opens.
    Hash,
}

pub struct Naive {
    socket: PathBuf,
    stop: Arc<AtomicBool>,
    server: Option<JoinHandle<()>>,
}

impl Naive {
    /// Listens where the world's daemon would, and gives the marker to whoever looks like `tool`.
    pub fn start(world: &World, tool: &Path, trust: Trust) -> Self {
        let socket = world.socket();
        world.folder(socket.parent().unwrap(), 0o700);
        let _ = fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        if is_root() {
            std::os::unix::fs::chown(&socket, Some(ordinary_uid()), None).unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, tool, hash) = (Arc::clone(&stop), tool.to_owned(), tools::hash_of(tool));
        let server = thread::spawn(move || {
            for client in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                let (client, tool, hash) = (client.unwrap(), tool.clone(), hash.clone());
                thread::spawn(move || serve(client, &tool, &hash, trust));
            }
        });
        Self { socket, stop, server: Some(server) }
    }
}

impl Drop for Naive {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = UnixStream::connect(&self.socket);
        if let Some(server) = self.server.take() {
            let _ = server.join();
        }
        let _ = fs::remove_file(&self.socket);
    }
}

fn serve(client: UnixStream, tool: &Path, hash: &str, trust: Trust) {
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut lines = BufReader::new(client);
    let mut line = String::new();
    while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
        // the moment between the request and the look, in which an attacker runs on
        thread::sleep(Duration::from_millis(2));
        let peer = rustix::net::sockopt::socket_peercred(lines.get_ref()).unwrap();
        let exe = PathBuf::from(format!("/proc/{}/exe", peer.pid.as_raw_nonzero()));
        let known = match trust {
            Trust::Path => fs::read_link(&exe).is_ok_and(|path| {
                path.to_string_lossy().trim_end_matches(" (deleted)") == tool.to_string_lossy()
            }),
            Trust::Hash => exe.exists() && tools::hash_of(&exe) == hash,
        };
        let reply = if known {
            json!({"type": "RESPONSE", "status": "success", "results": [{"target": "k", "value": MARKER}]})
        } else {
            json!({"type": "RESPONSE", "status": "denied"})
        };
        if lines.get_mut().write_all(format!("{reply}\n").as_bytes()).is_err() {
            return;
        }
        line.clear();
    }
}
