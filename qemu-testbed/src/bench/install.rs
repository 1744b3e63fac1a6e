//! How long an install takes, from the command to the `sync` of the bank, each run paired with a plain dd just before it.
//!
//! The pairs are the point: a disk that is slow for a minute is slow for both. In each round every tool runs once, so that no
//! tool has the quiet part of the run to itself.

use crate::{
    bench::{
        Only,
        ground::{Applied, Ground},
        group::Rate,
        link::Link,
        measure::Conditions,
        results::{InstallRow, LeftOut, Paired, Results, rounded},
        tools::{Case, Mode, TOOLS, Tool},
        web::Web,
    },
    error::Result,
    limits, printer,
};

/// A tool, an update, and its runs so far.
struct Runner {
    tool: &'static Tool,
    case: Case,
    runs: Vec<(Paired, Applied)>,
    failed: bool,
}

/// The conditions of a mode, and the network that lasts as long as they do.
struct Hold {
    conditions: Conditions,
    _link: Option<Link>,
}

/// Times every tool in every mode that `only` lets through; each mode goes to `keep` when it is done.
pub fn measure(
    ground: &mut Ground,
    web: &mut Web,
    rounds: usize,
    only: &Only,
    results: &mut Results,
    keep: &mut dyn FnMut(&Results) -> Result<()>,
) -> Result<()> {
    for mode in Mode::ALL.into_iter().filter(|mode| only.place(mode.word())) {
        let runners = runners(mode, only);
        if runners.is_empty() {
            continue;
        }
        let hold = match hold(ground, mode)? {
            Ok(hold) => hold,
            Err(why) => {
                printer::say(format_args!("{} left out: {why}", mode.word()));
                results.left_out.push(LeftOut { place: mode.word().to_owned(), tool: None, why });
                continue;
            }
        };
        let rounds = match mode {
            Mode::Fast => rounds,
            Mode::SlowLink | Mode::SlowDisk => rounds.min(limits::BENCH_SLOW_ROUNDS),
        };
        // A server in the network that is held; the one outside cannot be reached from there.
        let mut inside = match mode {
            Mode::SlowLink => {
                Some(Web::start(&ground.shelf, &ground.notes("link"), &hold.conditions.prefix)?)
            }
            Mode::Fast | Mode::SlowDisk => None,
        };
        play(ground, inside.as_mut().unwrap_or(web), mode, &hold.conditions, rounds, runners, results)?;
        keep(results)?;
    }
    Ok(())
}

fn runners(mode: Mode, only: &Only) -> Vec<Runner> {
    let mut runners = Vec::new();
    for tool in TOOLS.iter().filter(|tool| tool.modes.contains(&mode) && only.tool(tool.name)) {
        let runner = |case| Runner { tool, case, runs: Vec::new(), failed: false };
        runners.push(runner(Case::Security));
        if tool.name == "roro" {
            runners.push(runner(Case::Package));
        }
    }
    runners
}

fn hold(ground: &Ground, mode: Mode) -> Result<Result<Hold, String>> {
    let mut hold = Hold { conditions: Conditions::default(), _link: None };
    match mode {
        Mode::Fast => {}
        Mode::SlowLink => match Link::held()? {
            Ok(link) => {
                hold.conditions.prefix = link.prefix();
                hold._link = Some(link);
            }
            Err(why) => return Ok(Err(why)),
        },
        Mode::SlowDisk => {
            let rate = Rate::of(ground.banks.target.node(), limits::BENCH_DISK_BYTES_PER_SECOND)?;
            if let Err(why) = ground.groups().hold(rate) {
                return Ok(Err(why.to_owned()));
            }
            hold.conditions.rate = Some(rate);
        }
    }
    Ok(Ok(hold))
}

fn play(
    ground: &mut Ground,
    web: &mut Web,
    mode: Mode,
    conditions: &Conditions,
    rounds: usize,
    mut runners: Vec<Runner>,
    results: &mut Results,
) -> Result<()> {
    for round in 1..=rounds {
        for runner in runners.iter_mut().filter(|runner| !runner.failed) {
            let (tool, case) = (runner.tool, runner.case);
            match pair(ground, web, tool, case, conditions)? {
                Ok((paired, applied)) => {
                    printer::say(format_args!(
                        "{:<9} {round} {:<24} {:<9} {:>7.2} s, dd {:.2} s",
                        mode.word(),
                        tool.name,
                        case.word(),
                        paired.cost.wall_seconds,
                        paired.dd.wall_seconds
                    ));
                    runner.runs.push((paired, applied));
                }
                Err(why) => {
                    runner.failed = true;
                    printer::say(format_args!(
                        "{:<9} {round} {:<24} left out: {why}",
                        mode.word(),
                        tool.name
                    ));
                    let tool = Some(tool.name.to_owned());
                    results.left_out.push(LeftOut { place: mode.word().to_owned(), tool, why });
                }
            }
        }
    }
    for runner in runners.into_iter().filter(|runner| !runner.failed && !runner.runs.is_empty()) {
        results.install.push(row(ground, mode, runner)?);
    }
    Ok(())
}

fn pair(
    ground: &mut Ground,
    web: &mut Web,
    tool: &Tool,
    case: Case,
    conditions: &Conditions,
) -> Result<Result<(Paired, Applied), String>> {
    if let Err(why) = ground.make(tool, case)? {
        return Ok(Err(why));
    }
    let dd = match ground.plain_dd(case, conditions)? {
        Ok(dd) => rounded(dd),
        Err(why) => return Ok(Err(why)),
    };
    Ok(ground
        .apply(tool, case, tool.before_install(), web, conditions)?
        .map(|applied| (Paired { cost: rounded(applied.cost), dd, bytes: applied.wire.bytes() }, applied)))
}

fn row(ground: &Ground, mode: Mode, mut runner: Runner) -> Result<InstallRow> {
    let runs = runner.runs.iter().map(|(paired, _)| *paired).collect();
    runner.runs.sort_by(|(one, _), (other, _)| one.cost.wall_seconds.total_cmp(&other.cost.wall_seconds));
    let middle = runner.runs.get(runner.runs.len() / 2);
    Ok(InstallRow {
        mode: mode.word().to_owned(),
        case: runner.case.word().to_owned(),
        tool: runner.tool.name.to_owned(),
        image_bytes: ground.image_bytes(runner.case)?,
        runs,
        report: middle.and_then(|(_, applied)| applied.report),
    })
}
