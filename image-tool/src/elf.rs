//! The few questions that the mint asks of ELF files: is a program static, what does a kernel module need.

use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64, PT_INTERP},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _, SectionHeader as _},
};

type Header = FileHeader64<Endianness>;

/// Whether a program runs without a loader and shared libraries; `None` when it is no 64-bit ELF file.
#[must_use]
pub fn is_static(bytes: &[u8]) -> Option<bool> {
    let header = Header::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let programs = header.program_headers(endian, bytes).ok()?;
    Some(programs.iter().all(|program| program.p_type(endian) != PT_INTERP))
}

/// The fields of a kernel module's `.modinfo`, as `key=value`; `None` when it has none.
#[must_use]
pub fn module_info(bytes: &[u8]) -> Option<Vec<(String, String)>> {
    let header = Header::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, bytes).ok()?;
    let (_, section) = sections.section_by_name(endian, b".modinfo")?;
    let text = section.data(endian, bytes).ok()?;
    let fields = text.split(|byte| *byte == 0).filter_map(|field| {
        let field = String::from_utf8_lossy(field);
        field.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    });
    Some(fields.collect())
}

/// Names of the shared libraries that a program or library asks for.
#[must_use]
pub fn needed_libraries(bytes: &[u8]) -> Vec<String> {
    read_needed(bytes).unwrap_or_default()
}

fn read_needed(bytes: &[u8]) -> Option<Vec<String>> {
    let header = Header::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, bytes).ok()?;
    let (entries, strings) = sections.dynamic(endian, bytes).ok()??;
    let strings = sections.strings(endian, bytes, strings).ok()?;
    let names = entries.iter().filter(|entry| entry.tag(endian) == DT_NEEDED);
    Some(
        names
            .filter_map(|entry| entry.string(endian, strings).ok())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_a_program_with_a_loader() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(is_static(&own), Some(cfg!(target_feature = "crt-static")));
        assert!(
            needed_libraries(&own).contains(&"libc.so.6".to_owned()) != cfg!(target_feature = "crt-static")
        );
        assert_eq!(is_static(b"#!/bin/sh\n"), None);
        assert_eq!(module_info(b"no module"), None);
    }
}
