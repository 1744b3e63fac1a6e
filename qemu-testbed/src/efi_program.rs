//! The smallest EFI program for x86-64 that says a line and stays: stands in for whatever an integrator has for the last resort.
//!
//! Layout: PE32+ of Microsoft's PE specification, one section, nothing to relocate. It knows one offset in the UEFI system table
//! (`ConOut`, 64) and one in the protocol behind it (`OutputString`, 8): UEFI specification, chapters 4 and 12.

const SECTION_AT: u32 = 0x1000;
const FILE_ALIGNMENT: u32 = 0x200;
/// `sub rsp, 40; mov rcx, [rdx+64]; lea rdx, [rip+9]; call [rcx+8]; pause; jmp pause; nop; nop`: the text follows.
const CODE: [u8; 24] = [
    0x48, 0x83, 0xec, 0x28, 0x48, 0x8b, 0x4a, 0x40, 0x48, 0x8d, 0x15, 0x09, 0x00, 0x00, 0x00, 0xff, 0x51,
    0x08, 0xf3, 0x90, 0xeb, 0xfc, 0x90, 0x90,
];

/// The program that says `text`.
#[must_use]
pub fn that_says(text: &str) -> Vec<u8> {
    let line = format!("{text}\r\n\0");
    let mut section = CODE.to_vec();
    section.extend(line.encode_utf16().flat_map(u16::to_le_bytes));
    let code_bytes = u32::try_from(section.len()).unwrap_or(u32::MAX).next_multiple_of(FILE_ALIGNMENT);
    section.resize(code_bytes as usize, 0);

    let mut file = vec![0; FILE_ALIGNMENT as usize];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = file.get_mut(at..at.saturating_add(bytes.len())) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    // The COFF head: x86-64, one section, 240 bytes of optional head, executable and aware of large addresses.
    put(0x40, b"PE\0\0");
    put(0x44, &0x8664_u16.to_le_bytes());
    put(0x46, &1_u16.to_le_bytes());
    put(0x54, &240_u16.to_le_bytes());
    put(0x56, &0x0022_u16.to_le_bytes());
    // The optional head.
    put(0x58, &0x020b_u16.to_le_bytes());
    put(0x5c, &code_bytes.to_le_bytes());
    put(0x68, &SECTION_AT.to_le_bytes());
    put(0x6c, &SECTION_AT.to_le_bytes());
    put(0x78, &0x1000_u32.to_le_bytes());
    put(0x7c, &FILE_ALIGNMENT.to_le_bytes());
    put(0x90, &SECTION_AT.saturating_add(code_bytes.next_multiple_of(0x1000)).to_le_bytes());
    put(0x94, &FILE_ALIGNMENT.to_le_bytes());
    // Subsystem: EFI application.
    put(0x9c, &10_u16.to_le_bytes());
    put(0xc4, &16_u32.to_le_bytes());
    // The section.
    put(0x148, b".text");
    put(0x150, &code_bytes.to_le_bytes());
    put(0x154, &SECTION_AT.to_le_bytes());
    put(0x158, &code_bytes.to_le_bytes());
    put(0x15c, &FILE_ALIGNMENT.to_le_bytes());
    put(0x16c, &0x6000_0020_u32.to_le_bytes());
    file.extend(section);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_follows_the_code_where_the_code_looks_for_it() {
        let program = that_says("x");
        // `lea` is relative to the instruction after it, which begins at 15.
        let text_at = FILE_ALIGNMENT as usize + 15 + CODE[11] as usize;
        assert_eq!(program[text_at..text_at + 8], [b'x', 0, b'\r', 0, b'\n', 0, 0, 0]);
        assert_eq!(program.len() % FILE_ALIGNMENT as usize, 0);
    }
}
