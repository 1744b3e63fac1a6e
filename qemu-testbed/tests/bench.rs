//! Page, plot and verdicts of the benchmark, from a kept sample whose figures are invented. Nothing is measured here.
//! `qemu-testbed bench --write qemu-testbed/tests/bench/sample.json --out qemu-testbed/tests/bench` makes the kept files anew.

#![expect(clippy::expect_used, clippy::panic, reason = "a suite that cannot set its stage has failed")]

use std::path::{Path, PathBuf};

use qemu_testbed::bench::{
    goals::{self, Judged, Verdict},
    page, plot,
    results::Results,
};

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bench").join(name)
}

fn sample() -> Results {
    Results::read(&kept("sample.json")).expect("the sample is readable")
}

fn judged(results: &Results, beginning: &str) -> Judged {
    let all = goals::judge(results);
    let found = all.into_iter().find(|judged| judged.goal.starts_with(beginning));
    found.unwrap_or_else(|| panic!("no goal begins with {beginning}"))
}

#[test]
fn page_and_plot_are_as_kept() {
    let results = sample();
    for (name, text) in [("performance.md", page::write(&results)), ("performance.svg", plot::draw(&results))]
    {
        let wanted = std::fs::read_to_string(kept(name)).expect("the kept file is there");
        assert!(text == wanted, "{name} has changed: if that is meant, make it anew (see above)\n{text}");
    }
}

#[test]
fn what_is_written_is_read_again() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bench.json");
    let results = sample();
    results.write(&file).expect("it is written");
    assert_eq!(Results::read(&file).expect("it is read"), results);
    let mut later = results;
    later.format = 2;
    later.write(&file).expect("it is written");
    assert!(Results::read(&file).is_err(), "another format is refused");
}

#[test]
fn each_goal_is_judged_by_its_own_figures() {
    for (beginning, measured, wanted) in [
        ("v1 to v2, bytes: 0.50", "6.000 MB", Verdict::Reached { part: 6.0 / 10.75 }),
        ("v1 to v2, bytes: 0.20", "6.000 MB", Verdict::Reached { part: 6.0 / 12.4 }),
        ("v1 to v3, bytes", "0.300 MB", Verdict::Reached { part: 0.3 / 0.45 }),
        ("an unchanged release", "0.070 MB", Verdict::Missed { times: 70_000.0 / 65_536.0 }),
        ("v1 to v2 without a delta", "45.000 MB", Verdict::Reached { part: 45.0 / 46.5 }),
        ("a major jump", "92.000 MB", Verdict::Reached { part: 92.0 / (91.5 * 1.01) }),
        ("updater, resident memory", "50.0 MiB", Verdict::Missed { times: 50.0 / 48.0 }),
        ("full install of v2 before the read-back", "0.95 s", Verdict::Reached { part: 0.95 }),
        ("the same with read-back", "1.25 s", Verdict::Reached { part: 1.25 / 1.5 }),
        ("full install of v2: a quarter", "1.25 s", Verdict::Reached { part: 1.25 / 1.275 }),
        ("full install of v2: the fastest other", "1.25 s", Verdict::Reached { part: 1.25 / 4.2 }),
        ("full install on the held link", "7.85 s", Verdict::Reached { part: 7.85 / (7.5 * 1.05) }),
        ("full install on the held disk", "-", Verdict::NotMeasured),
        ("v1 to v2 by delta, CPU", "3.25 s", Verdict::Reached { part: 0.65 }),
        ("the same, with those that send all", "1.25 s", Verdict::Reached { part: 1.25 / 4.2 }),
        ("v1 to v3: half", "0.75 s", Verdict::Missed { times: 1.2 }),
        ("the same on the held link", "-", Verdict::NotMeasured),
        ("the same on the held disk", "-", Verdict::NotMeasured),
        ("the bundle of v2 with a delta", "150.00 s", Verdict::Reached { part: 150.0 / 180.0 }),
        ("the same, memory", "1464.8 MiB", Verdict::Reached { part: 1_500_000.0 / 2_097_152.0 }),
    ] {
        let judged = judged(&sample(), beginning);
        assert_eq!(judged.measured, measured, "{beginning}");
        let near = match (judged.verdict, wanted) {
            (Verdict::Reached { part: seen }, Verdict::Reached { part: wanted })
            | (Verdict::Missed { times: seen }, Verdict::Missed { times: wanted }) => {
                (seen - wanted).abs() < 1e-9
            }
            (Verdict::NotMeasured, Verdict::NotMeasured) => true,
            (Verdict::Reached { .. } | Verdict::Missed { .. } | Verdict::NotMeasured, _) => false,
        };
        assert!(near, "{beginning}: {judged:?}, expected {wanted:?}");
    }
    assert_eq!(goals::judge(&sample()).len(), 20, "a new goal needs a line here");
}

#[test]
fn a_goal_whose_rows_are_missing_is_never_reached() {
    let mut results = sample();
    results.wire.clear();
    results.install.clear();
    for judged in goals::judge(&results) {
        assert_eq!(judged.verdict, Verdict::NotMeasured, "{}", judged.goal);
    }
}

#[test]
fn the_memory_of_any_run_counts() {
    let mut results = sample();
    for row in &mut results.wire {
        row.apply.peak_rss_kib = row.apply.peak_rss_kib.min(40_000);
        row.report = None;
    }
    assert!(matches!(judged(&results, "updater, resident").verdict, Verdict::Reached { .. }));
    let run =
        results.install.iter_mut().find(|row| row.tool == "roro-full").and_then(|row| row.runs.first_mut());
    run.expect("the sample has one").cost.peak_rss_kib = 60_000;
    assert!(matches!(judged(&results, "updater, resident").verdict, Verdict::Missed { .. }));
    // What others use is no concern of the goal.
    let mut others = sample();
    others.wire.retain(|row| !row.tool.starts_with("roro"));
    others.install.clear();
    assert_eq!(judged(&others, "updater, resident").verdict, Verdict::NotMeasured);
}
