//! The shipped script `boot-hooks/loaders/grub.cfg` in a real GRUB under a BIOS: `cargo test -p qemu-testbed --test grub_script`.
//!
//! The disk is the one that `image-tool` makes, with GRUB's core, the script and the factory state; `bank_format::loader::Grub` writes to
//! it as the agent and the initrd do. The kernels are a few instructions that say who they are, what initrd they were given and how
//! they were called: so every line that is expected here went through `linux`, `initrd` and `boot`. Whole systems play the table of
//! scenarios elsewhere; here the states are played that those cannot easily be brought into.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite says what failed by panicking")]

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use bank_format::{
    Bank,
    loader::{
        Grub, Loader as _, Recovery, Spare,
        grub::{COPY_OFFSETS, LOADER_BYTES, OWN_OFFSET},
    },
    record::Medium,
};
use image_tool::{
    appliance::{BootLoader, Disk},
    disk::table::{self, Layout},
    loader::{self, Installed, Kernel, Signing, grub::Grub as GrubOfTheHost},
    uki::Uki,
};
use qemu_testbed::{expect::Transcript, process, slots};

/// From power-on to the first word of a kernel, on a busy host.
const START: Duration = Duration::from_secs(60);
const SECTOR_BYTES: usize = 512;
/// Bytes of a copy as the agent writes it.
const COPY_BYTES: usize = 4096;
const SIZES: Disk = Disk { boot_mib: 5, root_mib: 1, state_mib: 1 };
const RECOVERY_SCRIPT: &str = "echo \"RECOVERY SCRIPT\"\nsleep 60\n";
/// The pauses of the script, and what takes their place on the disk: as many bytes.
const PAUSES: [(&str, &str); 2] =
    [("\nset pause=300\n", "\nset pause=004\n"), ("\nset recovery_pause=10\n", "\nset recovery_pause=02\n")];
const NOTHING_BOOTS: &str = "Roro: no bank can be booted";

#[test]
fn a_factory_disk_starts_bank_a_and_goes_on_when_it_is_the_only_one() {
    let device = Device::factory("factory", None);
    for _ in 0..5 {
        assert_eq!(device.starts(), bank(Bank::A));
    }
}

#[test]
fn a_trial_is_started_once_and_only_after_it_was_noted() {
    let device = Device::factory("trial", None);
    device.fill(Bank::B);
    device.loader().set_next(Bank::B).unwrap();
    assert_eq!(device.starts(), bank(Bank::B));
    assert_eq!(device.loader().next().unwrap(), None, "noted, or a power cut tries it again");
    assert_eq!(device.starts(), bank(Bank::A));
    assert_eq!(device.starts(), bank(Bank::A));
    device.loader().set_next(Bank::B).unwrap();
    assert_eq!(device.starts(), bank(Bank::B), "the next trial of the same bank is a new one");
    device.loader().set_default(Bank::B, Spare::Bootable).unwrap();
    assert_eq!(device.starts(), bank(Bank::B));
}

#[test]
fn the_default_bank_has_three_starts_then_the_spare_takes_over() {
    let device = Device::factory("count", None);
    device.fill(Bank::B);
    device.loader().set_default(Bank::B, Spare::Bootable).unwrap();
    for _ in 0..3 {
        assert_eq!(device.starts(), bank(Bank::B));
    }
    for _ in 0..2 {
        assert_eq!(device.starts(), given_up(Bank::B, Bank::A));
    }
    device.loader().set_default(Bank::B, Spare::Bootable).unwrap();
    assert_eq!(device.starts(), bank(Bank::B), "said again, it counts from the beginning");
}

#[test]
fn a_default_bank_without_a_spare_is_never_given_up() {
    let device = Device::factory("no_spare", None);
    device.fill(Bank::B);
    device.loader().set_default(Bank::B, Spare::Unbootable).unwrap();
    for _ in 0..5 {
        assert_eq!(device.starts(), bank(Bank::B));
    }
}

#[test]
fn kernels_that_never_come_up_end_in_a_stated_end_and_then_have_one_start_between_two_ends() {
    let device = Device::factory("never_up", None);
    device.fill(Bank::B);
    device.loader().set_default(Bank::B, Spare::Bootable).unwrap();
    for _ in 0..3 {
        assert_eq!(device.starts(), bank(Bank::B));
    }
    for _ in 0..6 {
        assert_eq!(device.starts(), given_up(Bank::B, Bank::A));
    }
    for _ in 0..2 {
        let mut on = device.power_on();
        on.wait_for("Roro: no bank comes up");
        on.wait_for(NOTHING_BOOTS);
        on.wait_for("Roro: restarting in 004 seconds");
        on.wait_for("payload ");
        assert_eq!(on.wait_for("\r\n").trim(), given_up(Bank::B, Bank::A), "a cause that goes away heals");
    }
    device.loader().set_default(Bank::B, Spare::Bootable).unwrap();
    assert_eq!(device.starts(), bank(Bank::B), "a boot that came up counts from the beginning");
}

#[test]
fn a_kernel_without_a_spare_that_never_comes_up_leads_to_the_recovery_entry() {
    let device = Device::factory("never_up_recovery", Some(RECOVERY_SCRIPT));
    let on_a = format!("{} roro.recovery=1", bank(Bank::A));
    for _ in 0..9 {
        assert_eq!(device.starts(), on_a);
    }
    for _ in 0..2 {
        let mut on = device.power_on();
        on.wait_for(NOTHING_BOOTS);
        on.wait_for("RECOVERY SCRIPT");
        drop(on);
        assert_eq!(device.starts(), on_a, "a recovery that is over leads back");
    }
}

#[test]
fn a_decision_torn_at_any_sector_is_the_old_one_or_the_new_one() {
    let device = Device::factory("torn", None);
    device.fill(Bank::B);
    // Another default than that of lost state, so that "nothing whole" cannot pass for "the old one".
    device.loader().set_default(Bank::B, Spare::Bootable).unwrap();
    let before = device.read(0, LOADER_BYTES);
    device.loader().set_default(Bank::A, Spare::Bootable).unwrap();
    let after = device.read(0, LOADER_BYTES);
    let changed: Vec<usize> = (0..LOADER_BYTES)
        .step_by(SECTOR_BYTES)
        .filter(|at| before[*at..at + SECTOR_BYTES] != after[*at..at + SECTOR_BYTES])
        .collect();
    assert!(changed.len() > 1, "{changed:?}");
    let copy = changed[0] / COPY_BYTES;
    assert!(changed.iter().all(|at| at / COPY_BYTES == copy), "one copy is written: {changed:?}");
    for mask in 0..1_u32 << changed.len() {
        let mut torn = before.clone();
        for (bit, at) in changed.iter().enumerate() {
            if mask & 1 << bit != 0 {
                torn[*at..at + SECTOR_BYTES].copy_from_slice(&after[*at..at + SECTOR_BYTES]);
            }
        }
        let whole = mask + 1 == 1 << changed.len();
        device.write(0, &torn);
        assert_eq!(device.starts(), bank(if whole { Bank::A } else { Bank::B }), "sectors {mask:b}");
    }
}

#[test]
fn a_copy_whose_checksum_is_broken_gives_way_to_the_older_one() {
    let device = Device::factory("checksum", None);
    device.fill(Bank::B);
    device.loader().set_default(Bank::A, Spare::Bootable).unwrap();
    let older = device.read(0, LOADER_BYTES);
    device.loader().set_default(Bank::B, Spare::Bootable).unwrap();
    let newer = device.read(0, LOADER_BYTES);
    let copy = COPY_OFFSETS
        .into_iter()
        .map(|at| at as usize)
        .find(|at| older[*at..at + COPY_BYTES] != newer[*at..at + COPY_BYTES]);
    let copy = copy.unwrap();
    // A digit of the serial; the first digit of the digest: the line ends its sector.
    let line_bytes = newer[copy + 1024..copy + 1536].trim_ascii().len();
    for broken in [copy + 40, copy + 1535 - line_bytes] {
        device.write(0, &newer);
        device.write(broken, &[newer[broken] ^ 1]);
        assert_eq!(device.starts(), bank(Bank::A), "byte {broken} broken");
    }
    device.write(0, &newer);
    assert_eq!(device.starts(), bank(Bank::B));
}

#[test]
fn serials_are_compared_as_numbers() {
    let device = Device::factory("serials", None);
    device.fill(Bank::B);
    for wanted in [Bank::A, Bank::B].into_iter().cycle() {
        device.loader().set_default(wanted, Spare::Bootable).unwrap();
        if device.loader().decision().unwrap().unwrap().0 == 10 {
            assert_eq!(device.starts(), bank(wanted), "10 is newer than 9");
            return;
        }
    }
}

#[test]
fn with_both_copies_broken_some_bank_is_started() {
    let device = Device::factory("lost", None);
    device.loader().set_default(Bank::A, Spare::Unbootable).unwrap();
    for at in COPY_OFFSETS {
        device.write(at as usize + 30, b"noise");
    }
    assert_eq!(device.starts(), bank(Bank::A));
    device.fill(Bank::B);
    device.empty(Bank::A);
    assert_eq!(device.starts(), bank(Bank::B), "without any word that something was given up");
    device.loader().redirect(Bank::B, Spare::Unbootable).unwrap();
    device.fill(Bank::A);
    assert_eq!(device.starts(), bank(Bank::B), "the initrd has repaired it");
}

#[test]
fn a_trial_that_cannot_be_noted_is_not_started() {
    let device = Device::factory("not_noted", None);
    device.fill(Bank::B);
    device.loader().set_next(Bank::B).unwrap();
    let sound = device.read(0, LOADER_BYTES);
    device.write(OWN_OFFSET as usize, b"noise where the header was");
    assert_eq!(device.starts(), bank(Bank::A));
    device.loader().set_default(Bank::A, Spare::Unbootable).unwrap();
    device.loader().set_next(Bank::B).unwrap();
    assert_eq!(device.starts(), bank(Bank::B), "the agent has made GRUB's block again");
    device.write(0, &sound);
    device.write(32 << 10, &[0; 6144]);
    assert_eq!(device.starts(), bank(Bank::A), "without the index GRUB does not find its block");
    device.loader().set_next(Bank::B).unwrap();
    assert_eq!(device.starts(), bank(Bank::B));
}

#[test]
fn a_count_that_makes_no_sense_counts_as_none() {
    let device = Device::factory("nonsense", None);
    device.fill(Bank::B);
    device.loader().set_default(Bank::B, Spare::Bootable).unwrap();
    assert_eq!(device.starts(), bank(Bank::B));
    let text = String::from_utf8(device.read(OWN_OFFSET as usize, SECTOR_BYTES)).unwrap();
    let at = OWN_OFFSET as usize + text.find("left=2").unwrap() + "left=".len();
    device.write(at, b"x");
    for _ in 0..3 {
        assert_eq!(device.starts(), bank(Bank::B));
    }
    assert_eq!(device.starts(), given_up(Bank::B, Bank::A));
}

#[test]
fn a_bank_without_files_gives_way_and_without_any_the_end_is_a_stated_one() {
    let device = Device::factory("no_files", None);
    device.fill(Bank::B);
    device.loader().set_default(Bank::B, Spare::Unbootable).unwrap();
    device.empty(Bank::B);
    assert_eq!(device.starts(), given_up(Bank::B, Bank::A));
    device.loader().set_next(Bank::B).unwrap();
    assert_eq!(device.starts(), bank(Bank::A), "a trial of an empty bank is over at once");
    device.empty(Bank::A);
    let mut on = device.power_on();
    on.wait_for("bank a cannot be started");
    on.wait_for(NOTHING_BOOTS);
    on.wait_for("Roro: restarting in 004 seconds");
    on.wait_for(NOTHING_BOOTS);
}

#[test]
fn the_recovery_entry_is_started_when_nothing_boots_and_once_when_the_initrd_asks_for_it() {
    let device = Device::factory("recovery", Some(RECOVERY_SCRIPT));
    assert_eq!(device.starts(), format!("{} roro.recovery=1", bank(Bank::A)));
    assert_eq!(device.loader().recover().unwrap(), Recovery::Next);
    device.power_on().wait_for("RECOVERY SCRIPT");
    assert_eq!(device.starts(), format!("{} roro.recovery=1", bank(Bank::A)), "for one start only");
    device.empty(Bank::A);
    let mut on = device.power_on();
    on.wait_for(NOTHING_BOOTS);
    on.wait_for("Roro: starting the recovery entry in 02 seconds");
    on.wait_for("RECOVERY SCRIPT");
}

/// What a kernel of this bank says.
fn bank(bank: Bank) -> String {
    format!("kernel-{bank} initrd-{bank} BOOT_IMAGE=/roro/linux quiet roro.loader=grub roro.bank={bank}")
}

fn given_up(first: Bank, started: Bank) -> String {
    format!("{} roro.gave_up={first}", bank(started))
}

/// A disk for a machine that is off.
struct Device {
    folder: tempfile::TempDir,
    name: &'static str,
    layout: Layout,
}

impl Device {
    fn factory(name: &'static str, recovery: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let grub =
            GrubOfTheHost::of_the_host().unwrap_or_else(|error| panic!("run `qemu-testbed setup`: {error}"));
        let boot_code = grub.boot_code().unwrap();
        let recovery = recovery.map(Into::into);
        let root = Vec::new();
        let image = vec![(0, boot_image(Bank::A).into())];
        let partitions = loader::partitions(&Installed::Grub(grub), &recovery, &SIZES, image, root).unwrap();
        let layout = table::write(&disk(&folder), "test,any", &partitions, &boot_code).unwrap();
        let device = Self { folder, name, layout };
        device.shorten_pauses();
        device
    }

    fn file(&self) -> File {
        File::options().read(true).write(true).open(disk(&self.folder)).unwrap()
    }

    fn place(&self, name: &str) -> u64 {
        self.layout.place(name).unwrap().offset_bytes
    }

    /// In the file on the disk, so that everything else is as it is shipped.
    fn shorten_pauses(&self) {
        let place = self.layout.place("esp").unwrap();
        let mut esp = vec![0; place.len_bytes as usize];
        self.file().read_exact_at(&mut esp, place.offset_bytes).unwrap();
        for (shipped, short) in PAUSES {
            let at = esp.windows(shipped.len()).position(|window| window == shipped.as_bytes()).unwrap();
            self.file().write_all_at(short.as_bytes(), place.offset_bytes + at as u64).unwrap();
        }
    }

    /// The bank gets its boot image.
    fn fill(&self, bank: Bank) {
        self.file().write_all_at(&boot_image(bank), self.place(&format!("boot-{bank}"))).unwrap();
    }

    /// Its boot image is gone.
    fn empty(&self, bank: Bank) {
        self.file().write_all_at(&[0; 4096], self.place(&format!("boot-{bank}"))).unwrap();
    }

    /// Bytes of the partition `loader`.
    fn read(&self, at: usize, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.file().read_exact_at(&mut bytes, self.place("loader") + at as u64).unwrap();
        bytes
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        self.file().write_all_at(bytes, self.place("loader") + at as u64).unwrap();
    }

    /// The partition `loader` as the agent and the initrd have it.
    fn loader(&self) -> Grub<Partition> {
        Grub::new(Partition { file: self.file(), start_bytes: self.place("loader") })
    }

    fn power_on(&self) -> Running {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let slot = slots::machine_slot(&target.join("testbed/runs"), self.name).unwrap();
        let serial = Transcript::new("serial line", &self.folder.path().join("serial.log"));
        let drive = format!("if=none,id=disk,format=raw,cache=unsafe,file={}", disk(&self.folder).display());
        let mut child = process::tied("qemu-system-x86_64")
            .args(["-machine", "pc", "-accel", "tcg", "-m", "64", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-serial", "stdio", "-device", "virtio-blk-pci,drive=disk"])
            .args(["-drive", &drive])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        serial.listen(child.stdout.take().unwrap()).unwrap();
        Running { child, serial, _slot: slot }
    }

    /// What the kernel says that is started next. Then the power is cut.
    fn starts(&self) -> String {
        let mut on = self.power_on();
        on.wait_for("payload ");
        on.wait_for("\r\n").trim().to_owned()
    }
}

fn disk(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("disk.img")
}

/// A machine that is on, until it is dropped.
struct Running {
    child: std::process::Child,
    serial: Transcript,
    _slot: slots::Held,
}

impl Running {
    /// Gives what was said before.
    fn wait_for(&mut self, word: &str) -> String {
        self.serial.expect(word, Instant::now() + START).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

struct Partition {
    file: File,
    start_bytes: u64,
}

impl Medium for Partition {
    type Error = io::Error;
    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, self.start_bytes + offset)
    }
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.start_bytes + offset)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn boot_image(bank: Bank) -> Vec<u8> {
    let (kernel, initrd) = (kernel(&format!("kernel-{bank}")), format!("initrd-{bank} \0"));
    let uki = Uki { bytes: Vec::new(), sections: Vec::new() };
    let command_line = "quiet roro.loader=grub";
    let parts = Kernel { uki: &uki, kernel: &kernel, initrd: initrd.as_bytes(), command_line };
    let space_bytes = u64::from(SIZES.boot_mib) << 20;
    loader::boot_image(BootLoader::Grub, &parts, Signing::Nobody, space_bytes).unwrap()
}

/// A bzImage by the 32-bit protocol (kernel documentation: `Documentation/arch/x86/boot.rst`) that says `payload NAME INITRD
/// COMMAND-LINE` on the first serial port, and hangs.
fn kernel(name: &str) -> Vec<u8> {
    let mut image = vec![0; 2 * SECTOR_BYTES];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    // One sector of setup; version 2.06; loaded at 1 MiB; where the initrd may end; the longest command line.
    put(0x1f1, &[1]);
    put(0x1fe, &[0x55, 0xaa, 0xeb, 0x66]);
    put(0x202, b"HdrS");
    put(0x206, &0x0206_u16.to_le_bytes());
    put(0x211, &[1]);
    put(0x214, &0x10_0000_u32.to_le_bytes());
    put(0x22c, &0x37ff_ffff_u32.to_le_bytes());
    put(0x238, &2047_u32.to_le_bytes());
    let texts = [b"payload ", name.as_bytes(), b" \0", b"\r\n\0"].concat();
    // cld; mov ebx,[esi+0x228] (command line); mov edi,[esi+0x218] (initrd); call over the texts.
    image.extend([0xfc, 0x8b, 0x9e, 0x28, 2, 0, 0, 0x8b, 0xbe, 0x18, 2, 0, 0, 0xe8]);
    image.extend((texts.len() as u32).to_le_bytes());
    image.extend(texts);
    // pop esi; call print; push esi; mov esi,edi; call print; mov esi,ebx; call print; pop esi; call print; hlt; jmp to hlt.
    image.extend([0x5e, 0xe8, 24, 0, 0, 0, 0x56, 0x89, 0xfe, 0xe8, 16, 0, 0, 0]);
    image.extend([0x89, 0xde, 0xe8, 9, 0, 0, 0, 0x5e, 0xe8, 3, 0, 0, 0, 0xf4, 0xeb, 0xfd]);
    // print: mov edx,0x3fd; until the port is ready: in al,dx; test al,0x20; jz; then lodsb; test al,al; jz to ret;
    // mov dl,0xf8; out dx,al; jmp print; ret.
    image.extend([0xba, 0xfd, 3, 0, 0, 0xec, 0xa8, 0x20, 0x74, 0xfb]);
    image.extend([0xac, 0x84, 0xc0, 0x74, 5, 0xb2, 0xf8, 0xee, 0xeb, 0xec, 0xc3]);
    image
}
