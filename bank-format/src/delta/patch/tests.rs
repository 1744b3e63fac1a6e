//! Patches: they make what a plain model makes, and a wrong one makes nothing.

use proptest::prelude::*;

use super::*;

/// What the page says, byte by byte, in numbers that cannot overflow; `None` where it cannot be done.
fn model(ops: &[Op], diff: &[u8], extra: &[u8], base: &[u8]) -> Option<Vec<u8>> {
    let (mut diff, mut extra) = (diff.iter(), extra.iter());
    let mut place = 0i128;
    let mut target = Vec::new();
    for op in ops {
        if op.add == 0 && op.extra == 0 {
            return None;
        }
        place += i128::from(op.seek);
        if place < 0 || place > base.len() as i128 {
            return None;
        }
        for _ in 0..op.add {
            let byte = base.get(usize::try_from(place).ok()?)?;
            target.push(byte.wrapping_add(*diff.next()?));
            place += 1;
        }
        for _ in 0..op.extra {
            target.push(*extra.next()?);
        }
    }
    (diff.next().is_none() && extra.next().is_none()).then_some(target)
}

fn run(ops: &[u8], diff: &[u8], extra: &[u8], mut base: &[u8]) -> Result<Vec<u8>, ApplyError<Error>> {
    let mut out = b"what was there before".to_vec();
    apply(ops, diff, extra, &mut base, &mut out).map(|()| out)
}

#[test]
fn bytes_of_the_base_are_changed_and_others_put_between() {
    let ops = [Op { seek: 1, add: 3, extra: 2 }, Op { seek: -2, add: 2, extra: 0 }];
    let made = run(&encode_ops(&ops), &[0, 1, 255, 0, 10], b"XY", b"-abcd").unwrap();
    assert_eq!(made, b"acbXYbm");
}

#[test]
fn places_beyond_the_base_and_streams_that_do_not_end_are_refused() {
    let op = |seek, add, extra| Op { seek, add, extra };
    type Case<'a> = (&'a str, &'a [Op], usize, usize);
    let good: &[Case] = &[
        ("nothing", &[], 0, 0),
        ("from the middle to the end and back", &[op(2, 2, 0), op(-4, 4, 0)], 6, 0),
        ("only extra", &[op(0, 0, 5)], 0, 5),
        ("seek to the end", &[op(4, 0, 1)], 0, 1),
    ];
    let bad: &[Case] = &[
        ("beyond the base", &[op(0, 5, 0)], 5, 0),
        ("beyond the base after a seek", &[op(0, 1, 0), op(3, 1, 0)], 2, 0),
        ("seek before the base", &[op(0, 1, 0), op(-2, 1, 0)], 2, 0),
        ("seek behind the base", &[op(5, 0, 1)], 0, 1),
        ("seek to the end of 64 bits", &[op(0, 1, 0), op(i64::MAX, 1, 0)], 2, 0),
        ("seek to the start of 64 bits", &[op(i64::MIN, 1, 0)], 1, 0),
        ("makes nothing", &[op(1, 0, 0), op(0, 1, 0)], 1, 0),
        ("too few differences", &[op(0, 2, 0)], 1, 0),
        ("too little extra", &[op(0, 0, 2)], 0, 1),
        ("differences left over", &[op(0, 1, 0)], 2, 0),
        ("extra left over", &[op(0, 1, 0)], 1, 1),
        ("no operations", &[], 1, 0),
        ("2^32 bytes", &[op(0, u32::MAX, 0)], 1, 0),
    ];
    for (cases, expected) in [(good, true), (bad, false)] {
        for (name, ops, diff, extra) in cases {
            let made = run(&encode_ops(ops), &vec![1; *diff], &vec![2; *extra], b"abcd");
            assert_eq!(made.is_ok(), expected, "{name}");
        }
    }
    let too_much = vec![0; MAX_PATCH_TARGET_BYTES as usize];
    assert!(run(&encode_ops(&[op(0, 0, 1)]), &too_much, &[0], b"").is_err(), "more than a target");
    assert!(run(&vec![0; MAX_PATCH_OPS_BYTES as usize + 1], &[], &[], b"").is_err(), "too many operations");
}

#[test]
fn an_error_of_the_base_is_told() {
    struct Rotten;
    impl BaseReader for Rotten {
        type Error = &'static str;
        fn bytes(&self) -> u64 {
            100
        }
        fn read_at(&mut self, _: u64, _: &mut [u8]) -> Result<(), Self::Error> {
            Err("rotten")
        }
    }
    let ops = encode_ops(&[Op { seek: 0, add: 1, extra: 0 }]);
    let error = apply(&ops, &[1], &[], &mut Rotten, &mut Vec::new()).unwrap_err();
    assert!(matches!(error, ApplyError::Base { source: "rotten" }));
    let ops = encode_ops(&[Op { seek: 0, add: 0, extra: 1 }]);
    assert!(
        apply(&ops, &[], &[1], &mut Rotten, &mut Vec::new()).is_ok(),
        "nothing is read where nothing is needed"
    );
}

fn stream(stored_bytes: u32, bytes: u32) -> Stream {
    Stream { stored_bytes, bytes }
}

fn plain() -> Header {
    Header { kind: Kind::Plain, ops: stream(3, 3), diff: stream(2, 700), extra: stream(0, 0) }
}

fn packed() -> Header {
    let block = |offset| BaseBlock { offset, stored_bytes: 3_000_000, decoded_bytes: MAX_LZ4_BLOCK_BYTES };
    let base_blocks = vec![block(5000), block(9_000_000)];
    let kind = Kind::Lz4 { level: 9, decoded_bytes: 750, base_blocks };
    Header { kind, ops: stream(3, 6), diff: stream(10, 700), extra: stream(50, 50) }
}

fn whole(header: &Header) -> Vec<u8> {
    let streams = header.ops.stored_bytes + header.diff.stored_bytes + header.extra.stored_bytes;
    let mut bytes = header.encode().unwrap();
    bytes.resize(bytes.len() + streams as usize, 0);
    bytes
}

#[test]
fn headers_there_and_back() {
    for header in [plain(), packed()] {
        let bytes = whole(&header);
        let (read, streams) = Header::decode(&bytes).unwrap();
        assert_eq!(read, header);
        let head_bytes = header.encode().unwrap().len();
        assert_eq!(streams.ops, head_bytes..head_bytes + 3);
        assert_eq!(streams.diff.start, streams.ops.end);
        assert_eq!(streams.extra.start, streams.diff.end);
        assert_eq!(streams.extra.end, bytes.len());
        assert!(Header::decode(&bytes[..bytes.len() - 1]).is_err(), "cut short");
        assert!(Header::decode(&[&bytes[..], &[0]].concat()).is_err(), "a byte more");
    }
    assert_eq!(plain().target_bytes(), 700);
    assert_eq!(plain().diff.encoding(), Encoding::Zstd);
    assert_eq!(plain().ops.encoding(), Encoding::Stored);
}

#[test]
fn headers_that_ask_for_too_much_are_refused() {
    fn blocks(header: &mut Header) -> &mut Vec<BaseBlock> {
        match &mut header.kind {
            Kind::Lz4 { base_blocks, .. } => base_blocks,
            Kind::Plain => panic!("it has no blocks"),
        }
    }
    fn level(header: &mut Header) -> &mut u32 {
        match &mut header.kind {
            Kind::Lz4 { level, .. } => level,
            Kind::Plain => panic!("it has no level"),
        }
    }
    type Spoil = fn(&mut Header);
    let spoils: [(&str, Spoil); 15] = [
        ("makes nothing", |h| (h.diff, h.extra) = (stream(0, 0), stream(0, 0))),
        ("no operations", |h| h.ops = stream(0, 0)),
        ("stored longer than it is", |h| h.extra = stream(51, 50)),
        ("nothing stored for something", |h| h.extra = stream(0, 50)),
        ("operations of 4 MiB and a byte", |h| h.ops.bytes = MAX_PATCH_OPS_BYTES + 1),
        ("a target of 8 MiB and a byte", |h| h.diff.bytes = MAX_PATCH_TARGET_BYTES - 49),
        ("another target than the block", |h| h.diff.bytes = 701),
        ("level 0", |h| *level(h) = 0),
        ("level 13", |h| *level(h) = 13),
        ("nine base blocks", |h| *blocks(h) = vec![blocks(h)[0]; 9]),
        ("a block of nothing", |h| blocks(h)[0].stored_bytes = 0),
        ("a block that makes nothing", |h| blocks(h)[0].decoded_bytes = 0),
        ("a block of 8 MiB and a byte", |h| blocks(h)[0].decoded_bytes = MAX_LZ4_BLOCK_BYTES + 1),
        ("a packed block too large", |h| blocks(h)[0].stored_bytes = MAX_LZ4_STORED_BYTES + 1),
        ("a block beyond any image", |h| blocks(h)[0].offset = u64::MAX),
    ];
    for (name, spoil) in spoils {
        let mut header = packed();
        spoil(&mut header);
        assert!(header.encode().is_err(), "{name}");
    }
    let mut most = packed();
    *blocks(&mut most) = vec![blocks(&mut most)[0]; 8];
    assert!(most.encode().is_ok());
}

#[test]
fn forged_headers_are_refused() {
    let forged = |numbers: &[u64], streams: usize| {
        let mut bytes = Vec::new();
        for number in numbers {
            varint::put(&mut bytes, *number);
        }
        bytes.resize(bytes.len() + streams, 0);
        Header::decode(&bytes)
    };
    assert!(forged(&[0, 3, 3, 2, 700, 0, 0], 5).is_ok());
    assert!(forged(&[1, 12, 700, 0, 3, 3, 2, 700, 0, 0], 5).is_ok(), "of no base block");
    let bad: &[(&str, &[u64], usize)] = &[
        ("kind 2", &[2, 3, 3, 2, 700, 0, 0], 5),
        ("level 0", &[1, 0, 700, 0, 3, 3, 2, 700, 0, 0], 5),
        ("2^60 base blocks", &[1, 9, 700, 1 << 60, 3, 3, 2, 700, 0, 0], 5),
        ("a block of 2^60 bytes", &[1, 9, 1 << 60, 0, 3, 3, 2, 700, 0, 0], 5),
        ("operations of 2^60 bytes", &[0, 3, 1 << 60, 2, 700, 0, 0], 5),
        ("a stream of 2^60 stored bytes", &[0, 3, 3, 1 << 60, 1 << 60, 0, 0], 5),
        ("streams beyond its end", &[0, 3, 3, 200, 700, 0, 0], 5),
        ("cut in its head", &[0, 3, 3, 2], 0),
    ];
    for (name, numbers, streams) in bad {
        assert!(forged(numbers, *streams).is_err(), "{name}");
    }
    assert!(Header::decode(&vec![0; MAX_PATCH_STORED_BYTES as usize + 1]).is_err());
}

/// Operations over a base of some hundred bytes, mostly possible ones.
fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = (-60i64..60, 0u32..40, 0u32..20).prop_map(|(seek, add, extra)| Op { seek, add, extra });
    proptest::collection::vec(op, 0..12)
}

proptest! {
    #[test]
    fn apply_does_what_the_model_does(
        ops in ops(),
        base in proptest::collection::vec(any::<u8>(), 0..400),
        noise in proptest::collection::vec(any::<u8>(), 800),
        off in (-1i64..2, -1i64..2),
    ) {
        // Streams of the right length, or of one byte more or less.
        let sum = |of: fn(&Op) -> u32, off: i64| (ops.iter().map(|op| i64::from(of(op))).sum::<i64>() + off).max(0) as usize;
        let diff = &noise[..sum(|op| op.add, off.0)];
        let extra = &noise[..sum(|op| op.extra, off.1)];
        prop_assert_eq!(run(&encode_ops(&ops), diff, extra, &base).ok(), model(&ops, diff, extra, &base));
    }

    #[test]
    fn apply_never_panics(
        ops in proptest::collection::vec(any::<u8>(), 0..40),
        diff in proptest::collection::vec(any::<u8>(), 0..40),
        extra in proptest::collection::vec(any::<u8>(), 0..40),
        base in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        if let Ok(made) = run(&ops, &diff, &extra, &base) {
            prop_assert_eq!(made.len(), diff.len() + extra.len());
        }
    }

    #[test]
    fn headers_never_panic_and_have_one_form(
        lz4 in any::<bool>(),
        flips in proptest::collection::vec((0usize..40, any::<u8>()), 0..5),
        cut in 0usize..20,
    ) {
        let mut bytes = whole(&if lz4 { packed() } else { plain() });
        for (at, value) in flips {
            let len = bytes.len();
            bytes[at % len] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(cut));
        if let Ok((header, streams)) = Header::decode(&bytes) {
            prop_assert_eq!(&header.encode().unwrap()[..], &bytes[..streams.ops.start]);
            prop_assert!(header.target_bytes() <= MAX_PATCH_TARGET_BYTES);
        }
    }
}
