//! The boot manager of UEFI 2.10, 3.1.1 and 3.5.1.1: `BootNext` is removed before it is used, then `BootOrder`; what cannot be
//! started, or under Secure Boot is not signed, is passed over; when nothing of that starts, the removable path of each partition that has it, in their order.

use std::io;

use bank_format::{Bank, PerBank, efi::Partition};

use super::{Board, Start, plain, text_of};
use crate::storage::Variables;
use bank_format::efi::VarStore as _;

const VENDOR: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const ACTIVE: u8 = 1;
/// GUID of the partition with the recovery program.
const RECOVERY: [u8; 16] = [0xc; 16];

/// The partitions that hold the boot images.
#[must_use]
pub fn partitions() -> PerBank<Partition> {
    let partition =
        |number, first_lba, byte| Partition { number, first_lba, blocks: 98_304, guid: [byte; 16] };
    PerBank { a: partition(1, 2048, 0xa), b: partition(2, 100_352, 0xb) }
}

/// The partition that holds systemd-boot, on a disk that has one.
#[must_use]
pub fn esp() -> Partition {
    Partition { number: 1, first_lba: 2048, blocks: 196_608, guid: [0xe; 16] }
}

/// The partition with the recovery program.
#[must_use]
pub fn recovery_partition() -> Partition {
    Partition { number: 6, first_lba: 198_656, blocks: 98_304, guid: RECOVERY }
}

/// What an entry names.
enum Target {
    Bank(Bank),
    SystemdBoot,
    Recovery,
    Unknown,
}

/// `EFI_LOAD_OPTION`: attributes, length of the path, description, device path.
fn target(option: &[u8]) -> Option<Target> {
    let attributes = *option.first()?;
    if attributes & ACTIVE == 0 {
        return None;
    }
    let title_units = option.get(6..)?.chunks_exact(2).position(|unit| unit == [0, 0])?;
    let mut path = option.get(6 + 2 * (title_units + 1)..)?;
    let (mut guid, mut file) = (None, None);
    loop {
        let length = usize::from(*path.get(2)?) | usize::from(*path.get(3)?) << 8;
        let node = path.get(..length.max(4))?;
        match (node[0], node[1]) {
            (4, 1) => guid = node.get(24..40),
            (4, 4) => file = Some(text_of(node.get(4..)?)),
            (0x7f, 0xff) => break,
            (_, _) => return Some(Target::Unknown),
        }
        path = path.get(length.max(4)..)?;
    }
    if file.as_deref() != Some("\\EFI\\BOOT\\BOOTX64.EFI") {
        return Some(Target::Unknown);
    }
    let ours = partitions();
    let bank = Bank::BOTH.into_iter().find(|bank| guid == Some(&ours.get(*bank).guid[..]));
    Some(match bank {
        Some(bank) => Target::Bank(bank),
        None if guid == Some(&RECOVERY[..]) => Target::Recovery,
        None if guid == Some(&esp().guid[..]) => Target::SystemdBoot,
        None => Target::Unknown,
    })
}

fn read(variables: &Variables, name: &str) -> Option<Vec<u8>> {
    variables.read(name, VENDOR).map_err(io::Error::from).ok().flatten()
}

/// The targets that are tried, in their order.
fn attempts(board: &Board) -> Vec<Target> {
    let mut variables = board.storage.variables();
    let mut attempts = Vec::new();
    if let Some(next) = read(&variables, "BootNext") {
        let _gone = variables.remove("BootNext", VENDOR);
        attempts.extend(next.get(..2).map(<[u8]>::to_vec));
    }
    let order = read(&variables, "BootOrder").unwrap_or_default();
    attempts.extend(order.chunks_exact(2).map(<[u8]>::to_vec));
    let option = |entry: Vec<u8>| read(&variables, &format!("Boot{:02X}{:02X}", entry[1], entry[0]));
    attempts.into_iter().filter_map(option).filter_map(|option| target(&option)).collect()
}

/// How often systemd-boot is started when it returns each time: once for each entry that names it. Only where there is none the
/// firmware comes to it by the removable path.
pub(super) fn starts_of_systemd_boot(board: &Board) -> usize {
    let named = attempts(board).iter().filter(|target| matches!(target, Target::SystemdBoot)).count();
    named.max(1)
}

pub(super) fn start(board: &Board) -> Start {
    let starts = |bank: Bank| board.loadable(bank) && !board.refused(bank);
    for target in attempts(board) {
        match target {
            Target::Bank(bank) if starts(bank) => return plain(bank),
            Target::Recovery => return board.nothing(),
            Target::Bank(_) | Target::SystemdBoot | Target::Unknown => (),
        }
    }
    // The partition with the recovery program comes behind those of the banks.
    Bank::BOTH.into_iter().find(|bank| starts(*bank)).map_or_else(|| board.nothing(), plain)
}
