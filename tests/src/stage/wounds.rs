//! What rots while the machine is off, byte by byte.

use bank_format::loader::Kind;
use boot_hooks::scenarios::Damage;

use super::{Machine, image::BLOCK_BYTES};
use crate::storage::{Contents, Place};

/// Bytes of one copy of the record.
const RECORD_COPY: usize = 32 << 10;
/// Where the sequence number stands in a copy of the record.
const SEQUENCE_AT: usize = 16;

impl Machine {
    /// Damages the storage. The machine must be off.
    pub fn damage(&mut self, damage: Damage) {
        self.note(format!("damage: {damage:?}"));
        let kind = self.kind;
        self.storage().rot(|contents| wound(contents, kind, damage));
        self.storage().begin_log();
    }
}

fn wound(contents: &mut Contents, kind: Kind, damage: Damage) {
    match damage {
        Damage::OneRecordCopy => {
            let bytes = bytes(contents, Place::Record);
            let newer = if sequence(bytes, RECORD_COPY) > sequence(bytes, 0) { RECORD_COPY } else { 0 };
            garble(bytes, newer);
        }
        Damage::Record => {
            let bytes = bytes(contents, Place::Record);
            garble(bytes, 0);
            garble(bytes, RECORD_COPY);
        }
        Damage::BootImage(bank) => {
            let bytes = bytes(contents, Place::Boot(bank));
            bytes.iter_mut().take(BLOCK_BYTES).for_each(|byte| *byte = 0);
        }
        Damage::Kernel(bank) => garble(bytes(contents, Place::Boot(bank)), BLOCK_BYTES),
        Damage::RootImage(bank) => garble(bytes(contents, Place::Root(bank)), BLOCK_BYTES),
        Damage::OneLoaderCopy => one_loader_copy(contents, kind),
        Damage::Loader => all_loader_state(contents, kind),
    }
}

fn bytes(contents: &mut Contents, place: Place) -> &mut Vec<u8> {
    contents.places.entry(place).or_default()
}

fn garble(bytes: &mut [u8], at: usize) {
    bytes.iter_mut().skip(at).take(64).for_each(|byte| *byte ^= 0x5a);
}

fn sequence(bytes: &[u8], copy: usize) -> u64 {
    let at = copy + SEQUENCE_AT;
    bytes.get(at..at + 8).unwrap_or_default().iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// The variable that decides the next boot goes first; where none is set, the one that decides all others.
fn one_loader_copy(contents: &mut Contents, kind: Kind) {
    let deciding: &[&str] = match kind {
        Kind::Efi => &["BootNext-", "BootOrder-"],
        Kind::SystemdBoot => &["LoaderEntryOneShot-", "LoaderEntryDefault-"],
        Kind::Grub | Kind::UBoot | Kind::Tryboot | Kind::Script => &[],
    };
    let known = |prefix: &&&str| contents.variables.keys().any(|key| key.starts_with(**prefix));
    let gone = deciding.iter().find(known).copied();
    contents.variables.retain(|key, _| !gone.is_some_and(|gone| key.starts_with(gone)));
}

fn all_loader_state(contents: &mut Contents, kind: Kind) {
    match kind {
        Kind::Efi | Kind::SystemdBoot => contents.variables.clear(),
        Kind::Grub | Kind::UBoot | Kind::Tryboot | Kind::Script => (),
    }
}
