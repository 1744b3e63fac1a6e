//! The tail of a bank, on the device: the chunk table of what lies in it, at the end of the partition, where there is room. It is a hint and
//! nothing more: whatever goes wrong with it costs bytes or time, and is no error.

use bank_format::{
    Bank, Digest256,
    index::ChunkTable,
    manifest::Image,
    tail::{self, HEAD_BYTES, Head},
};

use super::fill;
use crate::ports::{Access, BankDisk, ImageFile, Room};

/// The table in the tail of an image of a bank, and the root of the image that it is of. `known` is the root of what was installed there, if
/// that is on record: a tail of something else is none.
#[must_use]
pub fn table_in(
    disk: &dyn BankDisk,
    bank: Bank,
    image: &str,
    known: Option<Digest256>,
) -> Option<(Head, ChunkTable)> {
    let Room::Fixed { bytes } = disk.room(bank, image).ok()? else { return None };
    let mut file = disk.open(bank, image, Access::Read).ok()?;
    let mut head = [0; HEAD_BYTES];
    let filled = fill(file.as_mut(), tail::head_offset(bytes)?, &mut head).ok()?;
    let head = tail::decode_head(&head).ok().filter(|_| filled == HEAD_BYTES)?;
    if known.is_some_and(|known| known != head.root) {
        return None;
    }
    let mut table = vec![0; head.table_bytes as usize];
    let filled = fill(file.as_mut(), head.table_offset(bytes)?, &mut table).ok()?;
    let table = head.table(table.get(..filled)?).ok()?;
    Some((head, table))
}

/// Takes back what the tail says.
pub(super) fn wipe(file: &mut dyn ImageFile, room: Room) {
    if let Room::Fixed { bytes } = room
        && let Some(offset) = tail::head_offset(bytes)
    {
        let mut head = [0; HEAD_BYTES];
        let is_there = fill(file, offset, &mut head).is_ok() && tail::decode_head(&head).is_ok();
        if is_there {
            // One that stays says something wrong, which the read-back finds out.
            let _ = file.write_at(offset, &[0; HEAD_BYTES]);
        }
    }
}

/// Writes the tail of an image, if it has room.
pub(super) fn write(file: &mut dyn ImageFile, room: Room, entry: &Image, table: &ChunkTable) {
    let Room::Fixed { bytes } = room else { return };
    let table = table.encode();
    let Ok(Some(place)) = tail::place(entry.bytes, entry.verity.tree, table.len() as u64, bytes) else {
        return;
    };
    let Ok(head) = tail::encode_head(entry.verity.root, &table) else { return };
    // A bank without a tail is a bank like any other.
    let _ = file.write_at(place.table_offset, &table).and_then(|()| file.write_at(place.head_offset, &head));
}
