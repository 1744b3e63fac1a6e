//! Image -> bundle -> checked image: the same bytes, whatever they are.

use std::{cell::RefCell, fs, num::NonZeroUsize};

use bank_format::{TrustRoot, index::Source};
use proptest::prelude::*;

use super::*;
use crate::{error::Kind, keys::tests::release_keys, limits::FRAME_RAW_BYTES, progress::Silent};

mod deltas;

const CHUNK: usize = 64 << 10;

/// Fast, and small frames, so that small images have many.
fn packing(threads: usize) -> Packing<'static> {
    Packing {
        level: 1,
        threads: NonZeroUsize::new(threads).unwrap(),
        frame_raw_bytes: 2 * CHUNK as u32,
        cache: None,
    }
}

struct Bench {
    dir: tempfile::TempDir,
    keys: ReleaseKeys,
}

impl Bench {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap(), keys: release_keys(1, 1) }
    }

    fn image(&self, name: &str, bytes: &[u8]) -> ImageSpec {
        let path = self.dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        ImageSpec { name: name.into(), path, tree: Tree::None, salt: vec![1, 2], lengths: None }
    }

    /// Cut every [`CHUNK`], whatever is in it.
    fn even(&self, name: &str, bytes: &[u8]) -> ImageSpec {
        let lengths = bytes.chunks(CHUNK).map(|chunk| chunk.len() as u32).collect();
        ImageSpec { lengths: Some(lengths), ..self.image(name, bytes) }
    }

    fn spec(&self, images: Vec<ImageSpec>) -> BundleSpec<'_> {
        BundleSpec {
            name: "demo".into(),
            version: Version::new(1, 0, 0),
            compatible: "test,any".into(),
            created_unix_seconds: 1_700_000_000,
            floor: None,
            build: Build { tool: "test".into(), source: None, commit: None },
            images,
            documents: vec![("packages".into(), b"a 1 all\n".to_vec())],
            keys: &self.keys,
            packing: packing(2),
            from: Older::default(),
        }
    }

    fn write(&self, spec: &BundleSpec<'_>) -> Vec<u8> {
        let out = self.dir.path().join("x.roro");
        write(spec, &out, &Silent).unwrap();
        fs::read(out).unwrap()
    }

    fn verify(&self, bytes: &[u8], root: &TrustRoot) -> Result<()> {
        let path = self.dir.path().join("check.roro");
        fs::write(&path, bytes).unwrap();
        BundleFile::open(&path)?.verify(root)?.check_all(&Silent)
    }

    fn images(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let path = self.dir.path().join("read.roro");
        fs::write(&path, bytes).unwrap();
        let bundle = BundleFile::open(&path).unwrap().verify(self.keys.root()).unwrap();
        (0..bundle.opened().manifest().images.len())
            .map(|number| {
                let image = RefCell::new(Vec::new());
                bundle
                    .read_image(number, &mut |bytes| {
                        image.borrow_mut().extend_from_slice(bytes);
                        Ok(())
                    })
                    .unwrap();
                image.into_inner()
            })
            .collect()
    }
}

/// Bytes that neither repeat nor shrink.
fn noise(bytes: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    };
    (0..bytes).map(|_| next()).collect()
}

#[test]
fn zeros_are_not_stored_and_repeats_are_stored_once() {
    let bench = Bench::new();
    let part = noise(CHUNK, 1);
    let image = [&part[..], &vec![0; 3 * CHUNK], &part, &noise(CHUNK, 2), &part, &[0; 10]].concat();
    let out = bench.dir.path().join("x.roro");
    let summary = write(&bench.spec(vec![bench.even("root", &image)]), &out, &Silent).unwrap();
    assert_eq!(summary.bytes, fs::metadata(&out).unwrap().len());
    let root = &summary.images[0];
    assert_eq!((root.chunks, root.zero_chunks, root.repeated_chunks), (8, 4, 2));
    assert_eq!(root.stored_bytes, 2 * CHUNK as u64, "noise is stored as it is");
    let bundle = BundleFile::open(&out).unwrap().verify(bench.keys.root()).unwrap();
    let table = bundle.table(0).unwrap();
    assert_eq!(table.chunks()[0].source, table.chunks()[4].source);
    assert_eq!(table.chunks()[7].source, Source::Zeros);
    assert_eq!(bundle.document(0).unwrap(), b"a 1 all\n");
    assert_eq!(bench.images(&fs::read(&out).unwrap()), [image]);
}

#[test]
fn the_same_bytes_for_any_number_of_threads() {
    let bench = Bench::new();
    let image = [noise(9 * CHUNK + 77, 4), vec![7; 12 * CHUNK], vec![0; CHUNK], noise(CHUNK, 4)].concat();
    let mut spec = bench.spec(vec![bench.image("root", &image), bench.image("boot", b"kernel")]);
    let first = bench.write(&spec);
    for threads in [1, 3, 16] {
        spec.packing = packing(threads);
        assert!(bench.write(&spec) == first, "{threads} threads");
    }
    assert_eq!(bench.images(&first), [image, b"kernel".to_vec()]);
}

#[test]
fn frames_are_full_at_their_limit() {
    let bench = Bench::new();
    let mut spec = bench.spec(vec![bench.even("root", &noise(5 * FRAME_RAW_BYTES as usize / 2, 5))]);
    spec.packing.frame_raw_bytes = FRAME_RAW_BYTES;
    bench.write(&spec);
    let bundle =
        BundleFile::open(&bench.dir.path().join("x.roro")).unwrap().verify(bench.keys.root()).unwrap();
    let raw: Vec<u32> = bundle.table(0).unwrap().frames().iter().map(|frame| frame.raw_bytes).collect();
    assert_eq!(raw, [FRAME_RAW_BYTES, FRAME_RAW_BYTES, FRAME_RAW_BYTES / 2]);
}

#[test]
fn two_of_three_keys_must_sign() {
    let mut bench = Bench::new();
    bench.keys = release_keys(3, 2);
    let bytes = bench.write(&bench.spec(vec![bench.image("root", b"system")]));
    bench.verify(&bytes, bench.keys.root()).unwrap();
    let stranger = release_keys(1, 1);
    let error = bench.verify(&bytes, stranger.root()).unwrap_err();
    assert_eq!(error.kind(), Kind::Rejected);
    assert!(error.hint().unwrap().contains("root.json"));
}

#[test]
fn bad_inputs_say_what_to_do_and_leave_no_file() {
    let bench = Bench::new();
    let out = bench.dir.path().join("x.roro");
    let refused = |images: Vec<ImageSpec>| {
        let error = write(&bench.spec(images), &out, &Silent).unwrap_err();
        assert!(!out.exists());
        error
    };
    assert_eq!(refused(vec![]).kind(), Kind::Usage);
    assert_eq!(refused(vec![bench.image("root", b"")]).kind(), Kind::Usage);
    let missing = ImageSpec { path: bench.dir.path().join("no"), ..bench.image("root", b"x") };
    assert_eq!(refused(vec![missing]).kind(), Kind::Device);
    let directory = ImageSpec { path: bench.dir.path().into(), ..bench.image("root", b"x") };
    assert_eq!(refused(vec![directory]).kind(), Kind::Usage);
    let twice = vec![bench.image("root", b"x"), bench.image("root", b"x")];
    assert_eq!(refused(twice).kind(), Kind::Rejected);
    let odd = ImageSpec { tree: Tree::Appended, ..bench.image("root", b"x") };
    assert_eq!(refused(vec![odd]).kind(), Kind::Rejected);
}

#[test]
fn every_flipped_byte_a_cut_and_a_longer_file_are_refused() {
    let bench = Bench::new();
    let image = [noise(300, 6), vec![3; 5000], vec![0; 3000]].concat();
    let good = bench.write(&bench.spec(vec![bench.image("root", &image)]));
    bench.verify(&good, bench.keys.root()).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x40;
        let error = bench.verify(&bad, bench.keys.root()).unwrap_err();
        assert_eq!(error.kind(), Kind::Rejected, "byte {at}: {error}");
    }
    for cut in [0, 1, 127, 128, 200, good.len() - 1] {
        let error = bench.verify(&good[..cut], bench.keys.root()).unwrap_err();
        assert_eq!(error.kind(), Kind::Rejected, "{cut} bytes: {error}");
    }
    let longer = [&good[..], &[0]].concat();
    assert_eq!(bench.verify(&longer, bench.keys.root()).unwrap_err().kind(), Kind::Rejected);
}

/// An image as file systems make them: runs of zeros, repeated blocks, noise and text.
fn image() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        (1..2 * CHUNK).prop_map(|bytes| vec![0; bytes]),
        (1..2 * CHUNK, any::<u64>()).prop_map(|(bytes, seed)| noise(bytes, seed)),
        (1..3usize).prop_map(|count| noise(CHUNK, 9).repeat(count)),
        (any::<u8>(), 1..CHUNK).prop_map(|(byte, bytes)| vec![byte; bytes]),
        proptest::collection::vec(any::<u8>(), 1..300),
    ];
    proptest::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..Default::default() })]
    #[test]
    fn any_image_comes_back_byte_for_byte(
        root in image(),
        boot in image(),
        threads in 1usize..5,
    ) {
        let bench = Bench::new();
        let mut spec = bench.spec(vec![bench.image("root", &root), bench.image("boot", &boot)]);
        let bytes = bench.write(&spec);
        prop_assert!(bench.verify(&bytes, bench.keys.root()).is_ok());
        prop_assert_eq!(bench.images(&bytes), vec![root, boot]);
        spec.packing = packing(threads);
        prop_assert!(bench.write(&spec) == bytes);
    }
}
