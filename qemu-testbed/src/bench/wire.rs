//! Bytes on the wire, and what it costs to make and to apply an update, tool by tool.

use crate::{
    bench::{
        Only,
        ground::Ground,
        measure::{Conditions, Cost},
        rauc,
        results::{LeftOut, Results, WireRow, median_cost, rounded},
        tools::{Case, RaucBytes, Setting, TOOLS, Tool},
        web::Web,
    },
    error::Result,
    limits, printer,
};

/// A row that is arithmetic and no run: what RAUC's index could do at best.
pub const COMPUTED: &str = "rauc-block-hash-index-computed";

/// Measures every tool in every update that `only` lets through; each row goes to `keep` as soon as it is there.
pub fn measure(
    ground: &mut Ground,
    web: &mut Web,
    rounds: usize,
    only: &Only,
    results: &mut Results,
    keep: &mut dyn FnMut(&Results) -> Result<()>,
) -> Result<()> {
    for case in Case::ALL.into_iter().filter(|case| only.place(case.word())) {
        for tool in TOOLS.iter().filter(|tool| tool.cases.contains(&case) && only.tool(tool.name)) {
            match one(ground, web, tool, case, rounds.min(limits::BENCH_SLOW_ROUNDS))? {
                Ok(row) => {
                    printer::say(format_args!("{:<9} {:<24} {:>11} bytes", row.case, row.tool, row.bytes));
                    results.wire.push(row);
                }
                Err(why) => {
                    printer::say(format_args!("{:<9} {:<24} left out: {why}", case.word(), tool.name));
                    let tool = Some(tool.name.to_owned());
                    results.left_out.push(LeftOut { place: case.word().to_owned(), tool, why });
                }
            }
            if let Some(row) = computed(ground, tool, case)? {
                results.wire.push(row);
            }
            keep(results)?;
        }
    }
    Ok(())
}

fn one(
    ground: &mut Ground,
    web: &mut Web,
    tool: &Tool,
    case: Case,
    rounds: usize,
) -> Result<Result<WireRow, String>> {
    let make = match ground.make(tool, case)? {
        Ok(make) => make,
        Err(why) => return Ok(Err(why)),
    };
    let served_bytes = ground.served_bytes(tool)?;
    let mut applies = Vec::new();
    for _ in 0..rounds {
        match ground.apply(tool, case, tool.before_wire(), web, &Conditions::default())? {
            Ok(applied) => applies.push(applied),
            Err(why) => return Ok(Err(why)),
        }
    }
    let Some(first) = applies.first() else { return Ok(Err("no round was asked for".to_owned())) };
    let costs: Vec<Cost> = applies.iter().map(|applied| applied.cost).collect();
    Ok(Ok(WireRow {
        case: case.word().to_owned(),
        tool: tool.name.to_owned(),
        bytes: first.wire.bytes(),
        requests: first.wire.requests,
        served_bytes,
        make: make.map(rounded),
        apply: rounded(median_cost(&costs)),
        rounds: costs.len(),
        report: first.report,
    }))
}

/// Beside the row of RAUC's index.
fn computed(ground: &Ground, tool: &Tool, case: Case) -> Result<Option<WireRow>> {
    let (Setting::Rauc { bytes: RaucBytes::Mounted, .. }, Ok(new)) = (tool.setting, ground.new_image(case))
    else {
        return Ok(None);
    };
    Ok(Some(WireRow {
        case: case.word().to_owned(),
        tool: COMPUTED.to_owned(),
        bytes: rauc::computed_bytes(ground.old_image(), new)?,
        requests: 0,
        served_bytes: None,
        make: None,
        apply: Cost::default(),
        rounds: 0,
        report: None,
    }))
}
