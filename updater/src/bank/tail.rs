//! The tail of a bank, on the device: the chunk table of what lies in it, at the end of the partition, where there is room. It is a hint and
//! nothing more: whatever goes wrong with it costs bytes or time, and is no error.

use bank_format::{
    Bank, Digest256,
    index::ChunkTable,
    manifest::Image,
    tail::{self, HEAD_BYTES, Head},
};

use super::fill;
use crate::ports::{Access, BankDisk, Room};

/// The table in the tail of an image of a bank, and the root of the image that it is of. `known` is the root of what was installed there, if
/// that is on record: a tail of something else is none.
#[must_use]
pub fn table_in(
    disk: &dyn BankDisk,
    (bank, image): (Bank, &str),
    known: Option<Digest256>,
    most_bytes: u64,
) -> Option<(Head, ChunkTable)> {
    let Room::Fixed { bytes } = disk.room(bank, image).ok()? else { return None };
    let mut file = disk.open(bank, image, Access::Read).ok()?;
    let mut head = [0; HEAD_BYTES];
    let filled = fill(file.as_mut(), tail::head_offset(bytes)?, &mut head).ok()?;
    let head = tail::decode_head(&head).ok().filter(|_| filled == HEAD_BYTES)?;
    if known.is_some_and(|known| known != head.root) || u64::from(head.table_bytes) > most_bytes {
        return None;
    }
    let mut table = vec![0; head.table_bytes as usize];
    let filled = fill(file.as_mut(), head.table_offset(bytes)?, &mut table).ok()?;
    let table = head.table(table.get(..filled)?).ok()?;
    Some((head, table))
}

/// Takes back what the tail says, before the image changes.
pub(super) fn wipe(disk: &dyn BankDisk, bank: Bank, entry: &Image) {
    let wiped = || -> Option<()> {
        let Room::Fixed { bytes } = disk.room(bank, &entry.name).ok()? else { return None };
        // What lies there may be part of an image that is as large as the bank.
        let offset =
            tail::head_offset(bytes).filter(|offset| entry.bank_bytes().is_ok_and(|used| used <= *offset))?;
        let mut file = disk.open(bank, &entry.name, Access::Write).ok()?;
        let mut head = [0; HEAD_BYTES];
        fill(file.as_mut(), offset, &mut head).ok()?;
        tail::decode_head(&head).ok()?;
        // Without this flush the tail could outlive what it tells of. One that stays all the same is found out by the read-back.
        file.write_at(offset, &[0; HEAD_BYTES]).and_then(|()| file.flush()).ok()
    };
    let _ = wiped();
}

/// Writes the tail of an image that was read back, if it has room.
pub(super) fn write(disk: &dyn BankDisk, bank: Bank, entry: &Image, table: &ChunkTable) {
    let written = || -> Option<()> {
        let Room::Fixed { bytes } = disk.room(bank, &entry.name).ok()? else { return None };
        let table = table.encode();
        let place = tail::place(entry.bytes, entry.verity.tree, table.len() as u64, bytes).ok()??;
        let head = tail::encode_head(entry.verity.root, &table).ok()?;
        let mut file = disk.open(bank, &entry.name, Access::Write).ok()?;
        file.write_at(place.table_offset, &table).ok()?;
        file.write_at(place.head_offset, &head).ok()?;
        // Torn, it is no tail.
        file.flush().ok()
    };
    // A bank without a tail is a bank like any other.
    let _ = written();
}
