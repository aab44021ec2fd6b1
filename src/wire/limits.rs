//! Every bound of the protocol, with its reason. Names and values have theirs where they are parsed:
//! [`crate::name`] and [`crate::secret`].

use std::time::Duration;

/// Longest line, in bytes without its end: 1,024 targets with short values, or a batch of 15 values of 64 KiB.
pub const MAX_LINE: usize = 1024 * 1024;
/// Most targets of one request: what one audit line can name and one transaction can hold without a pause.
pub const MAX_TARGETS: usize = 1024;
/// Longest reply, in bytes: the largest that the AgentSecrets client accepts.
pub const MAX_REPLY: usize = 10 * 1024 * 1024;

/// First line due after connect: a client that connects has something to say.
pub const FIRST_LINE: Duration = Duration::from_secs(10);
/// A stranger's silence after which it is told that it is one: a client that reads first must not hang.
pub const SILENT_STRANGER: Duration = Duration::from_secs(1);
/// A started line must finish in this time: slow writers may not hold buffers.
pub const LINE_FINISH: Duration = Duration::from_secs(10);
/// A reply must be taken in this time: clients that never read may not hold secrets in our buffers.
pub const REPLY_TAKEN: Duration = Duration::from_secs(10);
/// Silence after which a connection is closed.
pub const IDLE: Duration = Duration::from_secs(5 * 60);
/// How long a refused connection is read and thrown away, so that its writer can still read the reason.
pub const DRAIN: Duration = Duration::from_secs(1);

/// Most bytes of replies that wait to be taken by one executable, beyond which it gets no others: on 1,024 connections
/// they would be 10 GiB.
pub const MAX_UNTAKEN: usize = 64 * 1024 * 1024;

/// Most connections: each costs a descriptor here and two in the witness's hands while it looks.
pub const MAX_CONNECTIONS: usize = 2048;
/// Most connections of one registered executable: half of all, so that no tool can lock out the others.
pub const MAX_PER_REGISTERED: usize = 1024;
/// Most connections of one stranger's executable: it gets a refusal and nothing else on each.
pub const MAX_PER_STRANGER: usize = 64;
/// Most bytes of lines that are unfinished or not answered yet over all connections: 2,048 lines of 1 MiB would be 2 GiB,
/// and twice that while the witness looks at who wrote them.
pub const MAX_UNFINISHED: usize = 64 * 1024 * 1024;
