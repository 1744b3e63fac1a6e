//! A unified kernel image: systemd's stub with kernel, initrd and command line appended as PE sections.
//!
//! Source: the PE format (learn.microsoft.com/windows/win32/debug/pe-format) and `systemd-stub(7)`. Sections start on 4096-byte
//! borders of the file, so that chunks and deltas see aligned data. Everything read from the stub is checked.
//!
//! The kernel's section comes last and is as large in memory as the kernel's own header says: a stub may start it where it lies,
//! and what it claims behind its bytes must be nobody else's. A precaution; no stub was seen to need it.

use crate::error::{Error, Result};

const FILE_ALIGN: u64 = 4096;
const SECTION_ROW_BYTES: usize = 40;
/// Initialised data, readable.
const CHARACTERISTICS: u32 = 0x4000_0040;
const PE_HEAD_BYTES: usize = 24;
const MAGIC_64: u16 = 0x20b;
// Offsets in the optional header.
const SIZE_OF_INITIALIZED_DATA: usize = 8;
const SECTION_ALIGNMENT: usize = 32;
const SIZE_OF_IMAGE: usize = 56;
const SIZE_OF_HEADERS: usize = 60;
const CHECKSUM: usize = 64;

/// What becomes a UKI.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// `linuxx64.efi.stub` of systemd.
    pub stub: &'a [u8],
    /// Content of os-release.
    pub os_release: &'a str,
    /// Kernel command line.
    pub command_line: &'a str,
    /// Kernel release (`uname -r`).
    pub kernel_release: &'a str,
    /// The kernel.
    pub kernel: &'a [u8],
    /// The initrd.
    pub initrd: &'a [u8],
}

/// A unified kernel image.
#[derive(Debug, Clone)]
pub struct Uki {
    /// The program.
    pub bytes: Vec<u8>,
    /// Name, first byte and length of each section that was appended.
    pub sections: Vec<(String, u64, u64)>,
}

/// Builds the image.
pub fn build(parts: &Parts<'_>) -> Result<Uki> {
    let size = |data: &[u8]| data.len() as u64;
    let texts = [parts.os_release, parts.command_line, parts.kernel_release].map(str::as_bytes);
    let [os_release, command_line, kernel_release] = texts;
    let sections: [(&[u8; 8], &[u8], u64); 5] = [
        (b".osrel\0\0", os_release, size(os_release)),
        (b".cmdline", command_line, size(command_line)),
        (b".uname\0\0", kernel_release, size(kernel_release)),
        (b".initrd\0", parts.initrd, size(parts.initrd)),
        (b".linux\0\0", parts.kernel, memory_bytes(parts.kernel)?),
    ];
    let mut pe = Pe::parse(parts.stub)?;
    let mut places = Vec::new();
    for (name, data, in_memory) in sections {
        let offset = pe.append(name, data, in_memory)?;
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        places.push((name, offset, data.len() as u64));
    }
    Ok(Uki { bytes: pe.bytes, sections: places })
}

/// Bytes that a kernel takes in memory: `SizeOfImage` of its own PE header, which a kernel with an EFI stub has.
fn memory_bytes(kernel: &[u8]) -> Result<u64> {
    let wrong = |_| Error::malformed("kernel", "it has no EFI stub: take one built with CONFIG_EFI_STUB");
    let size = || {
        let optional = at(u32_at(kernel, 0x3c)? as usize, PE_HEAD_BYTES)?;
        u32_at(kernel, at(optional, SIZE_OF_IMAGE)?)
    };
    Ok(u64::from(size().map_err(wrong)?).max(kernel.len() as u64))
}

struct Pe {
    bytes: Vec<u8>,
    pe_offset: usize,
    optional_offset: usize,
    table_offset: usize,
    sections: u16,
    header_limit: usize,
    align: u64,
    next_address: u64,
}

impl Pe {
    fn parse(stub: &[u8]) -> Result<Self> {
        let bytes = stub.to_vec();
        if bytes.get(..2) != Some(b"MZ") {
            return Err(refuse("it is no PE program"));
        }
        let pe_offset = u32_at(&bytes, 0x3c)? as usize;
        if slice(&bytes, pe_offset, 4)? != b"PE\0\0" {
            return Err(refuse("it is no PE program"));
        }
        let sections = u16_at(&bytes, at(pe_offset, 6)?)?;
        let optional_bytes = usize::from(u16_at(&bytes, at(pe_offset, 20)?)?);
        let optional_offset = at(pe_offset, PE_HEAD_BYTES)?;
        if u16_at(&bytes, optional_offset)? != MAGIC_64 {
            return Err(refuse("it is not for 64 bits"));
        }
        let table_offset = at(optional_offset, optional_bytes)?;
        let align = u64::from(u32_at(&bytes, at(optional_offset, SECTION_ALIGNMENT)?)?);
        if !align.is_power_of_two() || align > 1 << 20 {
            return Err(refuse("its section alignment makes no sense"));
        }
        let mut header_limit = u32_at(&bytes, at(optional_offset, SIZE_OF_HEADERS)?)? as usize;
        let mut next_address = 0;
        for section in 0..usize::from(sections) {
            let row = at(table_offset, section * SECTION_ROW_BYTES)?;
            let (size, address) = (u32_at(&bytes, at(row, 8)?)?, u32_at(&bytes, at(row, 12)?)?);
            let (raw_size, raw) = (u32_at(&bytes, at(row, 16)?)?, u32_at(&bytes, at(row, 20)?)?);
            next_address = next_address.max(u64::from(address) + u64::from(size.max(raw_size)));
            if raw > 0 {
                header_limit = header_limit.min(raw as usize);
            }
        }
        Ok(Self {
            bytes,
            pe_offset,
            optional_offset,
            table_offset,
            sections,
            header_limit,
            align,
            next_address,
        })
    }

    fn append(&mut self, name: &[u8; 8], data: &[u8], in_memory: u64) -> Result<u64> {
        let row = at(self.table_offset, usize::from(self.sections) * SECTION_ROW_BYTES)?;
        if at(row, SECTION_ROW_BYTES)? > self.header_limit {
            return Err(refuse("its header has no room for another section"));
        }
        let fit = |value: u64| u32::try_from(value).map_err(|_| refuse("with its parts it exceeds 4 GiB"));
        let file_offset = (self.bytes.len() as u64).next_multiple_of(FILE_ALIGN);
        let raw_bytes = (data.len() as u64).next_multiple_of(FILE_ALIGN);
        let address = self.next_address.next_multiple_of(self.align.max(FILE_ALIGN));
        self.next_address =
            address.checked_add(in_memory.max(raw_bytes)).ok_or_else(|| refuse("it is too large"))?;
        let mut entry = Vec::with_capacity(SECTION_ROW_BYTES);
        entry.extend(name);
        for value in [in_memory, address, raw_bytes, file_offset, 0, 0, 0] {
            entry.extend(fit(value)?.to_le_bytes());
        }
        entry.extend(CHARACTERISTICS.to_le_bytes());
        write(&mut self.bytes, row, &entry)?;
        self.bytes.resize(usize::try_from(file_offset).map_err(|_| refuse("it is too large"))?, 0);
        self.bytes.extend(data);
        self.bytes.resize(self.bytes.len().next_multiple_of(FILE_ALIGN as usize), 0);
        self.sections += 1;
        let sections = self.sections.to_le_bytes();
        write(&mut self.bytes, at(self.pe_offset, 6)?, &sections)?;
        let field = at(self.optional_offset, SIZE_OF_INITIALIZED_DATA)?;
        let initialised = u64::from(u32_at(&self.bytes, field)?) + raw_bytes;
        write(&mut self.bytes, field, &fit(initialised)?.to_le_bytes())?;
        let image_bytes = fit(self.next_address.next_multiple_of(self.align))?;
        write(&mut self.bytes, at(self.optional_offset, SIZE_OF_IMAGE)?, &image_bytes.to_le_bytes())?;
        write(&mut self.bytes, at(self.optional_offset, CHECKSUM)?, &[0; 4])?;
        Ok(file_offset)
    }
}

fn refuse(why: &str) -> Error {
    Error::malformed("systemd stub", why)
}

fn at(start: usize, more: usize) -> Result<usize> {
    start.checked_add(more).ok_or_else(|| refuse("an offset outside"))
}

fn slice(bytes: &[u8], offset: usize, len: usize) -> Result<&[u8]> {
    bytes.get(offset..).and_then(|rest| rest.get(..len)).ok_or_else(|| refuse("it is cut short"))
}

fn u16_at(bytes: &[u8], offset: usize) -> Result<u16> {
    let found = slice(bytes, offset, 2)?;
    Ok(u16::from_le_bytes(found.try_into().map_err(|_| refuse("it is cut short"))?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Result<u32> {
    let found = slice(bytes, offset, 4)?;
    Ok(u32::from_le_bytes(found.try_into().map_err(|_| refuse("it is cut short"))?))
}

fn write(bytes: &mut [u8], offset: usize, data: &[u8]) -> Result<()> {
    let place = bytes
        .get_mut(offset..)
        .and_then(|rest| rest.get_mut(..data.len()))
        .ok_or_else(|| refuse("it is cut short"))?;
    place.copy_from_slice(data);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PE with one section of 512 bytes at 0x1000.
    fn stub() -> Vec<u8> {
        let mut pe = vec![0; 1024 + 512];
        pe[..2].copy_from_slice(b"MZ");
        pe[0x3c] = 0x40;
        pe[0x40..0x44].copy_from_slice(b"PE\0\0");
        pe[0x46] = 1;
        pe[0x54] = 240;
        let optional = 0x40 + 24;
        pe[optional..optional + 2].copy_from_slice(&MAGIC_64.to_le_bytes());
        pe[optional + 32..optional + 36].copy_from_slice(&4096u32.to_le_bytes());
        pe[optional + 60..optional + 64].copy_from_slice(&1024u32.to_le_bytes());
        let row = optional + 240;
        for (field, value) in [(8, 300u32), (12, 0x1000), (16, 512), (20, 1024)] {
            pe[row + field..row + field + 4].copy_from_slice(&value.to_le_bytes());
        }
        pe
    }

    /// 5000 bytes that take 0x3000 in memory.
    fn kernel() -> Vec<u8> {
        let mut kernel = vec![1; 5000];
        kernel[0x3c..0x40].copy_from_slice(&0x40u32.to_le_bytes());
        kernel[0x40 + 24 + SIZE_OF_IMAGE..][..4].copy_from_slice(&0x3000u32.to_le_bytes());
        kernel
    }

    fn parts<'a>(stub: &'a [u8], kernel: &'a [u8]) -> Parts<'a> {
        Parts {
            stub,
            os_release: "ID=roro\n",
            command_line: "quiet",
            kernel_release: "6.1",
            kernel,
            initrd: &[2; 100],
        }
    }

    #[test]
    fn sections_follow_each_other_aligned_and_the_sizes_agree() {
        let stub = stub();
        let Uki { bytes: image, sections } = build(&parts(&stub, &kernel())).unwrap();
        assert_eq!(sections[4], (".linux".to_owned(), 0x5000, 5000));
        let read = |offset: usize| u32::from_le_bytes(image[offset..offset + 4].try_into().unwrap());
        let optional = 0x40 + 24;
        assert_eq!(image[0x46], 6);
        let rows: Vec<(u32, u32, u32)> = (1..6)
            .map(|section| optional + 240 + section * 40)
            .map(|row| (read(row + 8), read(row + 12), read(row + 20)))
            .collect();
        assert_eq!(
            rows,
            [
                (8, 0x2000, 0x1000),
                (5, 0x3000, 0x2000),
                (3, 0x4000, 0x3000),
                (100, 0x5000, 0x4000),
                (0x3000, 0x6000, 0x5000)
            ]
        );
        assert_eq!(read(optional + SIZE_OF_IMAGE), 0x9000);
        assert_eq!(read(optional + SIZE_OF_INITIALIZED_DATA), 6 * 4096);
        assert_eq!(image[0x5000..0x5000 + 5000], kernel());
        assert_eq!(image.len(), 0x7000);
    }

    /// The real stub, where systemd-boot-efi is installed, has room for our sections.
    #[test]
    fn the_stub_of_debian_is_accepted() {
        let Ok(stub) = std::fs::read("/usr/lib/systemd/boot/efi/linuxx64.efi.stub") else { return };
        assert!(build(&parts(&stub, &kernel())).unwrap().bytes.len() > stub.len() + 5000);
    }

    #[test]
    fn stubs_that_are_cut_or_full_are_refused() {
        let good = stub();
        let head_end = 0x40 + 24 + 240 + 40;
        for len in 0..head_end {
            assert!(build(&parts(&good[..len], &kernel())).is_err(), "{len}");
        }
        let mut full = good.clone();
        full[0x46] = 15;
        assert!(build(&parts(&full, &kernel())).is_err());
        assert!(build(&parts(&good, &[1; 60])).is_err(), "a kernel without a header");
    }
}
