//! The table of all tools. What they share stands in a tool without a name for each family.

use super::{Case, Family, Mode, RaucBytes, Setting, Tool, Verifies};

/// Writes its input into the target as fast as a plain tool can.
macro_rules! into_target {
    ($($before:literal),*) => {
        concat!(
            $($before,)*
            " | dd of={target} bs=4M iflag=fullblock oflag=direct conv=fsync,notrunc status=none"
        )
    };
}

/// Fetches one file before it is used.
macro_rules! fetch {
    ($file:literal) => {
        concat!("curl -sf -o {scratch}/fetched {url}/", $file)
    };
}

macro_rules! bundle {
    ($more:literal) => {
        concat!(
            "{image-tool} bundle --no-cache --name bench --compatible bench,any --version {version} --image root={new}",
            $more,
            " --keys {keys} --out {shelf}/new.roro"
        )
    };
}

const INSTALL: &[&str] = &["{updater} --config {config} install {url}/new.roro --json > {report}"];
const RAUC_BUNDLE: &str = "rauc bundle --cert={cert} --key={key} --keyring={cert} \
                           --mksquashfs-args={mksquashfs} {scratch}/content {shelf}/new.raucb";
const SWUPDATE: &[&str] = &["env TMPDIR={scratch} swupdate -H bench:1.0 -k {cert} -M -m -d {download}"];

const ALL_CASES: &[Case] = &Case::ALL;
const ALL_MODES: &[Mode] = &Mode::ALL;
const UPDATES: &[Case] = &[Case::Security, Case::Package];

const PLAIN: Tool = Tool {
    name: "",
    family: Family::Whole,
    verifies: Verifies::Nothing,
    setting: Setting::Plain,
    shares: None,
    make: &[],
    served: None,
    prepare: &[],
    apply: &[],
    cases: &[],
    modes: &[],
    note: "",
};
const RORO: Tool = Tool {
    family: Family::Roro,
    verifies: Verifies::EveryByte,
    setting: Setting::RoroDevice,
    served: Some("new.roro"),
    apply: INSTALL,
    ..PLAIN
};
const CHUNKS: Tool = Tool { family: Family::Chunks, verifies: Verifies::EveryByte, ..PLAIN };
const PATCH: Tool = Tool { family: Family::Patch, ..PLAIN };

/// Everybody, in the order of the tables.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "roro",
        make: &[bundle!(" --from {base}")],
        cases: ALL_CASES,
        modes: ALL_MODES,
        note: "bundle with a delta from v1; the device runs v1",
        ..RORO
    },
    Tool {
        name: "roro-without-delta",
        make: &[bundle!("")],
        cases: &[Case::Security],
        modes: &[Mode::Fast],
        note: "bundle without a delta; the device runs v1",
        ..RORO
    },
    Tool {
        name: "roro-full",
        setting: Setting::RoroFresh,
        shares: Some("roro-without-delta"),
        make: &[bundle!("")],
        cases: &[Case::Security, Case::Major],
        modes: ALL_MODES,
        note: "bundle without a delta; the device has nothing to copy from",
        ..RORO
    },
    Tool {
        name: "full-raw",
        make: &["ln -s {new} {shelf}/new.img"],
        served: Some("new.img"),
        apply: &[into_target!("curl -sf {url}/new.img")],
        cases: &[Case::Security],
        modes: ALL_MODES,
        note: "curl and dd",
        ..PLAIN
    },
    Tool {
        name: "full-zstd19",
        make: &["zstd -q -19 -T1 {new} -o {shelf}/new.zst"],
        served: Some("new.zst"),
        apply: &[into_target!("curl -sf {url}/new.zst | zstd -q -d -c")],
        cases: &[Case::Security, Case::Package, Case::Major],
        modes: ALL_MODES,
        note: "curl, zstd -d and dd",
        ..PLAIN
    },
    Tool {
        name: "casync-64k",
        make: &["casync make --chunk-size=65536 --store={shelf}/store {shelf}/new.caibx {new}"],
        apply: &[
            "casync extract --store={url}/store --seed={running} --seed-output=no {url}/new.caibx {target}",
        ],
        cases: ALL_CASES,
        modes: ALL_MODES,
        note: "its default size of chunks; the running bank as seed",
        ..CHUNKS
    },
    Tool {
        name: "casync-16k",
        make: &["casync make --chunk-size=16384 --store={shelf}/store {shelf}/new.caibx {new}"],
        apply: &[
            "casync extract --store={url}/store --seed={running} --seed-output=no {url}/new.caibx {target}",
        ],
        cases: UPDATES,
        ..CHUNKS
    },
    Tool {
        name: "casync-noseed",
        shares: Some("casync-64k"),
        make: &["casync make --chunk-size=65536 --store={shelf}/store {shelf}/new.caibx {new}"],
        apply: &["casync extract --store={url}/store --seed-output=no {url}/new.caibx {target}"],
        modes: &[Mode::Fast],
        note: "casync-64k without a seed",
        ..CHUNKS
    },
    Tool {
        name: "bita",
        make: &["{bita} compress -i {new} {shelf}/new.cba"],
        served: Some("new.cba"),
        apply: &["{bita} clone -f --seed {running} {url}/new.cba {target}"],
        cases: ALL_CASES,
        modes: ALL_MODES,
        note: "its defaults (brotli 6); the running bank as seed",
        ..CHUNKS
    },
    Tool {
        name: "bita-brotli11",
        make: &["{bita} compress --compression-level 11 -i {new} {shelf}/new.cba"],
        served: Some("new.cba"),
        apply: &["{bita} clone -f --seed {running} {url}/new.cba {target}"],
        cases: UPDATES,
        ..CHUNKS
    },
    Tool {
        name: "bita-noseed",
        shares: Some("bita"),
        make: &["{bita} compress -i {new} {shelf}/new.cba"],
        served: Some("new.cba"),
        apply: &["{bita} clone -f {url}/new.cba {target}"],
        modes: &[Mode::Fast],
        note: "bita without a seed",
        ..CHUNKS
    },
    Tool {
        name: "zchunk",
        make: &["zck -o {shelf}/new.zck {new}"],
        served: Some("new.zck"),
        prepare: &["zck -o {scratch}/old.zck {old}"],
        apply: &[
            "rm -f {scratch}/new.zck",
            "zckdl -q -q -s {scratch}/old.zck {url}/new.zck",
            into_target!("unzck -c new.zck"),
        ],
        cases: ALL_CASES,
        modes: &[Mode::Fast],
        note: "the device keeps v1 as a .zck file beside its banks",
        ..CHUNKS
    },
    Tool {
        name: "rauc-block-hash-index",
        setting: Setting::Rauc { adaptive: "adaptive=block-hash-index\n", bytes: RaucBytes::Mounted },
        make: &[RAUC_BUNDLE],
        served: Some("new.raucb"),
        apply: &[
            "env DBUS_STARTER_BUS_TYPE=session DBUS_SESSION_BUS_ADDRESS={bus} rauc install {shelf}/new.raucb",
        ],
        cases: UPDATES,
        modes: &[Mode::Fast, Mode::SlowDisk],
        note: "the bundle is a local file, as this version streams no plain bundle; bytes are those read from it",
        ..CHUNKS
    },
    Tool {
        name: "rauc-http",
        setting: Setting::Rauc { adaptive: "", bytes: RaucBytes::Http },
        make: &[RAUC_BUNDLE],
        served: Some("new.raucb"),
        apply: &[
            "env DBUS_STARTER_BUS_TYPE=session DBUS_SESSION_BUS_ADDRESS={bus} rauc install {url}/new.raucb",
        ],
        modes: ALL_MODES,
        note: "plain bundle by its address: fetched into a file first, then installed",
        ..CHUNKS
    },
    Tool {
        name: "swupdate-delta",
        setting: Setting::Swupdate {
            image: "new.zhead",
            description: "type = \"delta\"; properties: { url = \"{url}/new.zck\"; source = \"{running}\"; \
                          chain = \"raw\"; zckloglevel = \"error\"; };",
        },
        make: &["zck -u -h sha256 -o {shelf}/new.zck {new}"],
        apply: SWUPDATE,
        cases: ALL_CASES,
        modes: ALL_MODES,
        note: "zchunk's head in the .swu, chunks by ranges; the running bank as source",
        ..CHUNKS
    },
    Tool {
        name: "swupdate-zstd",
        family: Family::Whole,
        setting: Setting::Swupdate {
            image: "new.zst",
            description: "type = \"raw\"; installed-directly = true; compressed = \"zstd\";",
        },
        make: &["zstd -q -19 -T1 {new} -o {shelf}/new.zst"],
        served: Some("new.swu"),
        apply: SWUPDATE,
        modes: ALL_MODES,
        note: "zstd -19",
        ..CHUNKS
    },
    Tool {
        name: "swupdate-zlib",
        family: Family::Whole,
        setting: Setting::Swupdate {
            image: "new.gz",
            description: "type = \"raw\"; installed-directly = true; compressed = \"zlib\";",
        },
        make: &["gzip -9 -c {new} > {shelf}/new.gz"],
        served: Some("new.swu"),
        apply: SWUPDATE,
        modes: &[Mode::Fast],
        note: "gzip -9",
        ..CHUNKS
    },
    Tool {
        name: "swupdate-raw",
        family: Family::Whole,
        setting: Setting::Swupdate {
            image: "new.img",
            description: "type = \"raw\"; installed-directly = true;",
        },
        make: &["ln -s {new} {shelf}/new.img"],
        served: Some("new.swu"),
        apply: SWUPDATE,
        modes: &[Mode::Fast],
        note: "not compressed",
        ..CHUNKS
    },
    Tool {
        name: "bmaptool",
        family: Family::Whole,
        make: &["ln -s {new} {shelf}/new.img", "bmaptool -q create {new} -o {shelf}/new.bmap"],
        apply: &["bmaptool -q copy --bmap {shelf}/new.bmap {url}/new.img {target}"],
        modes: &[Mode::Fast, Mode::SlowDisk],
        note: "raw image; its map has digests of the ranges",
        ..CHUNKS
    },
    Tool {
        name: "xdelta3",
        make: &["xdelta3 -e -f -s {old} {new} {shelf}/new.vcdiff"],
        served: Some("new.vcdiff"),
        apply: &[fetch!("new.vcdiff"), into_target!("xdelta3 -d -c -s {old} {scratch}/fetched")],
        cases: &[Case::Security, Case::Package, Case::Unchanged],
        note: "its defaults",
        ..PATCH
    },
    Tool {
        name: "xdelta3-9-lzma",
        make: &["xdelta3 -9 -S lzma -B {window} -W 16777216 -e -f -s {old} {new} {shelf}/new.vcdiff"],
        served: Some("new.vcdiff"),
        apply: &[fetch!("new.vcdiff"), into_target!("xdelta3 -B {window} -d -c -s {old} {scratch}/fetched")],
        cases: UPDATES,
        note: "all of v1 as window",
        ..PATCH
    },
    Tool {
        name: "bsdiff",
        make: &["bsdiff {old} {new} {shelf}/new.bsdiff"],
        served: Some("new.bsdiff"),
        apply: &[
            fetch!("new.bsdiff"),
            "bspatch {old} {scratch}/out {scratch}/fetched",
            "dd if={scratch}/out of={target} bs=4M oflag=direct conv=fsync,notrunc status=none",
        ],
        cases: UPDATES,
        ..PATCH
    },
    Tool {
        name: "zstd19-patch-from",
        make: &["zstd -q -19 -T1 --long=31 --patch-from={old} {new} -o {shelf}/new.patch"],
        served: Some("new.patch"),
        apply: &[into_target!(
            "curl -sf {url}/new.patch | zstd -q -d --long=31 --memory=2048MB --patch-from={old} -c"
        )],
        cases: &[Case::Security, Case::Package, Case::Unchanged],
        modes: ALL_MODES,
        note: "the old image is read as a file",
        ..PATCH
    },
];
