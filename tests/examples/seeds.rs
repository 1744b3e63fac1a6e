//! Makes the first seeds of the fuzz targets again: `cargo run -p tests --example seeds`.
//!
//! For a change of format. What fuzzing has found lies beside them under other names, and is kept.
#![expect(clippy::unwrap_used, reason = "a tool for this checkout, run by hand")]

#[path = "seeds/devices.rs"]
mod devices;
#[path = "seeds/formats.rs"]
mod formats;
#[path = "seeds/lies.rs"]
mod lies;

use std::{fs, path::Path};

/// Target, name, bytes.
type Seed = (&'static str, &'static str, Vec<u8>);

fn main() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (target, name, bytes) in [formats::all(), devices::all(), lies::all()].concat() {
        let folder = dir.join(target);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }
}
