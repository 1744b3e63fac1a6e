//! What rots while the machine is off, byte by byte.

use bank_format::{Bank, loader::Kind};
use boot_hooks::scenarios::Damage;

use super::{Machine, image::BLOCK_BYTES};
use crate::{
    loaders::{UNSIGNED, UNSIGNED_AT, script},
    storage::{Contents, Place},
};

/// Bytes of one copy of the record.
const RECORD_COPY: usize = 32 << 10;
/// Where the sequence number stands in a copy of the record.
const SEQUENCE_AT: usize = 16;
/// Where the data of an environment begins.
const ENVIRONMENT_DATA_AT: usize = 5;

impl Machine {
    /// Damages the storage. The machine must be off.
    pub fn damage(&mut self, damage: Damage) {
        self.note(format!("damage: {damage:?}"));
        let kind = self.kind;
        self.storage().rot(|contents| wound(contents, kind, damage));
        self.storage().begin_log();
    }

    /// Makes the boot image of a bank one that firmware under Secure Boot refuses. The machine must be off.
    pub fn take_signature(&mut self, bank: Bank) {
        self.note(format!("the boot image of bank {bank} is not signed any more"));
        self.storage().rot(|contents| {
            let signed = contents.bytes_mut(Place::Boot(bank)).get_mut(UNSIGNED_AT);
            signed.into_iter().for_each(|byte| *byte = UNSIGNED);
        });
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
    contents.bytes_mut(place)
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
        Kind::Grub => {
            let newer = newer_grub_copy(contents);
            return garble(bytes(contents, Place::Loader), newer);
        }
        Kind::UBoot => {
            let newer = newer_environment(contents);
            return garble(bytes(contents, Place::Environment(newer)), ENVIRONMENT_DATA_AT);
        }
        Kind::Tryboot => return garble(bytes(contents, Place::Autoboot), 0),
        Kind::Script => &[script::KEY],
    };
    let known = |prefix: &&&str| contents.variables().keys().any(|key| key.starts_with(**prefix));
    let gone = deciding.iter().find(known).copied();
    contents.variables_mut().retain(|key, _| !gone.is_some_and(|gone| key.starts_with(gone)));
}

fn all_loader_state(contents: &mut Contents, kind: Kind) {
    match kind {
        Kind::Efi | Kind::SystemdBoot | Kind::Script => contents.variables_mut().clear(),
        // The whole partition, GRUB's own block and the index included.
        Kind::Grub => bytes(contents, Place::Loader).iter_mut().for_each(|byte| *byte ^= 0x5a),
        Kind::UBoot => {
            (0..2).for_each(|copy| garble(bytes(contents, Place::Environment(copy)), ENVIRONMENT_DATA_AT))
        }
        Kind::Tryboot => garble(bytes(contents, Place::Autoboot), 0),
    }
}

fn newer_grub_copy(contents: &Contents) -> usize {
    let loader = contents.bytes(Place::Loader);
    let serial = |at: usize| -> u32 {
        let text = String::from_utf8_lossy(loader.get(at..at + 1024).unwrap_or_default()).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix("roro_serial="));
        value.and_then(|value| value.parse().ok()).unwrap_or_default()
    };
    if serial(4096) > serial(0) { 4096 } else { 0 }
}

fn newer_environment(contents: &Contents) -> u8 {
    let serial = |copy| contents.bytes(Place::Environment(copy)).get(4).copied().unwrap_or_default();
    // Serials that differ by one: the newer one follows the older one, also from 255 to 0.
    u8::from(serial(1) == serial(0).wrapping_add(1))
}
