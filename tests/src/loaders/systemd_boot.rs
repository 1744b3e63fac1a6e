//! systemd-boot, <https://systemd.io/BOOT_LOADER_INTERFACE/> and `src/boot/boot.c` of systemd: `LoaderEntryOneShot` is removed as
//! soon as it was read; it and `LoaderEntryDefault` count only where they name an entry that is there; else the first entry of the
//! list starts, which has the newest version first. A file in `EFI/Linux` that is no program is no entry. An image that the firmware
//! refuses to load ends the loader: it tries nothing else and returns to the firmware, which goes on to its next boot entry.

use std::io;

use bank_format::{Bank, efi::VarStore as _};

use super::{Board, Start, firmware, plain, text_of};
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

pub(super) fn start(board: &Board) -> Start {
    for _ in 0..firmware::starts_of_systemd_boot(board) {
        let Some(bank) = chosen(board) else { return board.nothing() };
        if !board.refused(bank) {
            return plain(bank);
        }
    }
    Start::Nothing
}

/// The bank whose image this start of the loader asks for.
fn chosen(board: &Board) -> Option<Bank> {
    let mut variables = board.storage.variables();
    let one_shot = read(&variables, "LoaderEntryOneShot");
    if one_shot.is_some() {
        let _gone = variables.remove("LoaderEntryOneShot", VENDOR);
    }
    for name in [one_shot, read(&variables, "LoaderEntryDefault")].into_iter().flatten() {
        if let Some(bank) = entry(board, &name) {
            return Some(bank);
        }
    }
    // The recovery entry's sort key puts it behind those of the banks.
    Bank::BOTH.into_iter().filter(|bank| board.loadable(*bank)).max_by_key(|bank| {
        // Names are compared downwards as well, so that B is first where both versions are the same.
        (version_of(&board.storage, *bank), *bank)
    })
}
