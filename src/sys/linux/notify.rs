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

/// Says READY, if anybody asked to be told. A manager that does not listen is no reason not to serve.
pub fn ready(socket: Option<&OsStr>) {
    if let Some(socket) = socket
        && let Err(error) = send(socket)
    {
        tracing::warn!("the service manager could not be told that the daemon is ready: {error}");
    }
}

fn send(socket: &OsStr) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(socket)?,
    };
    UnixDatagram::unbound()?.send_to_addr(b"READY=1\n", &address).map(drop)
}
