//! A change of config.json is seen and recorded at once, also while nobody asks. An idle daemon never wakes.

use std::{fs, os::fd::OwnedFd, rc::Rc, time::Duration};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::{io::Interest, time::sleep};

use super::house::House;
use crate::{paths::Paths, sys::readiness::watch};

/// How long after the first sign the file is read: an editor changes it in several steps.
const SETTLE: Duration = Duration::from_millis(100);

/// Asks the kernel to tell of changes in the policy's folder, and in that of its target where it is a link. Called before
/// the filesystem is taken away.
///
/// None where the kernel has no room for it: a change is then seen with the next request.
pub(super) fn signs(paths: &Paths) -> Option<OwnedFd> {
    let events = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
    let what = WatchFlags::CLOSE_WRITE
        | WatchFlags::MOVED_TO
        | WatchFlags::MOVED_FROM
        | WatchFlags::DELETE
        | WatchFlags::ATTRIB
        | WatchFlags::ONLYDIR;
    inotify::add_watch(&events, &paths.config_dir, what).ok()?;
    let real = fs::canonicalize(paths.config()).ok();
    if let Some(folder) = real.as_deref().and_then(std::path::Path::parent) {
        // the same folder again is the same watch
        let _ = inotify::add_watch(&events, folder, what);
    }
    Some(events)
}

/// Looks at the policy whenever there is a sign.
pub(super) async fn watch_policy(signs: OwnedFd, house: Rc<House>) {
    let Ok(signs) = watch(signs, Interest::READABLE) else { return };
    let mut bytes = [0; 4096];
    loop {
        let Ok(mut ready) = signs.readable().await else { return };
        // what it says does not matter, only that there is something
        while rustix::io::read(&signs, &mut bytes).is_ok_and(|count| count > 0) {}
        ready.clear_ready();
        sleep(SETTLE).await;
        let _ = house.policy().await;
    }
}
