//! Deltas in a bundle: which older releases they come from, and that they are checked against them.

use super::*;
use crate::reader::SignedBundle;

const VERSIONS: [&str; 4] = ["1.0.0", "1.1.0", "1.2.0-rc.1", "2.0.0"];

impl Bench {
    /// Writes release `version` of this image below `folder`, which is made.
    fn release(&self, folder: &str, version: &str, image: &[u8], from: Older) -> (PathBuf, Result<Summary>) {
        let folder = self.dir.path().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(format!("demo-{version}.roro"));
        let version = Version::parse(version).unwrap();
        let images = vec![self.image("root", image), self.image("boot", b"kernel")];
        let summary = write(&BundleSpec { version, from, ..self.spec(images) }, &path, &Silent);
        (path, summary)
    }

    fn open(&self, path: &Path) -> SignedBundle {
        BundleFile::open(path).unwrap().verify(self.keys.root()).unwrap()
    }
}

fn from(paths: &[&Path]) -> Older {
    Older { paths: paths.iter().map(|path| path.to_path_buf()).collect(), ..Older::default() }
}

fn versions(summary: &Summary) -> Vec<String> {
    summary.images[0].deltas.iter().map(|(version, _)| version.to_string()).collect()
}

/// An image, and one in which every thousandth byte is another.
fn images() -> (Vec<u8>, Vec<u8>) {
    let old = noise(40_000, 11);
    let mut new = old.clone();
    new.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
    (old, new)
}

#[test]
fn a_delta_is_worth_its_bytes_and_no_byte_of_it_can_be_changed() {
    let bench = Bench::new();
    let (old, new) = images();
    let (first, _) = bench.release("r", "1.0.0", &old, Older::default());
    let (second, summary) = bench.release("r", "1.1.0", &new, from(&[&first, &first]));
    let summary = summary.unwrap();
    assert_eq!(versions(&summary), ["1.0.0"], "the same base counts once");
    assert!(summary.images[0].deltas[0].1 < 2_000, "{:?}", summary.images[0].deltas);
    let older = bench.open(&first);
    bench.open(&second).check_all(&Silent).unwrap();
    assert_eq!(bench.open(&second).check_deltas_from(&older, &Silent).unwrap(), 2);
    assert_eq!(older.check_deltas_from(&bench.open(&second), &Silent).unwrap(), 0);

    let good = fs::read(&second).unwrap();
    let start = bench.open(&second).opened().header().deltas.offset as usize;
    let mut harmless = 0;
    for at in start..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        fs::write(&second, &bad).unwrap();
        match bench.open(&second).check_deltas_from(&older, &Silent) {
            // A bit of a zstd frame that means nothing.
            Ok(_) => harmless += 1,
            Err(error) => assert_eq!(error.kind(), Kind::Rejected, "byte {at}: {error}"),
        }
    }
    assert!(harmless * 50 < good.len() - start, "{harmless} of {} bytes", good.len() - start);
}

#[test]
fn a_directory_means_the_newest_releases_before_this_one() {
    let bench = Bench::new();
    for (number, version) in VERSIONS.into_iter().enumerate() {
        bench.release("repo", version, &noise(40_000, number as u64), Older::default()).1.unwrap();
    }
    let repo = bench.dir.path().join("repo");
    // Another product, somebody else's, a damaged one, and something else altogether.
    let images = vec![bench.image("root", b"another")];
    let other = BundleSpec { name: "other".into(), ..bench.spec(images) };
    write(&other, &repo.join("other-1.1.5.roro"), &Silent).unwrap();
    let stranger = Bench { keys: release_keys(2, 1), ..Bench::new() };
    let (path, _) = stranger.release("r", "1.1.7", b"theirs", Older::default());
    fs::copy(path, repo.join("demo-1.1.7.roro")).unwrap();
    fs::write(repo.join("demo-1.1.8.roro"), "no bundle").unwrap();
    fs::write(repo.join("readme"), "no bundle").unwrap();

    let made = |version, most| {
        let older = Older { most, ..from(&[&repo]) };
        versions(&bench.release("out", version, b"the new one", older).1.unwrap())
    };
    assert_eq!(made("1.3.0", 4), ["1.2.0-rc.1", "1.1.0", "1.0.0"]);
    assert_eq!(made("1.2.0", 2), ["1.2.0-rc.1", "1.1.0"]);
    assert_eq!(made("2.0.0", 1), ["1.2.0-rc.1"], "not itself");
    assert!(made("1.0.0", 4).is_empty());
    assert!(made("1.3.0", 0).is_empty());
}

#[test]
fn a_bundle_of_another_product_is_refused_as_a_base() {
    let bench = Bench::new();
    let other = BundleSpec { name: "other".into(), ..bench.spec(vec![bench.image("root", b"another")]) };
    let path = bench.dir.path().join("other.roro");
    write(&other, &path, &Silent).unwrap();
    let (out, refused) = bench.release("out", "1.1.0", b"new", from(&[&path]));
    assert_eq!(refused.unwrap_err().kind(), Kind::Usage);
    assert!(!out.exists());
    let (_, refused) = bench.release("out", "1.1.0", b"new", from(&[&bench.dir.path().join("none")]));
    assert_eq!(refused.unwrap_err().kind(), Kind::Device);
}

#[test]
fn with_a_cache_the_bundle_is_the_same_and_a_damaged_cache_does_no_harm() {
    let bench = Bench::new();
    let (old, new) = images();
    let (first, _) = bench.release("r", "1.0.0", &old, Older::default());
    let (path, _) = bench.release("r", "1.1.0", &new, from(&[&first]));
    let expected = fs::read(path).unwrap();
    let directory = bench.dir.path().join("cache");
    let cache = crate::cache::Cache::open(&directory).unwrap();
    let out = bench.dir.path().join("again.roro");
    let again = || {
        let mut spec = bench.spec(vec![bench.image("root", &new), bench.image("boot", b"kernel")]);
        (spec.version, spec.from, spec.packing.cache) =
            (Version::new(1, 1, 0), from(&[&first]), Some(&cache));
        write(&spec, &out, &Silent).unwrap();
        fs::read(&out).unwrap() == expected
    };
    assert!(again(), "while it fills");
    let entries = || {
        let shelves = fs::read_dir(&directory).unwrap();
        shelves
            .flat_map(|shelf| fs::read_dir(shelf.unwrap().path()).unwrap())
            .map(|entry| entry.unwrap().path())
    };
    let kept = entries().count();
    assert!(kept >= 3, "{kept} entries for two frames and a patch");
    assert!(again(), "out of it");
    assert_eq!(entries().count(), kept);
    for (number, entry) in entries().enumerate() {
        let bytes = fs::read(&entry).unwrap();
        // Rot, and what somebody put there with a digest that fits.
        let lie = match number % 3 {
            0 => bytes[..bytes.len() / 2].to_vec(),
            1 => [&b"lie"[..], &Digest256::of(b"lie").0].concat(),
            _ => Digest256::of(b"").0.to_vec(),
        };
        fs::write(entry, lie).unwrap();
    }
    assert!(again(), "out of a damaged one");
}
