//! Tells a service manager that the daemon serves: `READY=1` to the socket in `NOTIFY_SOCKET`, as sd_notify(3) does.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// A connected socket to the manager, made before the sandbox forbids sockets. None when nobody asked.
#[derive(Debug)]
pub struct Notice(Option<UnixDatagram>);

impl Notice {
    /// Connects to the manager's socket. A manager that does not listen is no reason not to serve.
    pub fn prepare(socket: Option<&OsStr>) -> Self {
        Self(socket.and_then(|socket| match connect(socket) {
            Ok(connected) => Some(connected),
            Err(error) => {
                tracing::warn!("the service manager can't be told that the daemon is ready: {error}");
                None
            }
        }))
    }

    /// Says READY.
    pub fn ready(self) {
        if let Some(socket) = self.0
            && let Err(error) = socket.send(b"READY=1\n")
        {
            tracing::warn!("the service manager was not told that the daemon is ready: {error}");
        }
    }
}

fn connect(socket: &OsStr) -> io::Result<UnixDatagram> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    let datagram = UnixDatagram::unbound()?;
    datagram.connect_addr(&address)?;
    Ok(datagram)
}
