//! What all loaders promise, played on small models of them: told and done, torn at every write, never a panic.
//!
//! Fault model: a power cut leaves any of the sectors of 512 bytes of a write and not the others; firmware variables are whole.
//! The models are those of `docs/boot.md`, "One behaviour"; the real loaders are judged in `qemu-testbed`.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Firmware, Grub, Loader, RebootFlag, Spare, SystemdBoot, Tryboot, UBoot, grub, tryboot, uboot};
use crate::{
    Bank, Error, PerBank,
    efi::{self, Partition},
    limits::LOADER_TRIES,
    record::Medium,
};

mod media;
mod memory;

use memory::{Disk, Vars, Write};

const SECTOR: usize = 512;
const ENV_BYTES: usize = 4096;

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
    /// Does the deed; gives what the loader names as the next bank, and the writes.
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Write<Self>>);
    /// An orderly reboot.
    fn boot(&mut self) -> Bank;
    /// Power goes and comes.
    fn cut(&mut self) -> Bank {
        self.boot()
    }
    /// A bit rots where it is not missed: in the older of two copies.
    fn rot(&mut self) {}
}

#[derive(Clone)]
struct GrubRig(Disk);

impl Rig for GrubRig {
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Write<Self>>) {
        let before = Disk::new(self.0.bytes.clone());
        let mut loader = Grub::new(before.clone());
        let next = tell(&mut loader, deed);
        self.0 = loader.medium().clone();
        (next, self.0.writes(&before).into_iter().map(|write| write.map(Self)).collect())
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
    fn rot(&mut self) {
        let told = Grub::new(self.0.clone()).decision().unwrap();
        for offset in grub::COPY_OFFSETS {
            let mut rotten = self.0.clone();
            rotten.bytes[offset as usize + 40] ^= 1;
            if Grub::new(rotten.clone()).decision().unwrap() == told {
                self.0 = rotten;
            }
        }
    }
}

#[derive(Clone)]
struct UBootRig([Disk; 2]);

impl Rig for UBootRig {
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Write<Self>>) {
        let before = self.0.clone().map(|disk| Disk::new(disk.bytes));
        let mut loader = UBoot::new(before.clone(), ENV_BYTES);
        let next = tell(&mut loader, deed);
        self.0 = loader.media().map(Disk::clone);
        assert!(self.0.iter().map(|disk| disk.log.len()).sum::<usize>() <= 1, "one copy, in one write");
        let mut writes = Vec::new();
        for write in self.0[0].writes(&before[0]) {
            writes.push(write.map(|first| Self([first, before[1].clone()])));
        }
        for write in self.0[1].writes(&before[1]) {
            writes.push(write.map(|second| Self([before[0].clone(), second])));
        }
        (next, writes)
    }
    fn boot(&mut self) -> Bank {
        let mut variables = UBoot::new(self.0.clone(), ENV_BYTES).variables().unwrap();
        let Some(order) = variables.get("BOOT_ORDER") else { return Bank::A };
        let order: Vec<Bank> = order.split(' ').map(|word| word.parse().unwrap()).collect();
        let left = |bank| -> u32 { variables.get(uboot::left_of_bank(bank)).unwrap().parse().unwrap() };
        let counted = order.iter().find(|bank| left(**bank) > 0);
        // Where no starts are left to any, a trial comes last.
        let trial = variables.get("roro_trial");
        let rest = order.iter().find(|bank| trial.as_deref() != Some(bank.letter()));
        let started = *counted.or(rest).unwrap();
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
    fn rot(&mut self) {
        let serial = |disk: &Disk| uboot::decode_copy(&disk.bytes).map(|(serial, _)| serial);
        let older = match self.0.each_ref().map(serial) {
            [Some(first), Some(second)] if second == first.wrapping_add(1) => 0,
            [Some(_), Some(_)] => 1,
            // The other one is all that is left.
            [None, _] | [_, None] => return,
        };
        self.0[older].bytes[40] ^= 1;
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
        let text = tryboot::Autoboot::parse(&self.0.bytes).unwrap();
        let partition = if flag.0 { text.tryboot_partition() } else { text.default_partition() };
        Bank::BOTH.into_iter().find(|bank| partition == Some(*PARTITIONS.get(*bank))).unwrap()
    }
}

impl Rig for TrybootRig {
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Write<Self>>) {
        let before = Disk::new(self.0.bytes.clone());
        let mut loader = Tryboot::new(before.clone(), SECTOR, PARTITIONS, self.1);
        let next = tell(&mut loader, deed);
        (self.0, self.1) = (loader.medium().clone(), *loader.flag());
        let writes = self.0.writes(&before).into_iter();
        (next, writes.map(|write| write.map(|disk| Self(disk, Flag(false)))).collect())
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
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Write<Self>>) {
        self.0.log = vec![self.0.now.clone()];
        let mut loader = Firmware::new(self.0.clone(), partitions());
        let next = tell(&mut loader, deed);
        self.0 = loader.vars().clone();
        (next, self.0.writes().into_iter().map(|write| write.map(Self)).collect())
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
    fn play(&mut self, deed: Deed) -> (Option<Bank>, Vec<Write<Self>>) {
        self.0.log = vec![self.0.now.clone()];
        let mut loader = SystemdBoot::new(self.0.clone()).on_partition(Some(partitions().a));
        let next = tell(&mut loader, deed);
        self.0 = loader.vars().clone();
        (next, self.0.writes().into_iter().map(|write| write.map(Self)).collect())
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

/// The variables of Roro lie far apart, among those of the board.
fn uboot_rig() -> UBootRig {
    let mut variables = uboot::Variables::default();
    let told = [("BOOT_ORDER", "A B"), ("BOOT_A_LEFT", "3"), ("BOOT_B_LEFT", "0")];
    for ((name, value), board) in told.into_iter().zip(["bootcmd", "fdtfile", "ramdisk_addr_r"]) {
        variables.set(board, &"board ".repeat(150));
        variables.set(name, value);
    }
    UBootRig([2, 1].map(|serial| Disk::new(variables.encode(ENV_BYTES, serial).unwrap())))
}

fn tryboot_rig() -> TrybootRig {
    TrybootRig(Disk::new(tryboot::Autoboot::new(2, 3).render(SECTOR).unwrap()), Flag(false))
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
    Rot,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let bank = prop_oneof![Just(Bank::A), Just(Bank::B)];
    let spare = prop_oneof![Just(Spare::Bootable), Just(Spare::Unbootable)];
    let event = (bank, spare, 0..7).prop_map(|(bank, spare, which)| match which {
        0 => Event::Try,
        1 => Event::Tell(Deed::Redirect(bank, spare)),
        2 | 3 => Event::Tell(Deed::Default(bank, spare)),
        4 => Event::Rot,
        _ => Event::Boot,
    });
    proptest::collection::vec(event, 1..20)
}

/// What starts after the power was cut, and then in one dead boot after the other: more than the loader can have counted.
fn boots<R: Rig>(mut rig: R) -> Vec<Bank> {
    std::iter::once(rig.cut()).chain((0..LOADER_TRIES + 2).map(|_| rig.boot())).collect()
}

/// Every deed is done, and wherever the power goes in it, the next boot is that of before or that of after, and a
/// trial is not started twice. Where a write was torn, all boots are those of before this write or those of after it.
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
            Event::Rot => {
                rig.rot();
                continue;
            }
        };
        let before = rig.clone();
        let (named, writes) = rig.play(*deed);
        // A boot that was not settled may have left the loader on the spare: the bank that was told is right as well.
        let either = BTreeSet::from([before.clone().cut(), rig.clone().cut(), default]);
        if let Deed::Default(first, _) | Deed::Redirect(first, _) = deed {
            default = *first;
        }
        for write in writes {
            for mut state in [write.before.clone(), write.after.clone()] {
                let started = state.cut();
                assert!(either.contains(&started), "{deed:?} cut starts {started}, neither of {either:?}");
            }
            let whole = [boots(write.before), boots(write.after)];
            if let Deed::Next(bank) = deed {
                let again = whole[1][1..].contains(bank);
                assert!(!again || whole[1] == boots(before.clone()), "{bank} is tried again: {whole:?}");
            }
            for torn in write.torn.into_iter().map(boots) {
                assert!(whole.contains(&torn), "{deed:?} torn starts {torn:?}, neither of {whole:?}");
            }
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
                assert!(again.is_empty(), "what is said already is not written again");
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
