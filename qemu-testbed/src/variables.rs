//! The variable store of OVMF from outside: a variable that goes away while the machine is off.
//!
//! Layout: `MdeModulePkg/Include/Guid/VariableFormat.h` of EDK II, `AUTHENTICATED_VARIABLE_HEADER`: a head of 60 bytes, then the
//! name in UTF-16. The store is NOR flash, where clearing one bit of the state is how the firmware itself deletes a variable.

use std::{fs, io, path::Path};

use crate::error::{Error, Result};

const START: [u8; 2] = [0xaa, 0x55];
const HEAD_BYTES: usize = 60;
const STATE_AT: usize = 2;
const NAME_BYTES_AT: usize = 36;
/// `VAR_ADDED`, and the same while its successor is written.
const LIVING: [u8; 2] = [0x3f, 0x3e];
/// The bit that says "not deleted".
const NOT_DELETED: u8 = 0x02;

/// Deletes the variable `name`; gives whether there was one.
pub fn delete(store: &Path, name: &str) -> Result<Found> {
    let mut bytes = fs::read(store).map_err(Error::io("read", store))?;
    let found = delete_in(&mut bytes, name);
    if found == Found::Yes {
        fs::write(store, &bytes).map_err(Error::io("write", store))?;
    }
    Ok(found)
}

/// Whether a variable was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// It was, and is gone.
    Yes,
    /// It was not.
    No,
}

/// As [`delete`], where there must be one.
pub fn delete_existing(store: &Path, name: &str) -> Result<()> {
    match delete(store, name)? {
        Found::Yes => Ok(()),
        Found::No => {
            let what = format!("no variable is called {name}");
            Err(Error::io("delete a variable of", store)(io::Error::new(io::ErrorKind::NotFound, what)))
        }
    }
}

fn delete_in(bytes: &mut [u8], name: &str) -> Found {
    let wanted: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    let mut found = Found::No;
    let heads: Vec<usize> = bytes
        .windows(HEAD_BYTES.saturating_add(wanted.len()))
        .enumerate()
        .filter(|(_, window)| is_living(window, &wanted))
        .map(|(at, _)| at)
        .collect();
    for at in heads {
        if let Some(state) = bytes.get_mut(at.saturating_add(STATE_AT)) {
            *state &= !NOT_DELETED;
            found = Found::Yes;
        }
    }
    found
}

fn is_living(window: &[u8], wanted: &[u8]) -> bool {
    let name_bytes = u32::try_from(wanted.len()).unwrap_or(u32::MAX).to_le_bytes();
    window.starts_with(&START)
        && window.get(STATE_AT).is_some_and(|state| LIVING.contains(state))
        && window.get(NAME_BYTES_AT..).is_some_and(|rest| rest.starts_with(&name_bytes))
        && window.ends_with(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_variable_of_that_name_is_deleted() {
        let head = |state: u8, name: &str| {
            let name: Vec<u8> = name.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
            let mut bytes = vec![0; HEAD_BYTES];
            bytes[..3].copy_from_slice(&[START[0], START[1], state]);
            bytes[NAME_BYTES_AT] = name.len() as u8;
            bytes.extend(name);
            bytes
        };
        let mut store = [head(0x3c, "BootNext"), head(0x3f, "BootNextX"), head(0x3f, "BootNext")].concat();
        let before = store.clone();
        assert_eq!(delete_in(&mut store, "BootNext"), Found::Yes);
        let changed: Vec<usize> = (0..store.len()).filter(|at| store[*at] != before[*at]).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!(store[changed[0]], 0x3d);
        assert_eq!(delete_in(&mut store, "BootNext"), Found::No);
    }
}
