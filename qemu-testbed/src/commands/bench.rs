//! `bench`: measures Roro beside other tools, and writes the page and the plot.

use std::path::{Path, PathBuf};

use crate::{
    bench::{
        self, Only, Request,
        goals::{self, Verdict},
        page, plot,
        results::Results,
    },
    error::{Error, Result},
    printer, workshop,
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the results go; by default target/testbed/bench
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Timed runs of each install; slower ones have three at most
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Measure only these tools, updates (v2, v3, unchanged, major) or modes (fast, slow-link, slow-disk); docs/ stays as it is
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    only: Vec<String>,
    /// Use v1.erofs, v2.erofs, v3.erofs and v2.sqfs of this folder instead of making them
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Measure nothing: write the page and the plot anew from this bench.json, into --out if it is given, else into docs/
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rounds", "only", "images"])]
    write: Option<PathBuf>,
}

impl Args {
    pub(super) fn run(self) -> Result<()> {
        let source = workshop::source_tree();
        let docs = source.join("docs");
        if let Some(file) = self.write {
            return show(&Results::read(&file)?, &[self.out.as_deref().unwrap_or(&docs)]);
        }
        let out = self.out.unwrap_or_else(|| workshop::target_folder(&source).join("testbed/bench"));
        std::fs::create_dir_all(&out).map_err(Error::io("create", &out))?;
        let only = Only::of(&self.only)?;
        let is_all = only.is_all();
        let request = Request { out, rounds: usize::from(self.rounds), only, images: self.images };
        let results = bench::run(&request)?;
        let mut folders = vec![&*request.out];
        if is_all {
            folders.push(&docs);
        }
        show(&results, &folders)
    }
}

/// Writes page and plot into each folder, and says the verdicts on what was measured.
fn show(results: &Results, folders: &[&Path]) -> Result<()> {
    for judged in goals::judge(results).iter().filter(|judged| judged.verdict != Verdict::NotMeasured) {
        printer::say(judged.line());
    }
    for folder in folders {
        for (name, text) in
            [("performance.md", page::write(results)), ("performance.svg", plot::draw(results))]
        {
            let file = folder.join(name);
            std::fs::write(&file, text).map_err(Error::io("write", &file))?;
            printer::say(format_args!("written: {}", file.display()));
        }
    }
    Ok(())
}
