//! The queue of strangers that wait for approval: bounded, one for a path and hash, forgotten after a day.

use std::path::{Path, PathBuf};

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{
    document::{Policy, Standing},
    mask::mask_argument,
};
use crate::{
    digest::Digest,
    name::{Service, Target},
    wire::Action,
};

/// Most strangers that wait at once: what a person can look through.
pub const MAX_PENDING: usize = 128;
/// Most arguments of a command line that are kept.
const MAX_ARGUMENTS: usize = 32;
/// Most targets of the latest request that are kept; the others are counted.
const MAX_TARGETS: usize = 8;
/// Longest path that is kept, in bytes: PATH_MAX of Linux.
const MAX_PATH: usize = 4096;
/// How long a stranger waits after it was seen last.
const LIFETIME: SignedDuration = SignedDuration::from_hours(24);

/// A stranger's request, as the daemon saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The executable.
    pub path: PathBuf,
    /// The hash of its bytes.
    pub digest: Digest,
    /// The process.
    pub pid: u32,
    /// Its arguments.
    pub command_line: CommandLine,
    /// What it asked for, where its request could be read.
    pub action: Option<Action>,
    /// The namespace it asked for.
    pub service: Option<Service>,
    /// The names it asked for.
    pub targets: Vec<Target>,
    /// How often it was seen since the last time it was noted; the rest of this is of the latest time.
    pub times: u64,
}

/// Arguments as they may be shown and stored: masked when made, at most 32 of at most 64 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

/// A stranger that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    sighting: Sighting,
    targets_omitted: u64,
    count: u64,
    first_seen: Timestamp,
    last_seen: Timestamp,
}

/// The strangers that wait, the longest known first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PendingQueue(Vec<Pending>);

impl CommandLine {
    /// The arguments of a process, masked by [`mask_argument`]. What is beyond 32 arguments is left out.
    pub fn masked<'a>(arguments: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut shown = Vec::new();
        let mut previous = None;
        for argument in arguments.into_iter().take(MAX_ARGUMENTS) {
            let text = String::from_utf8_lossy(argument);
            shown.push(mask_argument(previous.as_deref(), &text));
            previous = Some(text);
        }
        Self(shown)
    }

    /// The arguments as they may be shown.
    pub fn arguments(&self) -> &[String] {
        &self.0
    }
}

impl Pending {
    /// The latest sighting; of its targets, the first 8.
    pub fn sighting(&self) -> &Sighting {
        &self.sighting
    }

    /// How many targets of the latest request are not among those kept.
    pub fn targets_omitted(&self) -> u64 {
        self.targets_omitted
    }

    /// How often it was seen.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// When it was seen first.
    pub fn first_seen(&self) -> Timestamp {
        self.first_seen
    }

    /// When it was seen last.
    pub fn last_seen(&self) -> Timestamp {
        self.last_seen
    }

    fn is(&self, path: &Path, digest: &Digest) -> bool {
        self.sighting.path == path && self.sighting.digest == *digest
    }
}

impl PendingQueue {
    /// Notes a stranger. A known one is counted, and its latest request kept; when 128 others wait, the one that was seen
    /// longest ago leaves. A path beyond PATH_MAX is not kept.
    pub fn record(&mut self, mut sighting: Sighting, now: Timestamp) {
        self.expire(now);
        if sighting.path.as_os_str().len() > MAX_PATH {
            return;
        }
        let targets_omitted = sighting.targets.len().saturating_sub(MAX_TARGETS) as u64;
        sighting.targets.truncate(MAX_TARGETS);
        let times = std::mem::replace(&mut sighting.times, 1);
        if let Some(known) = self.0.iter_mut().find(|known| known.is(&sighting.path, &sighting.digest)) {
            known.count = known.count.saturating_add(times);
            known.last_seen = now;
            known.targets_omitted = targets_omitted;
            known.sighting = sighting;
            return;
        }
        while self.0.len() >= MAX_PENDING {
            let oldest = self.0.iter().enumerate().min_by_key(|(_, pending)| pending.last_seen);
            let Some((index, _)) = oldest else { break };
            self.0.remove(index);
        }
        self.0.push(Pending { sighting, targets_omitted, count: times, first_seen: now, last_seen: now });
    }

    /// Forgets who was not seen for a day, or is from the future because the clock was wrong.
    pub fn expire(&mut self, now: Timestamp) {
        self.0.retain(|pending| now.duration_since(pending.last_seen).abs() <= LIFETIME);
    }

    /// Removes every stranger with this hash, or only the one at `path`. Returns how many.
    pub fn remove(&mut self, digest: &Digest, path: Option<&Path>) -> usize {
        let before = self.0.len();
        self.0.retain(|pending| {
            pending.sighting.digest != *digest || path.is_some_and(|path| pending.sighting.path != path)
        });
        before - self.0.len()
    }

    /// Removes whoever is no stranger any more: the policy of this moment recognises it.
    pub fn forget_registered(&mut self, policy: &Policy, now: Timestamp) {
        self.0.retain(|Pending { sighting, .. }| {
            !matches!(policy.recognise(&sighting.path, &sighting.digest, now), Standing::Registered(_))
        });
    }

    /// The strangers with this hash.
    pub fn with_digest(&self, digest: &Digest) -> impl Iterator<Item = &Pending> {
        self.0.iter().filter(move |pending| pending.sighting.digest == *digest)
    }

    /// The strangers, the longest known first.
    pub fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.0.iter()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads pending.json. None when it is not in the form that [`render`](Self::render) gives; limits are applied again.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let file: PendingJson = serde_json::from_slice(bytes).ok()?;
        let mut queue = Self::default();
        for line in file.pending.into_iter().take(MAX_PENDING) {
            let pending = Pending::from_json(line)?;
            if !queue.0.iter().any(|known| known.is(&pending.sighting.path, &pending.sighting.digest)) {
                queue.0.push(pending);
            }
        }
        Some(queue)
    }

    /// pending.json.
    pub fn render(&self) -> Vec<u8> {
        let file = PendingJson { pending: self.0.iter().map(Pending::to_json).collect() };
        // strings and numbers only: this can't fail
        let mut bytes = serde_json::to_vec_pretty(&file).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

#[derive(Serialize, Deserialize)]
struct PendingJson {
    pending: Vec<LineJson>,
}

#[derive(Serialize, Deserialize)]
struct LineJson {
    path: String,
    hash: String,
    pid: u32,
    command_line: Vec<String>,
    first_seen: String,
    last_seen: String,
    count: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    action: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(default)]
    targets: Vec<String>,
    #[serde(default, skip_serializing_if = "is_zero")]
    targets_omitted: u64,
}

// serde passes a reference
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Pending {
    fn to_json(&self) -> LineJson {
        let sighting = &self.sighting;
        LineJson {
            path: sighting.path.to_string_lossy().into_owned(),
            hash: sighting.digest.to_string(),
            pid: sighting.pid,
            command_line: sighting.command_line.0.clone(),
            first_seen: self.first_seen.to_string(),
            last_seen: self.last_seen.to_string(),
            count: self.count,
            action: sighting.action.map(|action| action.as_str().to_owned()),
            service: sighting.service.as_ref().map(Service::to_string),
            targets: sighting.targets.iter().map(Target::to_string).collect(),
            targets_omitted: self.targets_omitted,
        }
    }

    fn from_json(line: LineJson) -> Option<Self> {
        if line.path.len() > MAX_PATH || line.targets.len() > MAX_TARGETS {
            return None;
        }
        let action = |name: String| Action::ALL.into_iter().find(|action| action.as_str() == name);
        let service = |name: String| Service::parse(&name).ok();
        let sighting = Sighting {
            times: 1,
            path: PathBuf::from(line.path),
            digest: Digest::parse(&line.hash)?,
            pid: line.pid,
            command_line: CommandLine::masked(line.command_line.iter().map(String::as_bytes)),
            action: line.action.and_then(action),
            service: line.service.and_then(service),
            targets: line.targets.iter().map(|name| Target::parse(name).ok()).collect::<Option<_>>()?,
        };
        Some(Self {
            sighting,
            targets_omitted: line.targets_omitted,
            count: line.count,
            first_seen: line.first_seen.parse().ok()?,
            last_seen: line.last_seen.parse().ok()?,
        })
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
