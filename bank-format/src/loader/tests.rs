//! What all loaders promise, played on small models of them: told and done, torn at every write, never a panic.
//!
//! Fault model: a power cut leaves any leading or trailing part of a write, in sectors of 512 bytes; firmware variables are whole.
//! The models are those of `docs/boot.md`, "One behaviour"; the real loaders are judged in `qemu-testbed`.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{Firmware, Grub, Loader, RebootFlag, Recovery, Spare, SystemdBoot, Tryboot, UBoot, grub, uboot};
use crate::{
    Bank, Error, PerBank,
    efi::{self, Partition, VarStore},
    limits::LOADER_TRIES,
    record::Medium,
};

const SECTOR: usize = 512;
const ENV_BYTES: usize = 4096;

/// A disk that notes its writes.
#[derive(Debug, Clone, Default)]
struct Disk {
    bytes: Vec<u8>,
    log: Vec<(usize, Vec<u8>)>,
}

impl Disk {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, log: Vec::new() }
    }

    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..][..bytes.len()].copy_from_slice(bytes);
    }

    /// The disk at every moment of its noted writes.
    fn torn(&self, before: &Self) -> Vec<Self> {
        let mut disk = Self::new(before.bytes.clone());
        let mut states = vec![disk.clone()];
        for (offset, bytes) in &self.log {
            for at in (0..=bytes.len()).step_by(SECTOR) {
                for (offset, part) in [(*offset, &bytes[..at]), (*offset + at, &bytes[at..])] {
                    let mut torn = disk.clone();
                    torn.put(offset, part);
                    states.push(torn);
                }
            }
            disk.put(*offset, bytes);
        }
        states
    }
}

impl Medium for Disk {
    type Error = Error;
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        for (at, byte) in buffer.iter_mut().enumerate() {
            *byte = self.bytes.get(offset as usize + at).copied().unwrap_or(0);
        }
        Ok(())
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.put(offset as usize, bytes);
        self.log.push((offset as usize, bytes.to_vec()));
        Ok(())
    }
    fn flush(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// Firmware variables, and every state they went through.
#[derive(Debug, Clone, Default)]
struct Vars {
    now: BTreeMap<String, Vec<u8>>,
    log: Vec<BTreeMap<String, Vec<u8>>>,
}

impl Vars {
    fn take(&mut self, name: &str) -> Option<Vec<u8>> {
        self.now.remove(name)
    }
}

impl VarStore for Vars {
    type Error = Error;
    fn names(&self, _: &str) -> Result<Vec<String>, Error> {
        Ok(self.now.keys().cloned().collect())
    }
    fn read(&self, name: &str, _: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.now.get(name).cloned())
    }
    fn write(&mut self, name: &str, _: &str, value: &[u8]) -> Result<(), Error> {
        self.now.insert(name.to_owned(), value.to_vec());
        self.log.push(self.now.clone());
        Ok(())
    }
    fn remove(&mut self, name: &str, _: &str) -> Result<(), Error> {
        self.now.remove(name);
        self.log.push(self.now.clone());
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Deed {
    Next(Bank),
    Default(Bank, Spare),
    Redirect(Bank, Spare),
}

fn tell<L: Loader<Error: std::fmt::Debug>>(loader: &mut L, deed: Deed) -> Option<Bank> {
    match deed {
        Deed::Next(bank) => loader.set_next(bank).unwrap(),
        Deed::Default(first, spare) => loader.set_default(first, spare).unwrap(),
        Deed::Redirect(to, spare) => loader.redirect(to, spare).unwrap(),
    }
    loader.next().unwrap()
}

/// A machine with one loader.
trait Rig: Clone {
    /// Does the deed; gives what the loader names as the next bank, and every state in which the power may have gone.
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Self>);
    /// An orderly reboot.
    fn boot(&mut self) -> Bank;
    /// Power goes and comes.
    fn cut(&mut self) -> Bank {
        self.boot()
    }
}

#[derive(Clone)]
struct GrubRig(Disk);

impl Rig for GrubRig {
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Self>) {
        let before = Disk::new(self.0.bytes.clone());
        let mut loader = Grub::new(before.clone());
        let next = tell(&mut loader, deed);
        self.0 = loader.medium().clone();
        (next, self.0.torn(&before).into_iter().map(Self).collect())
    }
    fn boot(&mut self) -> Bank {
        let Some((serial, told)) = Grub::new(self.0.clone()).decision().unwrap() else { return Bank::A };
        let own = grub::decode_block(&self.0.bytes[8192..9216]);
        let of = |name: &str| -> Option<u32> {
            own.as_ref().ok()?.iter().find(|(key, _)| key == name)?.1.parse().ok()
        };
        let (mut left, mut tried) = (of("left").unwrap_or(LOADER_TRIES), of("tried") == Some(1));
        if of("serial") != Some(serial) {
            (left, tried) = (LOADER_TRIES, false);
        }
        let started = match told.next {
            grub::Next::Bank(next) if !tried && own.is_ok() => {
                tried = true;
                next
            }
            _ if left > 0 => {
                left -= 1;
                told.default
            }
            _ if told.spare == Spare::Bootable => !told.default,
            _ => told.default,
        };
        if own.is_ok() {
            let (serial, left) = (serial.to_string(), left.to_string());
            let noted = [("tried", if tried { "1" } else { "0" }), ("left", &left), ("serial", &serial)];
            self.0.put(8192, &grub::encode_block(noted).unwrap());
        }
        started
    }
}

#[derive(Clone)]
struct UBootRig([Disk; 2]);

impl Rig for UBootRig {
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Self>) {
        let before = self.0.clone().map(|disk| Disk::new(disk.bytes));
        let mut loader = UBoot::new(before.clone(), ENV_BYTES);
        let next = tell(&mut loader, deed);
        self.0 = loader.media().map(Disk::clone);
        assert!(self.0.iter().map(|disk| disk.log.len()).sum::<usize>() <= 1, "one copy, in one write");
        let mut states = Vec::new();
        for first in self.0[0].torn(&before[0]) {
            states.push(Self([first, before[1].clone()]));
        }
        for second in self.0[1].torn(&before[1]).into_iter().skip(1) {
            states.push(Self([self.0[0].clone(), second]));
        }
        (next, states)
    }
    fn boot(&mut self) -> Bank {
        let mut variables = UBoot::new(self.0.clone(), ENV_BYTES).variables().unwrap();
        let Some(order) = variables.get("BOOT_ORDER") else { return Bank::A };
        let order: Vec<Bank> = order.split(' ').map(|word| word.parse().unwrap()).collect();
        let left = |bank| -> u32 { variables.get(uboot::left_of_bank(bank)).unwrap().parse().unwrap() };
        let started = *order.iter().find(|bank| left(**bank) > 0).unwrap_or(&order[0]);
        let less = left(started).saturating_sub(1).to_string();
        variables.set(uboot::left_of_bank(started), &less);
        let serials = self.0.each_ref().map(|disk| uboot::decode_copy(&disk.bytes).map(|(serial, _)| serial));
        let (serial, older) = match serials {
            [Some(first), Some(second)] if second.wrapping_sub(first) == 1 => (second, 0),
            [Some(first), _] => (first, 1),
            [None, Some(second)] => (second, 0),
            [None, None] => (0, 0),
        };
        self.0[older] = Disk::new(variables.encode(ENV_BYTES, serial.wrapping_add(1)).unwrap());
        started
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flag(bool);

impl RebootFlag for Flag {
    type Error = Error;
    fn armed(&mut self) -> Result<bool, Error> {
        Ok(self.0)
    }
    fn arm(&mut self) -> Result<(), Error> {
        self.0 = true;
        Ok(())
    }
    fn disarm(&mut self) -> Result<(), Error> {
        self.0 = false;
        Ok(())
    }
}

const PARTITIONS: PerBank<u32> = PerBank { a: 2, b: 3 };

#[derive(Clone)]
struct TrybootRig(Disk, Flag);

impl TrybootRig {
    fn starts(&self, flag: Flag) -> Bank {
        let text = super::tryboot::Autoboot::parse(&self.0.bytes).unwrap();
        let partition = if flag.0 { text.tryboot_partition() } else { text.default_partition() };
        Bank::BOTH.into_iter().find(|bank| partition == Some(*PARTITIONS.get(*bank))).unwrap()
    }
}

impl Rig for TrybootRig {
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Self>) {
        let before = Disk::new(self.0.bytes.clone());
        let mut loader = Tryboot::new(before.clone(), SECTOR, PARTITIONS, self.1);
        let next = tell(&mut loader, deed);
        (self.0, self.1) = (loader.medium().clone(), *loader.flag());
        (next, self.0.torn(&before).into_iter().map(|disk| Self(disk, Flag(false))).collect())
    }
    fn boot(&mut self) -> Bank {
        let flag = std::mem::replace(&mut self.1, Flag(false));
        self.starts(flag)
    }
    fn cut(&mut self) -> Bank {
        self.1 = Flag(false);
        self.boot()
    }
}

fn partitions() -> PerBank<Partition> {
    let part = |number| Partition { number, first_lba: 2048, blocks: 98304, guid: [number as u8; 16] };
    PerBank { a: part(1), b: part(2) }
}

#[derive(Clone)]
struct FirmwareRig(Vars);

impl Rig for FirmwareRig {
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Self>) {
        self.0.log = vec![self.0.now.clone()];
        let mut loader = Firmware::new(self.0.clone(), partitions());
        let next = tell(&mut loader, deed);
        self.0 = loader.vars().clone();
        (next, self.0.log.iter().map(|now| Self(Vars { now: now.clone(), log: Vec::new() })).collect())
    }
    fn boot(&mut self) -> Bank {
        let order = efi::order(&self.0).unwrap();
        let next = self.0.take("BootNext").map(|value| efi::decode_order(&value).unwrap()[0]);
        let entry = next.unwrap_or_else(|| order[0]);
        let title = efi::title_of(&self.0.now[&efi::entry_name(entry)]).unwrap();
        Bank::BOTH.into_iter().find(|bank| efi::entry_title(*bank) == title).unwrap()
    }
}

#[derive(Clone)]
struct SystemdBootRig(Vars);

impl Rig for SystemdBootRig {
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Self>) {
        self.0.log = vec![self.0.now.clone()];
        let mut loader = SystemdBoot::new(self.0.clone());
        let next = tell(&mut loader, deed);
        self.0 = loader.vars().clone();
        (next, self.0.log.iter().map(|now| Self(Vars { now: now.clone(), log: Vec::new() })).collect())
    }
    fn boot(&mut self) -> Bank {
        let once = self.0.take("LoaderEntryOneShot");
        let default = self.0.now.get("LoaderEntryDefault").cloned();
        once.or(default).map_or(Bank::A, |value| super::bank_of_entry(&value).unwrap())
    }
}

fn grub_rig() -> GrubRig {
    GrubRig(Disk::new(Grub::factory(Bank::A).unwrap()))
}

fn uboot_rig() -> UBootRig {
    UBootRig([2, 1].map(|serial| Disk::new(UBoot::factory(Bank::A, ENV_BYTES, serial).unwrap())))
}

fn tryboot_rig() -> TrybootRig {
    TrybootRig(Disk::new(super::tryboot::Autoboot::new(2, 3).render(SECTOR).unwrap()), Flag(false))
}

fn firmware_rig() -> FirmwareRig {
    let mut rig = FirmwareRig(Vars::default());
    rig.play(Deed::Default(Bank::A, Spare::Unbootable));
    rig
}

fn systemd_boot_rig() -> SystemdBootRig {
    let mut rig = SystemdBootRig(Vars::default());
    rig.play(Deed::Default(Bank::A, Spare::Unbootable));
    rig
}

/// Whether anybody but the initrd counts the dead boots of the default bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Loader,
    Nobody,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// The bank that is not the default is tried: no other ever is.
    Try,
    Tell(Deed),
    Boot,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let bank = prop_oneof![Just(Bank::A), Just(Bank::B)];
    let spare = prop_oneof![Just(Spare::Bootable), Just(Spare::Unbootable)];
    let event = (bank, spare, 0..6).prop_map(|(bank, spare, which)| match which {
        0 => Event::Try,
        1 => Event::Tell(Deed::Redirect(bank, spare)),
        2 | 3 => Event::Tell(Deed::Default(bank, spare)),
        _ => Event::Boot,
    });
    proptest::collection::vec(event, 1..20)
}

/// Every deed is done, and wherever the power goes in it, the next boot is that of before or that of after.
fn check<R: Rig>(mut rig: R, events: &[Event], counts: Counts) {
    let mut default = Bank::A;
    for event in events {
        let deed = &match event {
            Event::Try => Deed::Next(!default),
            Event::Tell(deed) => *deed,
            Event::Boot => {
                rig.boot();
                continue;
            }
        };
        let before = rig.clone();
        let (named, torn) = rig.play(*deed);
        // A boot that was not settled may have left the loader on the spare: the bank that was told is right as well.
        let either = BTreeSet::from([before.clone().cut(), rig.clone().cut(), default]);
        if let Deed::Default(first, _) | Deed::Redirect(first, _) = deed {
            default = *first;
        }
        for mut state in torn {
            let started = state.cut();
            assert!(either.contains(&started), "{deed:?} torn starts {started}, neither of {either:?}");
        }
        let mut later = rig.clone();
        match deed {
            Deed::Next(bank) => {
                assert_eq!(named, Some(*bank));
                assert_eq!(later.boot(), *bank, "the trial is started");
                assert_eq!(later.boot(), !*bank, "and only once");
                assert_eq!(later.boot(), !*bank);
            }
            Deed::Default(first, Spare::Unbootable) | Deed::Redirect(first, Spare::Unbootable) => {
                for _ in 0..6 {
                    assert_eq!(later.boot(), *first, "{deed:?}");
                }
            }
            Deed::Default(first, Spare::Bootable) => {
                assert_eq!(later.boot(), *first);
                let dead_boots = (0..6).take_while(|_| later.boot() == *first).count() + 1;
                match counts {
                    Counts::Loader => assert!(dead_boots <= LOADER_TRIES as usize, "{dead_boots}"),
                    Counts::Nobody => assert_eq!(dead_boots, 7),
                }
                let (_, again) = rig.clone().play(*deed);
                assert!(again.len() <= 1, "what is said already is not written again");
            }
            Deed::Redirect(to, Spare::Bootable) => assert_eq!(later.boot(), *to),
        }
    }
}

proptest! {
    // A case is up to twenty deeds, each torn at every sector.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn grub_is_told_and_torn(events in events()) {
        check(grub_rig(), &events, Counts::Loader);
    }

    #[test]
    fn uboot_is_told_and_torn(events in events()) {
        check(uboot_rig(), &events, Counts::Loader);
    }

    #[test]
    fn tryboot_is_told_and_torn(events in events()) {
        check(tryboot_rig(), &events, Counts::Nobody);
    }

    #[test]
    fn firmware_is_told_and_torn(events in events()) {
        check(firmware_rig(), &events, Counts::Loader);
    }

    #[test]
    fn systemd_boot_is_told_and_torn(events in events()) {
        check(systemd_boot_rig(), &events, Counts::Loader);
    }

}

proptest! {
    #[test]
    fn nothing_on_the_medium_makes_a_loader_panic(
        garbage in proptest::collection::vec(any::<u8>(), 0..3000),
        whole in any::<prop::sample::Index>(),
    ) {
        let mut disk = Grub::factory(Bank::A).unwrap();
        let at = whole.index(9216);
        let end = (at + garbage.len()).min(disk.len());
        disk[at..end].copy_from_slice(&garbage[..end - at]);
        let mut grub = Grub::new(Disk::new(disk));
        let _ = grub.next().unwrap();
        grub.set_next(Bank::B).unwrap();
        prop_assert_eq!(grub.next().unwrap(), Some(Bank::B));
        let _ = grub::decode_block(&garbage);
        let mut block = b"# GRUB Environment Block\n".to_vec();
        block.extend(&garbage);
        block.resize(grub::BLOCK_BYTES, b'\\');
        let _ = grub::decode_block(&block);
        let _ = super::tryboot::Autoboot::parse(&garbage);
        let _ = super::uboot::Layout::parse(&String::from_utf8_lossy(&garbage));
        let mut disk = garbage.clone();
        disk.resize(ENV_BYTES, 0);
        let data = crc32fast::hash(&disk[5..]).to_le_bytes();
        disk[..4].copy_from_slice(&data);
        let mut uboot = UBoot::new([Disk::new(disk.clone()), Disk::new(garbage_of(&garbage))], ENV_BYTES);
        let _ = uboot.next().unwrap();
        uboot.set_next(Bank::A).unwrap();
        prop_assert_eq!(uboot.next().unwrap(), Some(Bank::A));
        disk.truncate(SECTOR);
        let mut tryboot = Tryboot::new(Disk::new(disk), SECTOR, PARTITIONS, Flag(true));
        let _ = tryboot.next().unwrap();
        let _ = tryboot.set_default(Bank::B, Spare::Bootable);
    }
}

fn garbage_of(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(ENV_BYTES, 7);
    bytes
}

#[test]
fn a_loader_never_stops_on_a_medium_that_cannot_be_read_under_one_copy() {
    #[derive(Debug)]
    struct Rotten(Disk, u64);
    impl Medium for Rotten {
        type Error = Error;
        fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
            if offset == self.1 {
                return Err(Error::malformed("sector", "it cannot be read"));
            }
            self.0.read_at(offset, buffer)
        }
        fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
            self.0.write_at(offset, bytes)
        }
        fn flush(&mut self) -> Result<(), Error> {
            Ok(())
        }
    }
    for offset in grub::COPY_OFFSETS {
        let mut grub = Grub::new(Rotten(grub_rig().0, offset));
        assert_eq!(grub.next().unwrap(), None);
        grub.set_default(Bank::A, Spare::Unbootable).unwrap();
        assert!(grub.medium().0.log.is_empty(), "the other copy says so already");
    }
}

#[test]
fn what_grub_needs_for_its_own_notes_is_restored_and_nothing_else() {
    let factory = grub_rig().0;
    for lost in [8192..8200, 32 * 1024..33 * 1024, 8192..38 * 1024] {
        let mut disk = factory.clone();
        disk.bytes[lost.clone()].fill(0xaa);
        let mut grub = Grub::new(disk);
        grub.set_default(Bank::A, Spare::Unbootable).unwrap();
        let now = &grub.medium().bytes;
        assert!(now[..8192] == factory.bytes[..8192], "the decision stands already");
        assert!(now[8192..9216] == factory.bytes[8192..9216], "GRUB's own block, lost in {lost:?}");
        assert!(now[32 * 1024..] == factory.bytes[32 * 1024..], "the index, lost in {lost:?}");
    }
}

#[test]
fn a_new_decision_never_takes_the_serial_that_grub_knows() {
    let mut rig = grub_rig();
    rig.play(Deed::Next(Bank::B));
    assert_eq!(rig.boot(), Bank::B);
    // The copy with the serial that GRUB has noted as tried rots.
    let (serial, _) = Grub::new(rig.0.clone()).decision().unwrap().unwrap();
    rig.0.bytes[4096 + 30] ^= 1;
    assert!(Grub::new(rig.0.clone()).decision().unwrap().unwrap().0 < serial);
    rig.play(Deed::Next(Bank::B));
    assert_eq!(rig.boot(), Bank::B, "the second trial is started as well");
}

#[test]
fn grub_is_sent_to_its_recovery_once_and_keeps_its_default() {
    let mut grub = Grub::new(grub_rig().0);
    grub.set_default(Bank::B, Spare::Bootable).unwrap();
    let (before, _) = grub.decision().unwrap().unwrap();
    assert_eq!(grub.recover().unwrap(), Recovery::Next);
    let (serial, told) = grub.decision().unwrap().unwrap();
    assert_eq!((told.default, told.next, told.spare), (Bank::B, grub::Next::Recovery, Spare::Bootable));
    assert!(serial > before);
    assert_eq!(grub.next().unwrap(), None, "it is no bank");
    grub.set_default(Bank::B, Spare::Bootable).unwrap();
    assert_eq!(grub.decision().unwrap().unwrap().1.next, grub::Next::Default);
}
