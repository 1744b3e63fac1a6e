//! `cargo run -p tests --example cuts -- replay TRACE`: plays one state of the power-cut suite, and tells what happens.
//! `... -- barriers`: the table of barriers in docs/testing.md, with the cut that misses each.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::process::ExitCode;

use bank_format::barrier::Barrier;
use tests::cuts::{Trace, removed, replay, workers::on_all_cores};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["replay", trace] => match trace.parse::<Trace>() {
            Ok(trace) => play(&trace),
            Err(why) => usage(&why),
        },
        ["barriers"] => barriers(),
        _ => usage("one of these is wanted:"),
    }
}

fn play(trace: &Trace) -> ExitCode {
    match replay(trace) {
        Ok(journal) => {
            println!("{}\n{trace}: as it should be", journal.join("\n"));
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("{violation}");
            ExitCode::FAILURE
        }
    }
}

fn barriers() -> ExitCode {
    let mut found = on_all_cores(Barrier::ALL.to_vec(), |barrier| (barrier, removed::caught(barrier).0));
    found.sort_by_key(|(barrier, _)| *barrier);
    println!("| barrier | what it is for | without it, this cut | leaves this |\n|---|---|---|---|");
    let mut all = ExitCode::SUCCESS;
    for (barrier, violation) in found {
        let (trace, why) = match violation {
            Some(violation) => (format!("`{}`", violation.trace), violation.why),
            None => {
                all = ExitCode::FAILURE;
                ("none".into(), "nobody misses it".into())
            }
        };
        println!("| `{}` | {} | {trace} | {why} |", barrier.name(), barrier.what());
    }
    all
}

fn usage(why: &str) -> ExitCode {
    println!("{why}\ncuts replay FLOW/LOADER[/TROUBLE]/CUT...\ncuts barriers");
    ExitCode::from(2)
}
