//! Waiting for devices: the kernel's event socket, with a bound on every wait.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{
        AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
    },
};

/// Multicast group of the kernel's own events.
const KERNEL_EVENTS: u32 = 1;

/// The socket; without one, waiting is a plain pause.
#[derive(Debug)]
pub struct Events(Option<OwnedFd>);

impl Events {
    /// Listens from now on. Open before looking at the disks, else an event between the two is lost.
    #[must_use]
    pub fn listen() -> Self {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let opened = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkKObjectUEvent);
        Self(opened.ok().filter(|fd| bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_EVENTS)).is_ok()))
    }

    /// Waits, and listens to nothing.
    pub fn pause(time: Duration) {
        Self(None).wait(time);
    }

    /// Returns after the next events, or after `longest`.
    pub fn wait(&self, longest: Duration) {
        let timeout = PollTimeout::try_from(longest).unwrap_or(PollTimeout::ZERO);
        let Some(fd) = &self.0 else {
            let _elapsed = poll(&mut [], timeout);
            return;
        };
        let _ready = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout);
        let mut message = [0; 4096];
        while recv(fd.as_raw_fd(), &mut message, MsgFlags::empty()).is_ok_and(|bytes| bytes > 0) {}
    }
}
