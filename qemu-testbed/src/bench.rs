//! The benchmark: Roro beside the tools that Debian packages, and bita, on one and the same corpus in one run.
//!
//! [`tools`] says who is measured with which lines, [`wire`] counts bytes and costs, [`install`] takes the time. What was found is
//! kept as `bench.json`; [`page`] and [`plot`] show it and [`goals`] judges it, from that file alone. Needs root, for loop devices.
//! Figures of time and memory are those of this machine and this hour; bytes are the same everywhere. Deliberately absent: any
//! part in the tests, since a test that takes the time fails on a busy machine.

pub mod banks;
pub mod corpus;
pub mod goals;
pub mod ground;
pub mod group;
pub mod host;
pub mod install;
pub mod line;
pub mod link;
pub mod measure;
pub mod page;
pub mod plot;
pub mod programs;
pub mod rauc;
pub mod results;
pub mod roro;
pub mod swupdate;
pub mod tools;
pub mod web;
pub mod wire;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    bench::{
        corpus::Images,
        ground::Ground,
        programs::Programs,
        results::{FORMAT, LeftOut, Results},
        tools::{Case, Mode, TOOLS},
        web::Web,
    },
    error::{Error, Result},
    packages, printer, workshop,
};

/// What to measure, and where it goes.
#[derive(Debug)]
pub struct Request {
    /// The folder for results and for what is needed meanwhile.
    pub out: PathBuf,
    /// Runs of each install.
    pub rounds: usize,
    /// What is measured.
    pub only: Only,
    /// Images that are there.
    pub images: Option<PathBuf>,
}

/// The names that were given; without any of a kind, all of that kind are measured.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Only {
    tools: Vec<String>,
    places: Vec<String>,
}

impl Only {
    /// Sorts names of tools from those of updates and modes.
    pub fn of(names: &[String]) -> Result<Self> {
        let mut only = Only::default();
        let places = || Case::ALL.map(Case::word).into_iter().chain(Mode::ALL.map(Mode::word));
        for name in names {
            if tools::by_name(name).is_some() {
                only.tools.push(name.clone());
            } else if places().any(|place| place == name) {
                only.places.push(name.clone());
            } else {
                let known: Vec<&str> = TOOLS.iter().map(|tool| tool.name).chain(places()).collect();
                return Err(Error::NothingToMeasure { name: name.clone(), known: known.join(", ") });
            }
        }
        Ok(only)
    }

    /// Whether this tool is measured.
    #[must_use]
    pub fn tool(&self, name: &str) -> bool {
        self.tools.is_empty() || self.tools.iter().any(|tool| tool == name)
    }

    /// Whether this update or mode is played.
    #[must_use]
    pub fn place(&self, word: &str) -> bool {
        self.places.is_empty() || self.places.iter().any(|place| place == word)
    }

    /// Whether anything is left out.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.tools.is_empty() && self.places.is_empty()
    }
}

/// Measures. Gives what was found, which lies as `bench.json` in the folder, too.
pub fn run(request: &Request) -> Result<Results> {
    if !packages::is_root()? {
        return Err(Error::NotRoot { what: "the benchmark writes to loop devices" });
    }
    packages::install_missing_for_benchmark()?;
    let source = workshop::source_tree();
    printer::say("building what is measured");
    let programs = Programs::build(&source)?;
    let images = match &request.images {
        Some(folder) => Images::of(folder)?,
        None => Images::make(&workshop::target_folder(&source).join("testbed"))?,
    };
    let work = request.out.join("work");
    if work.exists() {
        fs::remove_dir_all(&work).map_err(Error::io("remove", &work))?;
    }
    fs::create_dir_all(&work).map_err(Error::io("create", &work))?;
    // Tools change their folder, and nginx has one of its own.
    let work = fs::canonicalize(&work).map_err(Error::io("find", &work))?;
    let results = measure(request, &source, &programs, images, &work)?;
    fs::remove_dir_all(&work).map_err(Error::io("remove", &work))?;
    Ok(results)
}

fn measure(
    request: &Request,
    source: &Path,
    programs: &Programs,
    images: Images,
    work: &Path,
) -> Result<Results> {
    let more: Vec<(&str, &Path)> = programs.bita.iter().map(|bita| ("bita", bita.as_path())).collect();
    let mut results = Results {
        format: FORMAT,
        host: host::describe(source)?,
        versions: host::versions(packages::BENCHMARK, &more)?,
        images: images.describe()?,
        wire: Vec::new(),
        install: Vec::new(),
        left_out: Vec::new(),
    };
    if let Err(why) = &programs.bita {
        let place = "everywhere".to_owned();
        results.left_out.push(LeftOut { place, tool: Some("bita".to_owned()), why: why.clone() });
    }
    let file = request.out.join("bench.json");
    let mut keep = |results: &Results| results.write(&file);
    printer::say("laying out banks, keys and v1");
    let mut ground = Ground::lay_out(work, images, programs)?;
    let mut web = Web::start(&ground.shelf, &ground.notes("web"), &[])?;
    wire::measure(&mut ground, &mut web, request.rounds, &request.only, &mut results, &mut keep)?;
    install::measure(&mut ground, &mut web, request.rounds, &request.only, &mut results, &mut keep)?;
    keep(&results)?;
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(names: &[&str]) -> Result<Only> {
        Only::of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_of_tools_and_places_are_told_apart() {
        let all = only(&[]).unwrap();
        assert!(all.is_all() && all.tool("bita") && all.place("fast"));
        let some = only(&["bita", "roro", "v2"]).unwrap();
        assert!(!some.is_all() && some.tool("bita") && !some.tool("casync-64k"));
        assert!(some.place("v2") && !some.place("fast"));
        let error = only(&["nobody"]).unwrap_err().to_string();
        assert!(error.contains("nobody") && error.contains("slow-link"), "{error}");
    }
}
