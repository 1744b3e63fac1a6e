//! Makes `bank-format/tests/golden` again: `cargo run -p image-tool --example golden`.
//!
//! Only for a change of format, which gets files of its own beside the old ones: devices out there hold the old ones.
#![expect(clippy::unwrap_used, reason = "a tool for this checkout, run by hand")]

mod files;

use std::{fs, path::Path};

fn main() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bank-format/tests/golden");
    for (name, bytes) in files::all() {
        fs::write(dir.join(name), bytes).unwrap();
    }
}
