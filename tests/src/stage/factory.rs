//! What a factory disk holds: bank A filled, bank B empty, both copies of the record, the loader's state as it is delivered.

use std::collections::BTreeMap;

use bank_format::{
    Bank, Release,
    loader::Kind,
    record::{COPY_BYTES, ImageProof, RECORD_BYTES, Record, encode_copy},
};

use super::image::{self, BOOT_BYTES, ROOT_BYTES};
use crate::{
    forge::verity_root,
    storage::{Contents, Place},
};

fn proof(image: &[u8]) -> ImageProof {
    ImageProof { bytes: image.len() as u64, verity_root: verity_root(image), salt: String::new() }
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
        (Place::Boot(Bank::B), vec![0; BOOT_BYTES]),
        (Place::Root(Bank::B), vec![0; ROOT_BYTES]),
    ]);
    places.extend(loader(kind)?);
    Ok(Contents { places, ..Contents::default() })
}

fn loader(kind: Kind) -> Result<Vec<(Place, Vec<u8>)>, String> {
    match kind {
        // The firmware knows nothing yet, and takes the removable path, or the only entry that there is.
        Kind::Efi | Kind::SystemdBoot => Ok(Vec::new()),
        Kind::Grub | Kind::UBoot | Kind::Tryboot | Kind::Script => Err(format!("{kind} is not simulated")),
    }
}
