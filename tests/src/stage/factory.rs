//! What a factory disk holds: bank A filled, bank B empty, both copies of the record, the loader's state as it is delivered.

use std::collections::BTreeMap;

use bank_format::{
    Bank, Release,
    loader::{Grub, Kind},
    record::{COPY_BYTES, ImageProof, RECORD_BYTES, Record, encode_copy},
};

use super::image::{self, BOOT_BYTES, ROOT_BYTES, TAIL_BYTES};
use crate::{
    forge::verity_root,
    loaders::{script, tryboot, uboot},
    storage::{Contents, Place},
};

fn proof(image: &[u8]) -> ImageProof {
    ImageProof { bytes: image.len() as u64, verity_root: verity_root(image), salt: String::new(), tree: None }
}

/// The disk.
pub(super) fn contents(kind: Kind) -> Result<Contents, String> {
    let factory = image::Release::FACTORY;
    let (boot, root) = (factory.boot(), factory.root());
    let proofs = BTreeMap::from([("boot".to_owned(), proof(&boot)), ("root".to_owned(), proof(&root))]);
    let release = Release { name: "demo".into(), version: factory.version() };
    let record = Record::founded_on(Bank::A, Some(release), proofs);
    let mut copies = Vec::with_capacity(RECORD_BYTES);
    for sequence in [1, 2] {
        copies.extend(encode_copy(&record, sequence).map_err(|error| error.to_string())?);
        copies.resize(copies.len().next_multiple_of(COPY_BYTES), 0);
    }
    let mut places = BTreeMap::from([
        (Place::Record, copies),
        (Place::Boot(Bank::A), boot),
        (Place::Root(Bank::A), root),
        (Place::Boot(Bank::B), vec![0; BOOT_BYTES + TAIL_BYTES]),
        (Place::Root(Bank::B), vec![0; ROOT_BYTES + TAIL_BYTES]),
    ]);
    places.extend(loader(kind)?);
    let mut contents = Contents::of(places);
    if kind == Kind::Script {
        contents.variables_mut().insert(script::KEY.to_owned(), script::factory());
    }
    Ok(contents)
}

fn loader(kind: Kind) -> Result<Vec<(Place, Vec<u8>)>, String> {
    match kind {
        // The firmware knows nothing yet, and takes the removable path, or the only entry that there is.
        Kind::Efi | Kind::SystemdBoot | Kind::Script => Ok(Vec::new()),
        Kind::Grub => {
            let bytes = Grub::factory(Bank::A).map_err(|error| error.to_string())?;
            Ok(vec![(Place::Loader, bytes)])
        }
        Kind::UBoot => {
            let copy = |copy, serial| (Place::Environment(copy), uboot::render(&environment(), serial));
            // The serial is about to wrap: that is where comparing goes wrong.
            Ok(vec![copy(0, 254), copy(1, 255)])
        }
        Kind::Tryboot => Ok(vec![(Place::Autoboot, tryboot::factory())]),
    }
}

/// A board's environment as its vendor delivers it: the variables that decide are in sectors of their own.
fn environment() -> Vec<String> {
    let others = |letter: char| format!("{letter}={}", letter.to_string().repeat(600));
    vec![
        others('k'),
        "BOOT_ORDER=A B".into(),
        others('l'),
        "BOOT_A_LEFT=3".into(),
        others('m'),
        "BOOT_B_LEFT=0".into(),
        others('n'),
    ]
}
