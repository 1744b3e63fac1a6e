//! Kernels of a few instructions: they say who they are and how they were called, and then behave.
//!
//! Assembled here, so that no cross compiler is needed. They run as U-Boot's `booti` starts an arm64 Linux (kernel documentation:
//! `Documentation/arch/arm64/booting.rst`): caches and MMU off, the address of the device tree in x0. They know two things of QEMU's
//! board `virt`: its UART, and that PSCI is called by `hvc`.

/// What a kernel does once it has said who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Switches the machine off: the system that follows is played elsewhere.
    PowersOff,
    /// Resets the machine, as a panic does.
    Resets,
    /// Does nothing any more, and does not pet the watchdog.
    Hangs,
}

/// The word by which the command line is found in the device tree. It must begin with it.
pub const FIRST_WORD: &str = "roro.loader=";
/// What a kernel says first.
pub const GREETING: &str = "payload ";
/// "ARM\x64", at byte 56 of the header.
pub const MAGIC: [u8; 4] = *b"ARM\x64";
/// Where the magic stands in the header.
pub const MAGIC_AT: usize = 56;
/// Bytes of the header; the code is behind it.
pub const HEADER_BYTES: usize = 64;

const UART_HIGH: u32 = 0x0900;
const PSCI_SYSTEM_OFF: u32 = 0x8400_0008;
const PSCI_SYSTEM_RESET: u32 = 0x8400_0009;

/// A kernel that says `payload NAME COMMAND-LINE` and behaves like this.
#[must_use]
pub fn kernel(name: &str, behaviour: Behaviour) -> Vec<u8> {
    let mut code = Code::default();
    code.mov(20, 0);
    code.text_address(1, Mark::Greeting);
    code.call(Mark::Print);
    // The header of a device tree: magic, total size, both big-endian. Values in it are aligned to 4 bytes.
    code.load(2, 20, 4);
    code.swap_bytes(2);
    code.add(2, 20, 2);
    code.mov(1, 20);
    code.constant(3, first_word(0));
    code.constant(4, first_word(4));
    code.place(Mark::Search);
    code.compare(1, 2);
    code.branch_if(Condition::NotLower, Mark::Behave);
    code.load(5, 1, 0);
    code.compare_words(5, 3);
    code.branch_if(Condition::Differ, Mark::Next);
    code.load(5, 1, 4);
    code.compare_words(5, 4);
    code.branch_if(Condition::Same, Mark::Found);
    code.place(Mark::Next);
    code.add_4(1);
    code.branch(Mark::Search);
    code.place(Mark::Found);
    code.call(Mark::Print);
    code.place(Mark::Behave);
    code.text_address(1, Mark::LineEnd);
    code.call(Mark::Print);
    match behaviour {
        Behaviour::PowersOff => code.psci(PSCI_SYSTEM_OFF),
        Behaviour::Resets => code.psci(PSCI_SYSTEM_RESET),
        Behaviour::Hangs => (),
    }
    code.place(Mark::Hang);
    code.branch(Mark::Hang);
    // Prints the text at x1 up to its NUL.
    code.place(Mark::Print);
    code.uart_address(9);
    code.place(Mark::PrintNext);
    code.load_byte_and_step(10, 1);
    code.branch_if_zero(10, Mark::Printed);
    code.store(10, 9);
    code.branch(Mark::PrintNext);
    code.place(Mark::Printed);
    code.give_back();
    code.assemble(&[(Mark::Greeting, format!("{GREETING}{name} ")), (Mark::LineEnd, "\r\n".to_owned())])
}

fn first_word(at: usize) -> u32 {
    let bytes = FIRST_WORD.as_bytes().get(at..).and_then(|rest| rest.first_chunk::<4>());
    u32::from_le_bytes(bytes.copied().unwrap_or_default())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Search,
    Next,
    Found,
    Behave,
    Hang,
    Print,
    PrintNext,
    Printed,
    Greeting,
    LineEnd,
}

/// Conditions of a branch, by their number (Arm ARM, C1.2.4).
#[derive(Debug, Clone, Copy)]
enum Condition {
    Same = 0,
    Differ = 1,
    NotLower = 2,
}

/// Where the distance to a mark goes in an instruction word.
#[derive(Debug, Clone, Copy)]
enum Field {
    /// 26 bits of words from bit 0: B, BL.
    Far,
    /// 19 bits of words from bit 5: B.cond, CBZ.
    Near,
    /// 21 bits of bytes, split: ADR.
    Address,
}

/// A64 instructions, encoded as in the Arm Architecture Reference Manual, C6.2.
#[derive(Debug, Default)]
struct Code {
    words: Vec<u32>,
    marks: Vec<(Mark, usize)>,
    distances: Vec<(usize, Field, Mark)>,
}

impl Code {
    fn place(&mut self, mark: Mark) {
        self.marks.push((mark, self.words.len() * 4));
    }
    fn aimed_at(&mut self, word: u32, field: Field, mark: Mark) {
        self.distances.push((self.words.len(), field, mark));
        self.words.push(word);
    }
    fn mov(&mut self, to: u32, from: u32) {
        self.words.push(0xaa00_03e0 | from << 16 | to);
    }
    fn constant(&mut self, to: u32, value: u32) {
        self.words.push(0x5280_0000 | (value & 0xffff) << 5 | to);
        self.words.push(0x72a0_0000 | (value >> 16) << 5 | to);
    }
    fn uart_address(&mut self, to: u32) {
        self.words.push(0xd2a0_0000 | UART_HIGH << 5 | to);
    }
    fn text_address(&mut self, to: u32, mark: Mark) {
        self.aimed_at(0x1000_0000 | to, Field::Address, mark);
    }
    fn load(&mut self, to: u32, base: u32, offset_bytes: u32) {
        self.words.push(0xb940_0000 | (offset_bytes / 4) << 10 | base << 5 | to);
    }
    fn load_byte_and_step(&mut self, to: u32, base: u32) {
        self.words.push(0x3840_0400 | 1 << 12 | base << 5 | to);
    }
    fn store(&mut self, from: u32, base: u32) {
        self.words.push(0xb900_0000 | base << 5 | from);
    }
    fn swap_bytes(&mut self, register: u32) {
        self.words.push(0x5ac0_0800 | register << 5 | register);
    }
    fn add(&mut self, to: u32, left: u32, right: u32) {
        self.words.push(0x8b00_0000 | right << 16 | left << 5 | to);
    }
    fn add_4(&mut self, register: u32) {
        self.words.push(0x9100_0000 | 4 << 10 | register << 5 | register);
    }
    fn compare(&mut self, left: u32, right: u32) {
        self.words.push(0xeb00_001f | right << 16 | left << 5);
    }
    fn compare_words(&mut self, left: u32, right: u32) {
        self.words.push(0x6b00_001f | right << 16 | left << 5);
    }
    fn branch(&mut self, mark: Mark) {
        self.aimed_at(0x1400_0000, Field::Far, mark);
    }
    fn call(&mut self, mark: Mark) {
        self.aimed_at(0x9400_0000, Field::Far, mark);
    }
    fn branch_if(&mut self, condition: Condition, mark: Mark) {
        self.aimed_at(0x5400_0000 | condition as u32, Field::Near, mark);
    }
    fn branch_if_zero(&mut self, register: u32, mark: Mark) {
        self.aimed_at(0x3400_0000 | register, Field::Near, mark);
    }
    fn give_back(&mut self) {
        self.words.push(0xd65f_03c0);
    }
    fn psci(&mut self, function: u32) {
        self.constant(0, function);
        self.words.push(0xd400_0002);
    }

    /// Header, code, texts.
    fn assemble(mut self, texts: &[(Mark, String)]) -> Vec<u8> {
        let mut text_bytes = Vec::new();
        for (mark, text) in texts {
            self.marks.push((*mark, self.words.len() * 4 + text_bytes.len()));
            text_bytes.extend(text.bytes());
            text_bytes.push(0);
        }
        for (at, field, mark) in &self.distances {
            let place = self.marks.iter().find(|(name, _)| name == mark).map_or(0, |(_, place)| *place);
            let bytes = (place as i64 - *at as i64 * 4) as u32;
            let bits = match field {
                Field::Far => (bytes / 4) & 0x03ff_ffff,
                Field::Near => ((bytes as i32 / 4) as u32 & 0x7_ffff) << 5,
                Field::Address => (bytes & 3) << 29 | ((bytes >> 2) & 0x7_ffff) << 5,
            };
            if let Some(word) = self.words.get_mut(*at) {
                *word |= bits;
            }
        }
        let mut image = header(self.words.len() * 4 + text_bytes.len());
        image.extend(self.words.iter().flat_map(|word| word.to_le_bytes()));
        image.extend(text_bytes);
        image
    }
}

/// Jumps over itself; no offset, its size, "anywhere in memory, pages of 4 KiB, little-endian".
fn header(code_bytes: usize) -> Vec<u8> {
    let mut header = (0x1400_0000_u32 | (HEADER_BYTES as u32 / 4)).to_le_bytes().to_vec();
    header.resize(16, 0);
    header.extend(((HEADER_BYTES + code_bytes) as u64).to_le_bytes());
    header.extend(0xa_u64.to_le_bytes());
    header.resize(MAGIC_AT, 0);
    header.extend(MAGIC);
    header.resize(HEADER_BYTES, 0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_an_assembler() {
        // From `aarch64-linux-gnu-objdump` of the same instructions.
        let mut code = Code::default();
        code.mov(20, 0);
        code.load(2, 20, 4);
        code.swap_bytes(2);
        code.add(2, 20, 2);
        code.add_4(1);
        code.compare(1, 2);
        code.compare_words(5, 3);
        code.load_byte_and_step(10, 1);
        code.store(10, 9);
        code.uart_address(9);
        code.psci(PSCI_SYSTEM_RESET);
        code.give_back();
        let expected = [
            0xaa00_03f4,
            0xb940_0682,
            0x5ac0_0842,
            0x8b02_0282,
            0x9100_1021,
            0xeb02_003f,
            0x6b03_00bf,
            0x3840_142a,
            0xb900_012a,
            0xd2a1_2009,
            0x5280_0120,
            0x72b0_8000,
            0xd400_0002,
            0xd65f_03c0,
        ];
        assert_eq!(code.words, expected, "{:x?}", code.words);
    }

    #[test]
    fn a_kernel_has_the_header_that_booti_wants_and_ends_in_its_texts() {
        let image = kernel("1.0.0 good", Behaviour::Hangs);
        assert_eq!(image[MAGIC_AT..MAGIC_AT + 4], MAGIC);
        assert_eq!(image[16..24], (image.len() as u64).to_le_bytes());
        assert!(image.ends_with(b"payload 1.0.0 good \0\r\n\0"));
        // Backwards to itself: `b .` is how it hangs.
        assert!(image.windows(4).any(|word| word == 0x1400_0000_u32.to_le_bytes()));
    }
}
