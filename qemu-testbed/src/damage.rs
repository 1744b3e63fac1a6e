//! Rot: what the table of scenarios damages, done to the disk and the variables of a machine that is off.
//!
//! Fault model: bytes that change while nobody writes. A wiped beginning is how an image looks that was lost or half-written; a
//! garbled initrd is a boot image that still starts, and whose kernel dies before the first line of ours has run.

use bank_format::{Bank, loader::Kind, record::COPY_BYTES};
use boot_hooks::scenarios::Damage;

use crate::{
    disk::{self, Extent},
    error::{Error, Result},
    machine::Machine,
    variables,
};

/// The beginning of an image that is wiped: as much as the agent wipes before it writes.
const WIPED_BYTES: u64 = 4096;
/// Magic of a file in a cpio archive of the kind that the kernel unpacks.
const CPIO: &[u8] = b"070701";
/// Where the name follows, behind 104 hexadecimal digits. Kernels have that magic among their own strings, so it takes the name of the
/// program that the kernel looks for.
const INIT_AT: usize = 110;
const INIT: &[u8] = b"init\0";
/// A copy of GRUB's state, with its line of checksum: docs/boot.md.
const GRUB_COPIES: [Extent; 2] = [Extent { offset: 0, bytes: 1536 }, Extent { offset: 4096, bytes: 1536 }];

/// Plays the damage.
pub fn play(machine: &mut Machine, kind: Kind, damage: Damage) -> Result<()> {
    let path = machine.disk();
    match damage {
        Damage::OneRecordCopy => garble(machine, record_copy(machine, 0)?),
        Damage::Record => {
            garble(machine, record_copy(machine, 0)?)?;
            garble(machine, record_copy(machine, 1)?)
        }
        Damage::OneLoaderCopy => match kind {
            Kind::Efi => variables::delete_existing(&machine.vars(), "BootNext"),
            Kind::SystemdBoot => variables::delete_existing(&machine.vars(), "LoaderEntryOneShot"),
            Kind::Grub => garble(machine, newer_grub_copy(machine)?),
            Kind::UBoot | Kind::Tryboot | Kind::Script => Err(not_here(kind)),
        },
        Damage::Loader => match kind {
            Kind::Efi | Kind::SystemdBoot => machine.forget_variables(),
            Kind::Grub => {
                garble(machine, grub_copy(machine, 0)?)?;
                garble(machine, grub_copy(machine, 1)?)
            }
            Kind::UBoot | Kind::Tryboot | Kind::Script => Err(not_here(kind)),
        },
        Damage::BootImage(bank) => {
            let image = boot_image(machine, kind, bank)?;
            disk::write(
                &path,
                image.offset,
                &vec![0; usize::try_from(WIPED_BYTES.min(image.bytes)).unwrap_or(0)],
            )
        }
        Damage::Kernel(bank) => {
            let image = boot_image(machine, kind, bank)?;
            let at = disk::find(&path, image, is_head_of_init, INIT_AT.saturating_add(INIT.len()))?;
            disk::write(&path, at, b"rotten")
        }
        Damage::RootImage(bank) => {
            let root = disk::partition(&path, &format!("root-{bank}"))?;
            disk::flip_bit(&path, root.offset.saturating_add(5_000_003))
        }
    }
}

/// Where the boot image of a bank lies on the disk.
pub fn boot_image(machine: &Machine, kind: Kind, bank: Bank) -> Result<Extent> {
    let path = machine.disk();
    match kind {
        Kind::Efi | Kind::Grub => disk::partition(&path, &format!("boot-{bank}")),
        Kind::SystemdBoot => disk::file_on_fat(&path, "esp", &format!("EFI/Linux/roro-{bank}.efi")),
        Kind::UBoot | Kind::Tryboot | Kind::Script => Err(not_here(kind)),
    }
}

/// The bytes of both copies of GRUB's state.
pub fn grub_copies(machine: &Machine) -> Result<[Extent; 2]> {
    Ok([grub_copy(machine, 0)?, grub_copy(machine, 1)?])
}

fn garble(machine: &Machine, extent: Extent) -> Result<()> {
    let path = machine.disk();
    let mut bytes = disk::read(&path, extent)?;
    for byte in &mut bytes {
        *byte ^= 0xa5;
    }
    disk::write(&path, extent.offset, &bytes)
}

fn record_copy(machine: &Machine, copy: u64) -> Result<Extent> {
    let record = disk::partition(&machine.disk(), "record")?;
    let bytes = COPY_BYTES as u64;
    Ok(Extent { offset: record.offset.saturating_add(copy.saturating_mul(bytes)), bytes })
}

fn grub_copy(machine: &Machine, copy: usize) -> Result<Extent> {
    let partition = disk::partition(&machine.disk(), "loader")?;
    let place = GRUB_COPIES.get(copy).copied().unwrap_or(Extent { offset: 0, bytes: 0 });
    Ok(Extent { offset: partition.offset.saturating_add(place.offset), bytes: place.bytes })
}

/// The copy of GRUB's state with the higher serial.
pub fn newer_grub_copy(machine: &Machine) -> Result<Extent> {
    let mut serials = Vec::new();
    for copy in 0..GRUB_COPIES.len() {
        let bytes = disk::read(&machine.disk(), grub_copy(machine, copy)?)?;
        let text = String::from_utf8_lossy(&bytes);
        let serial = text.lines().find_map(|line| line.strip_prefix("roro_serial="));
        serials.push(serial.and_then(|serial| serial.parse::<u64>().ok()).unwrap_or(0));
    }
    grub_copy(machine, usize::from(serials.last() > serials.first()))
}

fn is_head_of_init(window: &[u8]) -> bool {
    window.starts_with(CPIO)
        && window.ends_with(INIT)
        && window.get(CPIO.len()..INIT_AT).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}

fn not_here(kind: Kind) -> Error {
    Error::Unexpected {
        what: "a whole system".to_owned(),
        wanted: "efi, systemd-boot or grub".to_owned(),
        seen: kind.to_string(),
    }
}
