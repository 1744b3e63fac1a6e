//! The service manager, told how this process gets on: `sd_notify(3)`, a datagram to `NOTIFY_SOCKET`.
//!
//! A beat is sent only by who has just made progress, so that a gate that is stuck is noticed by the watchdog of its unit.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// Variables by which a service manager is found; programs that the agent starts are not given them.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// The service manager, or nobody.
#[derive(Debug, Default)]
pub struct Manager {
    socket: Option<UnixDatagram>,
}

impl Manager {
    /// Whom the environment names. A socket that cannot be reached is nobody: the unit's own timeout decides then.
    #[must_use]
    pub fn from_environment() -> Self {
        match env::var_os("NOTIFY_SOCKET") {
            Some(address) => Self { socket: connect(&address).ok() },
            None => Self::default(),
        }
    }

    /// The service has started.
    pub fn ready(&self) {
        self.say("READY=1\nSTATUS=the health gate has started");
    }

    /// Something was done, or waited for within its own deadline.
    pub fn beat(&self, status: &str) {
        let status = status.replace(['\n', '\0'], " ");
        self.say(&format!("WATCHDOG=1\nSTATUS={status}"));
    }

    fn say(&self, words: &str) {
        if let Some(socket) = &self.socket {
            // A manager that is too busy to listen must not hold up the gate.
            let _ = socket.send(words.as_bytes());
        }
    }
}

/// An address is a path, or begins with `@` where it stands in the abstract name space.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let bytes = address.as_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(address)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(listener: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let read = listener.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..read].to_vec()).unwrap()
    }

    #[test]
    fn both_kinds_of_address_are_reached() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        let manager = Manager { socket: connect(path.as_os_str()).ok() };
        manager.ready();
        assert!(heard(&listener).starts_with("READY=1\n"));
        manager.beat("one\ntwo");
        assert_eq!(heard(&listener), "WATCHDOG=1\nSTATUS=one two");

        let name = format!("roro-notify-{}", std::process::id());
        let listener =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name.as_bytes()).unwrap()).unwrap();
        let manager = Manager { socket: connect(OsStr::new(&format!("@{name}"))).ok() };
        manager.beat("x");
        assert_eq!(heard(&listener), "WATCHDOG=1\nSTATUS=x");
    }

    #[test]
    fn nobody_is_told_nothing_and_a_deaf_manager_holds_nobody_up() {
        Manager::default().beat("x");
        assert!(connect(OsStr::new("/nonexistent/socket")).is_err());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let manager = Manager { socket: connect(path.as_os_str()).ok() };
        for _ in 0..100_000 {
            manager.beat("x");
        }
    }
}
