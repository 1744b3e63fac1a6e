//! Media as they should not be: garbage, rot, sectors that cannot be read, and what GRUB needs for itself.

use proptest::prelude::*;

use super::{
    super::{Recovery, grub_index},
    *,
};

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
        let _ = tryboot::Autoboot::parse(&garbage);
        let _ = uboot::Layout::parse(&String::from_utf8_lossy(&garbage));
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

/// What lies here cannot be read until it is written anew.
#[derive(Debug)]
struct Rotten(Disk, u64);

impl Medium for Rotten {
    type Error = Error;
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let written = self.0.log.iter().any(|write| write.0 as u64 == self.1);
        if offset == self.1 && !written {
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

#[test]
fn a_rotten_sector_under_grubs_own_notes_is_written_anew_and_stops_no_deed() {
    for offset in [grub::OWN_OFFSET, grub_index::INDEX_OFFSET] {
        let mut grub = Grub::new(Rotten(grub_rig().0, offset));
        grub.set_next(Bank::B).unwrap();
        assert_eq!(grub.next().unwrap(), Some(Bank::B));
        assert!(grub.medium().0.bytes[offset as usize..] == grub_rig().0.bytes[offset as usize..]);
        assert!(grub.medium().0.log.iter().any(|write| write.0 as u64 == offset));
        grub.set_default(Bank::B, Spare::Bootable).unwrap();
        assert_eq!(grub.decision().unwrap().unwrap().1.default, Bank::B);
    }
}

#[test]
fn a_loader_never_stops_on_a_medium_that_cannot_be_read_under_one_copy() {
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

#[test]
fn a_copy_that_grub_would_refuse_is_not_believed() {
    let mut grub = Grub::new(grub_rig().0);
    grub.set_default(Bank::B, Spare::Unbootable).unwrap();
    let told = |disk: &Disk| Grub::new(disk.clone()).decision().unwrap().unwrap().1.default;
    let disk = grub.medium().clone();
    assert_eq!(told(&disk), Bank::B);
    // The block and the sector with its checksum.
    for at in (4096..).take(grub::BLOCK_BYTES + SECTOR) {
        let mut rotten = disk.clone();
        rotten.bytes[at] ^= 1;
        assert_eq!(told(&rotten), Bank::A, "byte {at}");
    }
}

#[test]
fn of_a_variable_that_stands_twice_u_boot_takes_the_last_one_and_so_do_we() {
    let data = b"BOOT_ORDER=A B\0x=1\0BOOT_ORDER=B A\0roro_trial=b\0roro_trial\0x=2\0\0";
    let mut variables = uboot::Variables::decode(data);
    assert_eq!(variables.get("BOOT_ORDER").as_deref(), Some("B A"));
    assert_eq!(variables.get("roro_trial"), None, "a name alone takes the variable away");
    variables.set("BOOT_ORDER", "A B");
    variables.set("roro_trial", "a");
    let pairs: Vec<String> = variables.pairs().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(pairs, ["BOOT_ORDER=A B", "x=1", "roro_trial=a", "x=2"]);
}
