//! Things that fail besides the power.

use std::io;

use super::Place;

/// What fails, where, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub what: What,
    /// Where.
    pub at: At,
    /// How often it goes well before.
    pub after: u32,
    /// How often it fails then.
    pub times: u32,
}

/// How something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum What {
    /// A read gives an error (EIO).
    Read,
    /// A write gives an error (EIO).
    Write,
    /// There is no room for a write (ENOSPC).
    Room,
    /// It is read-only (EROFS).
    ReadOnly,
    /// A flush gives an error (EIO); what it should have made safe is lost with the power.
    Flush,
    /// Reads give zeros, and say nothing.
    Zeros,
}

impl What {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Read, Self::Write, Self::Room, Self::ReadOnly, Self::Flush, Self::Zeros];

    fn asked(self) -> Asked {
        match self {
            Self::Read | Self::Zeros => Asked::Read,
            Self::Write | Self::Room | Self::ReadOnly => Asked::Write,
            Self::Flush => Asked::Flush,
        }
    }

    /// The number that Linux gives, on all its processors.
    fn error(self) -> Option<i32> {
        match self {
            Self::Read | Self::Write | Self::Flush => Some(5),
            Self::Room => Some(28),
            Self::ReadOnly => Some(30),
            Self::Zeros => None,
        }
    }
}

/// Where something fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// In every place, file and variable.
    Everywhere,
    /// In one place.
    Place(Place),
    /// In the files of the state directory.
    Files,
    /// In the firmware's variables.
    Variables,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Read,
    Write,
    Flush,
}

/// How a deed goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    Well,
    Zeros,
}

/// One deed; counts how often one has failed.
pub(super) fn ask(fault: &mut Option<Fault>, at: At, asked: Asked, fired: &mut u32) -> io::Result<Going> {
    let Some(fault) = fault else { return Ok(Going::Well) };
    if fault.what.asked() != asked || (fault.at != At::Everywhere && fault.at != at) {
        return Ok(Going::Well);
    }
    if fault.after > 0 {
        fault.after -= 1;
        return Ok(Going::Well);
    }
    let Some(left) = fault.times.checked_sub(1) else { return Ok(Going::Well) };
    fault.times = left;
    *fired += 1;
    match fault.what.error() {
        Some(number) => Err(io::Error::from_raw_os_error(number)),
        None => Ok(Going::Zeros),
    }
}
