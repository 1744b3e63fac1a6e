//! The state of loaders that keep it on a disk: U-Boot's environment, GRUB's blocks, the Raspberry Pi's `autoboot.txt`.

#![expect(clippy::unwrap_used, reason = "what is unwrapped was promised")]

use std::{collections::BTreeMap, convert::Infallible};

use bank_format::{
    Bank, Digest256, Error, PerBank,
    limits::{MAX_AUTOBOOT_BYTES, MAX_GRUB_SERIAL, MAX_UBOOT_ENV_BYTES},
    loader::{
        Grub, Loader, LoaderError, RebootFlag, Recovery, Spare, Tryboot, UBoot,
        grub::{BLOCK_BYTES, COPY_OFFSETS, LOADER_BYTES, OWN_OFFSET, decode_block, encode_block},
        tryboot::Autoboot,
        uboot::{self, Layout, Variables},
    },
};

use super::{
    Verdict,
    memory::{Memory, halves, one_bank},
};

/// Variables of U-Boot's environment that are Roro's.
const OURS: [&str; 4] = ["BOOT_ORDER", "roro_trial", "BOOT_A_LEFT", "BOOT_B_LEFT"];
/// The least size of an environment here: room for the variables of Roro.
const LEAST_ENV_BYTES: usize = 128;
const PARTITIONS: PerBank<u32> = PerBank { a: 2, b: 3 };

/// The bytes as a copy, as the data of one, as lines for `mkenvimage`, as `fw_env.config`, and their halves as both copies.
pub(super) fn uboot_env(bytes: &[u8]) -> Verdict {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(layout) = Layout::parse(&text) {
        let [first, second] = &layout.copies;
        assert!((7..=MAX_UBOOT_ENV_BYTES).contains(&layout.env_bytes));
        let apart = first.offset_bytes.abs_diff(second.offset_bytes) >= layout.env_bytes as u64;
        assert!(first.device != second.device || apart, "the copies lie upon each other");
    }
    if let Some((_, variables)) = uboot::decode_copy(bytes) {
        encoded_again(&variables, bytes.len());
    }
    encoded_again(&Variables::decode(bytes), bytes.len());
    encoded_again(&Variables::from_lines(&text), text.len());
    let (first, second) = halves(bytes);
    let env_bytes = (second.len() + 4).max(LEAST_ENV_BYTES);
    let put_right = [first, second].map(|data| environment(data, env_bytes));
    let as_they_stand = [first, second].map(|copy| Memory::of_bytes(copy, env_bytes));
    let bank = one_bank(bytes);
    told_to_uboot(as_they_stand, env_bytes, bank).or(told_to_uboot(put_right, env_bytes, bank))
}

fn encoded_again(variables: &Variables, room: usize) {
    let copy = variables.encode(room + 16, 9).unwrap();
    assert_eq!(copy.len(), room + 16);
    assert_eq!(uboot::decode_copy(&copy), Some((9, variables.clone())));
}

/// A copy with this serial (the first byte) and data, and its checksum.
fn environment(data: &[u8], env_bytes: usize) -> Memory {
    let mut copy = Memory::of_bytes(data, env_bytes - 4).bytes;
    let crc = crc32fast::hash(&copy[1..]).to_le_bytes();
    copy.splice(0..0, crc);
    Memory::new(copy)
}

/// What a loader is told.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Next,
    Default(Spare),
}

impl Deed {
    const ALL: [Self; 3] = [Self::Next, Self::Default(Spare::Bootable), Self::Default(Spare::Unbootable)];

    fn tell<L: Loader>(self, loader: &mut L, bank: Bank) -> Result<(), L::Error> {
        match self {
            Self::Next => loader.set_next(bank),
            Self::Default(spare) => loader.set_default(bank, spare),
        }
    }

    /// What a loader that re-arms in another place than that of the trial tries next.
    fn next_of(self, bank: Bank) -> Option<Bank> {
        match self {
            Self::Next => Some(bank),
            Self::Default(_) => None,
        }
    }
}

/// A deed on the environment changes the older copy and nothing in it that is not Roro's. Done twice, it is done once.
fn told_to_uboot(copies: [Memory; 2], env_bytes: usize, bank: Bank) -> Verdict {
    let whole = copies.each_ref().map(|copy| uboot::decode_copy(&copy.bytes).map(|(_, variables)| variables));
    for deed in Deed::ALL {
        let mut loader = UBoot::new(copies.clone(), env_bytes);
        let before = loader.variables().unwrap();
        let result = deed.tell(&mut loader, bank);
        let writes = loader.media().map(|copy| copy.writes.len());
        if let Err(error) = result {
            assert!(matches!(error, LoaderError::Format(Error::TooLarge { .. })), "{error}");
            assert_eq!(writes, [0, 0], "refused, and written");
            continue;
        }
        let after = loader.variables().unwrap();
        assert_eq!(foreign(&after), foreign(&before), "variables of others");
        assert_eq!(loader.next().unwrap(), deed.next_of(bank));
        read_by_uboot(&after, deed, bank);
        match writes {
            [0, 0] => (),
            [1, 0] => assert!(whole == [None, None] || whole[1].as_ref() == Some(&before), "no copy is left"),
            [0, 1] => assert!(whole == [None, None] || whole[0].as_ref() == Some(&before), "no copy is left"),
            _ => assert_eq!(writes, [0, 0], "written more than once"),
        }
        deed.tell(&mut loader, bank).unwrap();
        assert_eq!(loader.media().map(|copy| copy.writes.len()), writes, "said, and said again");
    }
    if whole == [None, None] { Verdict::Refused } else { Verdict::Accepted }
}

fn foreign(variables: &Variables) -> Variables {
    let mut foreign = variables.clone();
    OURS.iter().for_each(|name| foreign.remove(name));
    foreign
}

/// As `himport_r` of U-Boot reads an environment: of several values the last one counts, and none removes the variable.
fn read_by_uboot(variables: &Variables, deed: Deed, bank: Bank) {
    let copy = variables.encode(MAX_UBOOT_ENV_BYTES.min(16 << 10), 0).unwrap();
    let mut found: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    for entry in copy[5..].split(|byte| *byte == 0).take_while(|entry| !entry.is_empty()) {
        let mut parts = entry.splitn(2, |byte| *byte == b'=');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if value.is_empty() {
            found.remove(name)
        } else {
            found.insert(name, value)
        };
    }
    let of = |name: &str| found.get(name.as_bytes()).copied();
    let order = format!("{} {}", uboot::name_of_bank(bank), uboot::name_of_bank(!bank));
    assert_eq!(of("BOOT_ORDER"), Some(order.as_bytes()));
    let [here, other]: [&[u8]; 2] = match deed {
        Deed::Next => [b"1", b"3"],
        Deed::Default(Spare::Bootable) => [b"3", b"3"],
        Deed::Default(Spare::Unbootable) => [b"3", b"0"],
    };
    assert_eq!(of(uboot::left_of_bank(bank)), Some(here));
    assert_eq!(of(uboot::left_of_bank(!bank)), Some(other));
    assert_eq!(of("roro_trial"), deed.next_of(bank).map(|bank| bank.letter().as_bytes()));
}

/// The bytes as a block, and three blocks of them as both decisions and GRUB's own, with and without their checksums.
pub(super) fn grubenv(bytes: &[u8]) -> Verdict {
    let block = Memory::of_bytes(bytes, BLOCK_BYTES).bytes;
    let decoded = decode_block(&block);
    if let Ok(variables) = &decoded {
        let pairs = variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        // Bytes that are no UTF-8 take more room as text, and a name may be none that we write.
        if let Ok(again) = encode_block(pairs) {
            assert_eq!(&decode_block(&again).unwrap(), variables);
        }
    }
    let mut disk = Memory::new(Grub::factory(Bank::A).unwrap());
    disk.put(0, &bytes[..bytes.len().min(LOADER_BYTES)]);
    let bank = one_bank(bytes);
    let as_it_stands = told_to_grub(&disk, bank);
    let mut disk = Memory::new(Grub::factory(Bank::A).unwrap());
    let mut blocks = bytes.chunks(BLOCK_BYTES).map(|block| Memory::of_bytes(block, BLOCK_BYTES).bytes);
    for (offset, block) in COPY_OFFSETS.into_iter().zip(&mut blocks) {
        let line = format!("{}  {}+2\n", Digest256::of(&block), offset / 512);
        disk.put(offset as usize, &[block, format!("{line:>512}").into_bytes()].concat());
    }
    if let Some(own) = blocks.next() {
        disk.put(OWN_OFFSET as usize, &own);
    }
    as_it_stands.or(told_to_grub(&disk, bank)).or(Verdict::of(&decoded))
}

/// A deed changes the older copy. Done twice, it is done once, whatever GRUB has noted.
fn told_to_grub(disk: &Memory, bank: Bank) -> Verdict {
    let decision = Grub::new(disk.clone()).decision().unwrap();
    for deed in Deed::ALL {
        let mut grub = Grub::new(disk.clone());
        if let Err(error) = deed.tell(&mut grub, bank) {
            let (serial, _) = decision.unwrap();
            assert!(serial >= MAX_GRUB_SERIAL - 1, "{error}");
            assert_eq!(grub.medium(), disk, "refused, and written");
            continue;
        }
        assert_eq!(grub.next().unwrap(), deed.next_of(bank));
        let (serial, told) = grub.decision().unwrap().unwrap();
        let (default, spare) = match deed {
            Deed::Next => (!bank, Spare::Unbootable),
            Deed::Default(spare) => (bank, spare),
        };
        assert_eq!((told.default, told.spare), (default, spare));
        let copies: Vec<usize> =
            grub.medium().writes.iter().map(|(offset, _)| *offset).filter(|offset| *offset < 8192).collect();
        if let (Some((old_serial, old)), [written]) = (decision, &copies[..]) {
            assert!(serial > old_serial, "GRUB would not see it");
            let mut torn = disk.clone();
            torn.bytes[*written..][..512].fill(0xee);
            assert_eq!(
                Grub::new(torn).decision().unwrap(),
                Some((old_serial, old)),
                "the newer copy is torn"
            );
        }
        assert!(copies.len() <= 1);
        let writes = grub.medium().writes.len();
        deed.tell(&mut grub, bank).unwrap();
        assert_eq!(grub.medium().writes.len(), writes, "said, and said again");
    }
    let mut grub = Grub::new(disk.clone());
    if let Ok(recovery) = grub.recover() {
        assert_eq!(recovery, Recovery::Next);
        assert_eq!(grub.next().unwrap(), None, "it is no bank");
    }
    if decision.is_some() { Verdict::Accepted } else { Verdict::Refused }
}

/// A flag that is armed, or not.
#[derive(Debug, Clone)]
struct Flag(bool);

impl RebootFlag for Flag {
    type Error = Infallible;
    fn armed(&mut self) -> Result<bool, Infallible> {
        Ok(self.0)
    }
    fn arm(&mut self) -> Result<(), Infallible> {
        self.0 = true;
        Ok(())
    }
    fn disarm(&mut self) -> Result<(), Infallible> {
        self.0 = false;
        Ok(())
    }
}

/// The bytes as `autoboot.txt`.
pub(super) fn autoboot(bytes: &[u8]) -> Verdict {
    let parsed = Autoboot::parse(bytes);
    if let Ok(text) = &parsed {
        // An end of line that was missing takes a byte.
        if let Ok(again) = text.render(MAX_AUTOBOOT_BYTES) {
            assert_eq!(again.len(), MAX_AUTOBOOT_BYTES);
            assert_eq!(&Autoboot::parse(&again).unwrap(), text);
        }
    }
    let file = Memory::new(bytes[..bytes.len().min(MAX_AUTOBOOT_BYTES)].to_vec());
    for deed in Deed::ALL {
        told_to_tryboot(&file, one_bank(bytes), deed);
    }
    Verdict::of(&parsed)
}

fn told_to_tryboot(file: &Memory, bank: Bank, deed: Deed) {
    let mut loader = Tryboot::new(file.clone(), file.bytes.len(), PARTITIONS, Flag(false));
    if let Err(error) = deed.tell(&mut loader, bank) {
        assert!(matches!(error, LoaderError::Format(Error::Malformed { .. })), "{error}");
        return assert_eq!(loader.medium(), file, "refused, and written");
    }
    assert_eq!(loader.next().unwrap(), deed.next_of(bank));
    let default = match deed {
        Deed::Next => !bank,
        Deed::Default(_) => bank,
    };
    let text = Autoboot::parse(&loader.medium().bytes).unwrap();
    assert_eq!(text.default_partition(), Some(*PARTITIONS.get(default)));
    assert_eq!(text.tryboot_partition(), Some(*PARTITIONS.get(!default)));
    let writes = loader.medium().writes.len();
    assert!(writes <= 1, "more than one write");
    deed.tell(&mut loader, bank).unwrap();
    assert_eq!(loader.medium().writes.len(), writes, "said, and said again");
}
