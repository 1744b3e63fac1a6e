//! The record during one boot: what it rules, the count before the attempt, and the reason afterwards.
//!
//! Knows no device: the medium is a parameter. It promises that a trial never goes on uncounted, and that a record which cannot be
//! used stops nothing that can be verified otherwise.

use std::{error::Error as StdError, fmt};

use bank_format::{
    Bank,
    barrier::{Barrier, holds},
    loader::Spare,
    record::{Loaded, Medium, Record, Store},
    rule::{self, BootAs, Decision},
};

use crate::error::{Error, Result, chain};

/// As what this boot goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Going {
    /// The confirmed bank.
    Confirmed,
    /// The confirmed bank, whose last boot did not end in order.
    AfterUncleanEnd,
    /// A trial.
    Trial,
    /// A bank that was confirmed once, for want of a better way.
    LastResort,
    /// There is no record yet; `updater settle` founds it.
    Unfounded,
    /// There is a record that cannot be used; nothing is known about this bank.
    Untracked,
}

impl Going {
    /// Whether each block of the root image is checked before it is used.
    #[must_use]
    pub fn checks_whole_image(self) -> bool {
        match self {
            Self::AfterUncleanEnd | Self::Trial | Self::LastResort | Self::Untracked => true,
            Self::Confirmed | Self::Unfounded => false,
        }
    }
}

impl fmt::Display for Going {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Confirmed | Self::AfterUncleanEnd => "confirmed",
            Self::Trial => "trial",
            Self::LastResort => "last-resort",
            Self::Unfounded | Self::Untracked => "untracked",
        })
    }
}

/// What the record rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ruling {
    /// Go on.
    Boot(Going),
    /// Point the loader at another bank, and reset.
    Redirect(Redirect, String),
    /// Stop with this message.
    Stop(String),
}

/// Where the loader is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// The bank that starts from now on.
    pub to: Bank,
    /// Whether the other one may take over.
    pub spare: Spare,
}

impl Redirect {
    fn by(record: &Record, to: Bank) -> Self {
        let spare = record.as_spare(!to);
        Self { to, spare }
    }
}

/// Whether the record limits how often a boot like this one may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counting {
    /// It was counted before it was tried.
    Counted,
    /// There is no record that can be written.
    Uncounted,
}

/// The record of this boot.
#[derive(Debug)]
pub struct Ledger<M> {
    standing_in: Bank,
    counting: Counting,
    tracked: Option<(Store<M>, Record)>,
}

impl<M: Medium> Ledger<M>
where
    M::Error: StdError + 'static,
{
    /// Reads the record, decides, and puts the count on stable storage. `gave_up` is the bank that the loader has given up on. The
    /// third value is for the console.
    pub fn open(
        medium: Result<M, M::Error>,
        standing_in: Bank,
        gave_up: Option<Bank>,
    ) -> Result<(Self, Ruling, Option<String>)> {
        let untracked = |going, warning: String| {
            let ledger = Self { standing_in, counting: Counting::Uncounted, tracked: None };
            Ok((ledger, Ruling::Boot(going), Some(warning)))
        };
        let opened = medium.map_err(|error| chain(&error));
        let (mut store, loaded) = match opened.and_then(|m| Store::open(m).map_err(|error| chain(&error))) {
            Ok(opened) => opened,
            Err(why) => return untracked(Going::Untracked, format!("going on without the record: {why}")),
        };
        let record = match loaded {
            Loaded::Record(record) => record,
            Loaded::Blank => return untracked(Going::Unfounded, "there is no record yet".into()),
            Loaded::Lost(why) => {
                return untracked(Going::Untracked, format!("both copies of the record are lost: {why}"));
            }
        };
        let (decision, next) = rule::decide(&record, standing_in, gave_up);
        let mut count = || store.commit(&next).map_err(|error| chain(&error));
        let committed = if holds(Barrier::CountedBeforeTried) { count() } else { Ok(()) };
        let ruling = match (decision, &committed) {
            (Decision::Boot(BootAs::Trial), Ok(())) => Ruling::Boot(Going::Trial),
            (Decision::Boot(BootAs::Trial), Err(why)) => {
                return Err(Error::NotCounted { detail: why.clone() });
            }
            (Decision::Boot(BootAs::Confirmed), _) => Ruling::Boot(Going::Confirmed),
            (Decision::Boot(BootAs::AfterUncleanEnd), _) => Ruling::Boot(Going::AfterUncleanEnd),
            (Decision::Boot(BootAs::LastResort), _) => Ruling::Boot(Going::LastResort),
            (Decision::Redirect { to, reason }, _) => Ruling::Redirect(Redirect::by(&next, to), reason),
            (Decision::Stop { reason }, _) => Ruling::Stop(reason),
        };
        let counting = if committed.is_ok() { Counting::Counted } else { Counting::Uncounted };
        let warning = committed.err().map(|why| format!("this boot is not counted: {why}"));
        Ok((Self { standing_in, counting, tracked: Some((store, next)) }, ruling, warning))
    }

    /// Whether this boot was counted.
    #[must_use]
    pub fn counting(&self) -> Counting {
        self.counting
    }

    /// The loader could not be told to go elsewhere. Whether this bank boots as last resort instead; that takes no other its place.
    pub fn stays(&mut self) -> Result<bool, String> {
        let Some((store, record)) = self.tracked.as_mut() else { return Ok(false) };
        let Some(next) = rule::stays(record, self.standing_in) else { return Ok(false) };
        store.commit(&next).map_err(|error| chain(&error))?;
        *record = next;
        Ok(true)
    }

    /// The root image of this bank is not what was installed. Where a better bank is known, it is the confirmed one from now on, and
    /// the loader is to be sent there; else nothing was written.
    pub fn image_is_rotten(&mut self, reason: &str) -> Result<Option<Redirect>, String> {
        let Some((store, record)) = self.tracked.as_mut() else { return Ok(None) };
        let Some(next) = rule::image_is_rotten(record, self.standing_in, reason) else { return Ok(None) };
        store.commit(&next).map_err(|error| chain(&error))?;
        *record = next;
        Ok(Some(Redirect::by(record, !self.standing_in)))
    }

    /// The same where the root image was proven good. Gives where the loader is to be sent where this is the stated end: here again, with its
    /// count begun anew.
    pub fn note_failure_behind_the_root(&mut self, reason: &str) -> Result<Option<Redirect>, String> {
        let Some((store, record)) = self.tracked.as_mut() else { return Ok(None) };
        let Some(next) = rule::failed_behind_the_root(record, self.standing_in, reason) else {
            return self.note_failure(reason).map(|()| None);
        };
        store.commit(&next).map_err(|error| chain(&error))?;
        *record = next;
        Ok(Some(Redirect::by(record, self.standing_in)))
    }

    /// Writes down why this boot ends here.
    pub fn note_failure(&mut self, reason: &str) -> Result<(), String> {
        let Some((store, record)) = self.tracked.as_mut() else { return Ok(()) };
        let next = rule::boot_failed(record, self.standing_in, reason);
        if next == *record {
            return Ok(());
        }
        store.commit(&next).map_err(|error| chain(&error))?;
        *record = next;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

    use bank_format::record::{BankState, COPY_BYTES, Purpose, RECORD_BYTES, Trial, TrialPhase};

    use super::*;

    /// A medium in memory. Faults: reads fail, or the write with this number and all later ones fail.
    #[derive(Clone, Default)]
    struct Memory(Rc<RefCell<State>>);
    #[derive(Default)]
    struct State {
        bytes: Vec<u8>,
        unreadable: bool,
        writes_left: Option<u32>,
        unflushed: bool,
    }

    impl Medium for Memory {
        type Error = std::io::Error;
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Self::Error> {
            let state = self.0.borrow();
            if state.unreadable {
                return Err(std::io::Error::other("drive is dead"));
            }
            buffer.copy_from_slice(&state.bytes[offset as usize..offset as usize + buffer.len()]);
            Ok(())
        }
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Self::Error> {
            let mut state = self.0.borrow_mut();
            if let Some(left) = state.writes_left.as_mut() {
                *left = left.checked_sub(1).ok_or_else(|| std::io::Error::other("write protected"))?;
            }
            state.bytes[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
            state.unflushed = true;
            Ok(())
        }
        fn flush(&mut self) -> Result<(), Self::Error> {
            self.0.borrow_mut().unflushed = false;
            Ok(())
        }
    }

    fn medium(record: Option<&Record>) -> Memory {
        let medium = Memory::default();
        medium.0.borrow_mut().bytes = vec![0; RECORD_BYTES];
        if let Some(record) = record {
            Store::open(medium.clone()).unwrap().0.commit(record).unwrap();
        }
        medium
    }

    fn on_trial() -> Record {
        let mut record = Record::founded_on(Bank::A, None, BTreeMap::new());
        record.banks.b.state = BankState::Written;
        record.trial = Some(Trial {
            bank: Bank::B,
            phase: TrialPhase::Armed,
            purpose: Purpose::Update,
            tries_left: 1,
            tries_made: 0,
            reason: None,
            extra: BTreeMap::new(),
        });
        record
    }

    fn stored(medium: &Memory) -> Record {
        assert!(!medium.0.borrow().unflushed);
        match Store::open(medium.clone()).unwrap().1 {
            Loaded::Record(record) => *record,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn trial_is_counted_on_the_medium_before_it_goes_on_and_blamed_when_it_fails() {
        let medium = medium(Some(&on_trial()));
        let (mut ledger, ruling, warning) = Ledger::open(Ok(medium.clone()), Bank::B, None).unwrap();
        assert_eq!((ruling, warning), (Ruling::Boot(Going::Trial), None));
        let trial = stored(&medium).trial.unwrap();
        assert_eq!((trial.phase, trial.tries_left, trial.tries_made), (TrialPhase::Started, 0, 1));
        ledger.note_failure("root image: data block 7 does not match its hash").unwrap();
        let record = stored(&medium);
        let trial = record.trial.unwrap();
        assert_eq!(trial.phase, TrialPhase::Failed);
        assert_eq!(trial.reason.unwrap(), "root image: data block 7 does not match its hash");
        assert_eq!(record.banks.b.state, BankState::Failed);
        let (_, ruling, _) = Ledger::open(Ok(medium), Bank::B, None).unwrap();
        assert_eq!(to(&ruling), Redirect { to: Bank::A, spare: Spare::Unbootable });
    }

    fn to(ruling: &Ruling) -> Redirect {
        match ruling {
            Ruling::Redirect(redirect, _) => *redirect,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rotten_image_makes_the_other_bank_the_confirmed_one_at_once() {
        let mut record = on_trial();
        record.trial = None;
        let alone = medium(Some(&record));
        let (mut ledger, _, _) = Ledger::open(Ok(alone.clone()), Bank::A, None).unwrap();
        assert_eq!(ledger.image_is_rotten("data block 7").unwrap(), None);
        assert_eq!(stored(&alone).confirmed, Bank::A);

        record.banks.b.state = BankState::Confirmed;
        let both = medium(Some(&record));
        let (mut ledger, ruling, _) = Ledger::open(Ok(both.clone()), Bank::A, None).unwrap();
        assert_eq!((ruling, ledger.counting()), (Ruling::Boot(Going::Confirmed), Counting::Counted));
        let sent = ledger.image_is_rotten("data block 7").unwrap().unwrap();
        assert_eq!(sent, Redirect { to: Bank::B, spare: Spare::Unbootable });
        let now = stored(&both);
        assert_eq!((now.confirmed, now.banks.a.state), (Bank::B, BankState::Failed));
        assert_eq!(now.last_result.unwrap().reason.unwrap(), "data block 7");
        assert_eq!(ledger.image_is_rotten("data block 8").unwrap(), None, "there is nothing better any more");
    }

    #[test]
    fn where_the_loader_cannot_be_told_a_bank_that_was_confirmed_once_stays() {
        let mut record = on_trial();
        let alone = medium(Some(&record));
        let (mut ledger, _, _) = Ledger::open(Ok(alone), Bank::B, None).unwrap();
        assert_eq!(ledger.stays(), Ok(false), "a trial");
        record.trial = None;
        record.banks.b.state = BankState::Confirmed;
        let both = medium(Some(&record));
        let (mut ledger, ruling, _) = Ledger::open(Ok(both.clone()), Bank::B, None).unwrap();
        assert_eq!(to(&ruling).to, Bank::A);
        assert_eq!(ledger.stays(), Ok(true));
        let now = stored(&both);
        assert_eq!((now.confirmed, now.banks.a.state, now.unclean), (Bank::A, BankState::Confirmed, true));
    }

    #[test]
    fn a_loader_that_has_given_up_is_heard() {
        let mut record = on_trial();
        record.trial = None;
        record.banks.b.state = BankState::Confirmed;
        let medium = medium(Some(&record));
        let (_, ruling, _) = Ledger::open(Ok(medium.clone()), Bank::B, None).unwrap();
        assert_eq!(to(&ruling), Redirect { to: Bank::A, spare: Spare::Bootable });
        let (_, ruling, _) = Ledger::open(Ok(medium), Bank::B, Some(Bank::A)).unwrap();
        assert_eq!(ruling, Ruling::Boot(Going::LastResort));
    }

    #[test]
    fn trial_that_cannot_be_counted_is_not_tried_but_the_confirmed_bank_boots() {
        let medium = medium(Some(&on_trial()));
        medium.0.borrow_mut().writes_left = Some(0);
        assert!(matches!(Ledger::open(Ok(medium.clone()), Bank::B, None), Err(Error::NotCounted { .. })));
        let (mut ledger, ruling, warning) = Ledger::open(Ok(medium), Bank::A, None).unwrap();
        assert_eq!(ruling, Ruling::Boot(Going::Confirmed));
        assert!(warning.unwrap().contains("write protected"));
        assert_eq!(ledger.counting(), Counting::Uncounted);
        assert!(ledger.note_failure("x").is_err(), "and nothing can be noted there either");
    }

    #[test]
    fn wrong_bank_is_redirected_until_the_bound_then_halts() {
        let mut record = on_trial();
        record.trial = None;
        let medium = medium(Some(&record));
        for _ in 0..bank_format::limits::MAX_REDIRECTS {
            let (_, ruling, _) = Ledger::open(Ok(medium.clone()), Bank::B, None).unwrap();
            assert_eq!(to(&ruling).to, Bank::A);
        }
        let (_, ruling, _) = Ledger::open(Ok(medium), Bank::B, None).unwrap();
        assert!(matches!(ruling, Ruling::Stop(_)));
    }

    #[test]
    fn without_a_usable_record_the_boot_goes_on_untracked() {
        let (mut ledger, ruling, _) = Ledger::open(Ok(medium(None)), Bank::A, None).unwrap();
        assert_eq!(ruling, Ruling::Boot(Going::Unfounded));
        ledger.note_failure("nobody to tell").unwrap();

        let torn = medium(Some(&on_trial()));
        for copy in 0..2 {
            torn.0.borrow_mut().bytes[copy * COPY_BYTES + 40] ^= 1;
        }
        let (_, ruling, warning) = Ledger::open(Ok(torn), Bank::A, None).unwrap();
        assert_eq!(ruling, Ruling::Boot(Going::Untracked));
        assert!(warning.unwrap().contains("lost"));

        let dead = medium(None);
        dead.0.borrow_mut().unreadable = true;
        let (_, ruling, warning) = Ledger::open(Ok(dead), Bank::A, None).unwrap();
        assert_eq!(ruling, Ruling::Boot(Going::Untracked));
        assert!(warning.unwrap().contains("cannot be read"));

        let absent = Err(std::io::Error::other("no such device"));
        let (_, ruling, _) = Ledger::<Memory>::open(absent, Bank::A, None).unwrap();
        assert_eq!(ruling, Ruling::Boot(Going::Untracked));
        assert!(Going::Untracked.checks_whole_image() && !Going::Confirmed.checks_whole_image());
    }
}
