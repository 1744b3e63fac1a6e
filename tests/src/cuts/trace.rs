//! The name of a state: `FLOW/LOADER[/TROUBLE]/CUT/CUT...`.

use std::{fmt, str::FromStr};

use bank_format::loader::Kind;

use crate::storage::{At, Cut, Fault, What};

/// How a state came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// What was done.
    pub flow: String,
    /// With which loader.
    pub kind: Kind,
    /// What went wrong meanwhile, besides the power.
    pub trouble: Option<Trouble>,
    /// When the power went, then when it went while the machine recovered, and so on.
    pub cuts: Vec<Cut>,
}

/// What goes wrong besides the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// `read5x1`: the sixth read fails, once. Likewise `write`, `room`, `flush`.
    Fault(Fault),
    /// `killed7`: the process is killed after seven deeds, and the command given again.
    Killed(usize),
    /// `lies`: the disk says that it has flushed, and has not.
    Lies,
}

const FAULTS: [(What, &str); 4] =
    [(What::Read, "read"), (What::Write, "write"), (What::Room, "room"), (What::Flush, "flush")];

impl Trace {
    /// Without a cut.
    #[must_use]
    pub fn of(flow: &str, kind: Kind) -> Self {
        Self { flow: flow.into(), kind, trouble: None, cuts: Vec::new() }
    }

    /// In this trouble.
    #[must_use]
    pub fn in_trouble(self, trouble: Trouble) -> Self {
        Self { trouble: Some(trouble), ..self }
    }

    /// And then this one.
    #[must_use]
    pub fn with(&self, cut: &Cut) -> Self {
        let cuts = self.cuts.iter().chain([cut]).cloned().collect();
        Self { cuts, ..self.clone() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fault(Fault { what, after, times, .. }) => {
                let word = FAULTS.iter().find(|(known, _)| known == what).map_or("?", |(_, word)| *word);
                write!(f, "{word}{after}x{times}")
            }
            Self::Killed(deeds) => write!(f, "killed{deeds}"),
            Self::Lies => f.write_str("lies"),
        }
    }
}

impl FromStr for Trouble {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no trouble");
        if text == "lies" {
            return Ok(Self::Lies);
        }
        if let Some(deeds) = text.strip_prefix("killed") {
            return Ok(Self::Killed(deeds.parse().map_err(|_| wrong())?));
        }
        let known = FAULTS.iter().find_map(|(what, word)| Some((*what, text.strip_prefix(word)?)));
        let (what, numbers) = known.ok_or_else(wrong)?;
        let (after, times) = numbers.split_once('x').ok_or_else(wrong)?;
        let number = |text: &str| text.parse().map_err(|_| wrong());
        Ok(Self::Fault(Fault { what, at: At::Everywhere, after: number(after)?, times: number(times)? }))
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.flow, self.kind)?;
        if let Some(trouble) = self.trouble {
            write!(f, "/{trouble}")?;
        }
        self.cuts.iter().try_for_each(|cut| write!(f, "/{cut}"))
    }
}

impl FromStr for Trace {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/').peekable();
        let flow = parts.next().unwrap_or_default().to_owned();
        let kind = parts.next().unwrap_or_default();
        let known = Kind::ALL.into_iter().find(|known| known.to_string() == kind);
        let kind = known.ok_or_else(|| format!("{kind:?} is no loader"))?;
        let trouble = parts.next_if(|part| part.starts_with(|first: char| first.is_ascii_lowercase()));
        let trouble = trouble.map(str::parse).transpose()?;
        Ok(Self { flow, kind, trouble, cuts: parts.map(str::parse).collect::<Result<_, _>>()? })
    }
}
