//! systemd-boot, <https://systemd.io/BOOT_LOADER_INTERFACE/> and `src/boot/boot.c` of systemd: `LoaderEntryOneShot` is removed as
//! soon as it was read; it and `LoaderEntryDefault` count only where they name an entry that is there; else the first entry of the
//! list starts, which has the newest version first. A file in `EFI/Linux` that is no program is no entry. What there is it lists in
//! `LoaderEntries`, anew at each start. An image that the firmware refuses to load ends the loader: it tries nothing else and returns
//! to the firmware, which goes on to its next boot entry.

use std::io;

use bank_format::{Bank, efi::VarStore as _};

use super::{Board, Recovery, Start, firmware, plain, text_of};
use crate::{stage::image::version_of, storage::Variables};

const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

fn read(variables: &Variables, name: &str) -> Option<String> {
    let value = variables.read(name, VENDOR).map_err(io::Error::from).ok().flatten()?;
    Some(text_of(&value))
}

fn entry(board: &Board, name: &str) -> Option<Bank> {
    let bank = match name {
        "roro-a.efi" => Bank::A,
        "roro-b.efi" => Bank::B,
        _ => return None,
    };
    board.loadable(bank).then_some(bank)
}

/// Its own name, as an integrator may choose it.
const RECOVERY: &str = "roro-recovery.conf";

fn list(board: &Board, variables: &mut Variables) {
    let banks = [("roro-a.efi", Bank::A), ("roro-b.efi", Bank::B)].into_iter();
    let mut names: Vec<&str> =
        banks.filter(|(_, bank)| board.loadable(*bank)).map(|(name, _)| name).collect();
    names.extend((board.recovery == Recovery::Configured).then_some(RECOVERY));
    let units = names.iter().flat_map(|name| name.encode_utf16().chain([0]));
    let value: Vec<u8> = units.flat_map(u16::to_le_bytes).collect();
    let known = variables.read("LoaderEntries", VENDOR).map_err(io::Error::from).ok().flatten();
    if known.as_deref() != Some(&value[..]) {
        let _written = variables.write("LoaderEntries", VENDOR, &value);
    }
}

pub(super) fn start(board: &Board) -> Start {
    for _ in 0..firmware::starts_of_systemd_boot(board) {
        match chosen(board) {
            Start::Bank { bank, .. } if board.refused(bank) => (),
            start @ (Start::Bank { .. } | Start::Recovery | Start::Nothing) => return start,
        }
    }
    Start::Nothing
}

/// What this start of the loader asks the firmware for.
fn chosen(board: &Board) -> Start {
    let mut variables = board.storage.variables();
    list(board, &mut variables);
    let one_shot = read(&variables, "LoaderEntryOneShot");
    if one_shot.is_some() {
        let _gone = variables.remove("LoaderEntryOneShot", VENDOR);
    }
    if one_shot.as_deref() == Some(RECOVERY) && board.recovery == Recovery::Configured {
        return Start::Recovery;
    }
    for name in [one_shot, read(&variables, "LoaderEntryDefault")].into_iter().flatten() {
        if let Some(bank) = entry(board, &name) {
            return plain(bank);
        }
    }
    // The recovery entry's sort key puts it behind those of the banks.
    let newest = Bank::BOTH.into_iter().filter(|bank| board.loadable(*bank)).max_by_key(|bank| {
        // Names are compared downwards as well, so that B is first where both versions are the same.
        (version_of(&board.storage, *bank), *bank)
    });
    newest.map_or_else(|| board.nothing(), plain)
}
