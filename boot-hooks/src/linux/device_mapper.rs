//! Device-mapper through `/dev/mapper/control`: create, load one table, resume.
//!
//! Source: `include/uapi/linux/dm-ioctl.h` of Linux; interface version 4.0.0, which every kernel since 2.6 serves.

use std::{
    fs::OpenOptions,
    io,
    os::fd::{AsRawFd, RawFd},
};

use nix::libc;

use super::Access;

const CONTROL: &str = "/dev/mapper/control";
const BUFFER_BYTES: usize = 4096;
const HEAD_BYTES: usize = size_of::<DmIoctl>();
const SPEC_BYTES: usize = size_of::<DmTargetSpec>();
const READ_ONLY: u32 = 1;

#[repr(C)]
#[derive(Clone, Copy)]
struct DmIoctl {
    version: [u32; 3],
    data_size: u32,
    data_start: u32,
    target_count: u32,
    open_count: i32,
    flags: u32,
    event_nr: u32,
    padding: u32,
    dev: u64,
    name: [u8; 128],
    uuid: [u8; 129],
    data: [u8; 7],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct DmTargetSpec {
    sector_start: u64,
    length: u64,
    status: i32,
    next: u32,
    target_type: [u8; 16],
}

/// What the kernel reads and writes: the head and room for one table.
#[repr(C, align(8))]
struct Message {
    head: DmIoctl,
    body: [u8; BUFFER_BYTES],
}

/// Request codes of `linux/dm-ioctl.h`.
mod calls {
    use super::DmIoctl;

    nix::ioctl_readwrite!(dm_dev_create, 0xfd, 3, DmIoctl);
    nix::ioctl_readwrite!(dm_dev_remove, 0xfd, 4, DmIoctl);
    nix::ioctl_readwrite!(dm_dev_suspend, 0xfd, 6, DmIoctl);
    nix::ioctl_readwrite!(dm_table_load, 0xfd, 9, DmIoctl);
}

type Call = unsafe fn(RawFd, *mut DmIoctl) -> nix::Result<libc::c_int>;

/// A mapped device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// A device to be made, with one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// Its name among the mapped devices.
    pub name: &'a str,
    /// What tells it from others.
    pub uuid: &'a str,
    /// Kind of target.
    pub target: &'a str,
    /// Length in sectors of 512 bytes.
    pub sectors: u64,
    /// Parameters of the target.
    pub table: &'a str,
    /// Whether it can be written.
    pub access: Access,
}

/// Makes a device. On an error nothing is left behind.
pub fn create(wanted: Wanted<'_>) -> io::Result<Mapped> {
    let Wanted { name, uuid, target, sectors, table, access } = wanted;
    let flags = match access {
        Access::ReadOnly => READ_ONLY,
        Access::ReadWrite => 0,
    };
    let control = OpenOptions::new().read(true).write(true).open(CONTROL)?;
    let fd = control.as_raw_fd();
    let mut create = Message::new(name)?;
    put(&mut create.head.uuid, uuid)?;
    create.head.flags = flags;
    let device = create.send(fd, calls::dm_dev_create)?;
    match load_and_resume(fd, name, flags, |load| load.put_table(target, sectors, table)) {
        Ok(()) => Ok(device),
        Err(error) => {
            // The first error is the one to report; a device that stays behind has no table and serves nobody.
            let _removed = Message::new(name).and_then(|mut remove| remove.send(fd, calls::dm_dev_remove));
            Err(error)
        }
    }
}

fn load_and_resume(
    fd: RawFd,
    name: &str,
    flags: u32,
    put_table: impl FnOnce(&mut Message) -> io::Result<()>,
) -> io::Result<()> {
    let mut load = Message::new(name)?;
    load.head.flags = flags;
    put_table(&mut load)?;
    load.send(fd, calls::dm_table_load)?;
    let mut resume = Message::new(name)?;
    resume.head.flags = flags;
    resume.send(fd, calls::dm_dev_suspend)?;
    Ok(())
}

impl Message {
    fn new(name: &str) -> io::Result<Box<Self>> {
        let mut head = DmIoctl {
            version: [4, 0, 0],
            data_size: (HEAD_BYTES + BUFFER_BYTES) as u32,
            data_start: HEAD_BYTES as u32,
            target_count: 0,
            open_count: 0,
            flags: 0,
            event_nr: 0,
            padding: 0,
            dev: 0,
            name: [0; 128],
            uuid: [0; 129],
            data: [0; 7],
        };
        put(&mut head.name, name)?;
        Ok(Box::new(Self { head, body: [0; BUFFER_BYTES] }))
    }

    fn put_table(&mut self, target: &str, sectors: u64, table: &str) -> io::Result<()> {
        self.head.target_count = 1;
        let mut kind = [0; 16];
        put(&mut kind, target)?;
        let spec_bytes = [
            0u64.to_ne_bytes().as_slice(),
            &sectors.to_ne_bytes(),
            &0i32.to_ne_bytes(),
            &0u32.to_ne_bytes(),
            &kind,
        ]
        .concat();
        let (spec, parameters) = self.body.split_at_mut(SPEC_BYTES);
        spec.copy_from_slice(&spec_bytes);
        put(parameters, table)
    }

    fn send(&mut self, fd: RawFd, call: Call) -> io::Result<Mapped> {
        let message: *mut Self = self;
        // SAFETY: the pointer is to the whole message, whose `data_size` is its true size and whose head comes first
        // (`repr(C)`); the kernel reads and writes within `data_size` bytes; nothing else borrows it during the call.
        unsafe { call(fd, message.cast::<DmIoctl>()) }?;
        // Linux writes device numbers of this interface as `new_encode_dev` (`include/linux/kdev_t.h`).
        let dev = self.head.dev;
        let minor = (dev & 0xff) | ((dev >> 12) & 0xf_ff00);
        Ok(Mapped { major: ((dev >> 8) & 0xfff) as u32, minor: minor as u32 })
    }
}

/// Copies text into a zeroed field, leaving its last byte zero.
fn put(field: &mut [u8], text: &str) -> io::Result<()> {
    match field.split_last_mut().and_then(|(_zero, room)| room.get_mut(..text.len())) {
        Some(place) => {
            place.copy_from_slice(text.as_bytes());
            Ok(())
        }
        None => Err(io::Error::new(io::ErrorKind::InvalidInput, "name or table too long for device-mapper")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_is_the_kernels() {
        assert_eq!((HEAD_BYTES, SPEC_BYTES), (312, 40));
        assert_eq!(std::mem::offset_of!(Message, body), 312);
        assert_eq!(std::mem::offset_of!(DmIoctl, dev), 40);
        assert_eq!(std::mem::offset_of!(DmIoctl, uuid), 176);
    }

    #[test]
    fn too_long_is_an_error() {
        assert!(Message::new(&"x".repeat(128)).is_err());
        let mut message = Message::new("root").unwrap();
        assert!(message.put_table("verity", 8, &"1".repeat(BUFFER_BYTES)).is_err());
        message.put_table("verity", 8, "1 254:3").unwrap();
        assert_eq!(&message.body[SPEC_BYTES..SPEC_BYTES + 8], b"1 254:3\0");
    }
}
