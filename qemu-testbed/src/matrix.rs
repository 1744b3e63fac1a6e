//! The matrix: every scenario of the table with every boot loader, as many machines side by side as the host bears.
//!
//! Promises that no cell is empty: it was played and has its time, or it failed, or it says why it cannot be. The page that shows the
//! matrix is written by the same code. Deliberately absent: a second chance for a cell that failed.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
    time::Duration,
};

use bank_format::loader::Kind;
use boot_hooks::scenarios::{self as table, Scenario};

use crate::{
    error::{Error, Result},
    loader::Loader,
    printer, scenarios, slots,
    stage::seconds,
    uboot,
};

/// What a column of the matrix is played with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// A whole system.
    System(Loader),
    /// U-Boot, with payload kernels.
    UBoot,
}

impl Column {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::System(Loader::Efi),
        Self::System(Loader::SystemdBoot),
        Self::System(Loader::GrubEfi),
        Self::System(Loader::GrubBios),
        Self::UBoot,
    ];

    /// Its name.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::System(loader) => loader.word(),
            Self::UBoot => Kind::UBoot.word(),
        }
    }

    /// Plays one cell.
    pub fn play(self, scenario: &'static Scenario) -> Cell {
        match self {
            Self::System(loader) => match scenarios::table::cannot_be(scenario, loader) {
                Some(why) => Cell::CannotBe(why),
                None => Cell::of(scenarios::table::play(scenario, loader)),
            },
            Self::UBoot => match (Cell::of(uboot::play(scenario)), uboot::cannot_be(scenario)) {
                (Cell::Passed(_), Some(why)) => Cell::CannotBe(why),
                (cell, _) => cell,
            },
        }
    }
}

impl std::str::FromStr for Column {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|column| column.word() == text)
            .ok_or_else(|| Error::NoLoader { name: text.to_owned() })
    }
}

/// One scenario with one boot loader.
#[derive(Debug)]
pub enum Cell {
    /// All was as the table wants it.
    Passed(Duration),
    /// It was not.
    Failed(Error),
    /// There can be no such thing, and why.
    CannotBe(&'static str),
}

impl Cell {
    /// What came of playing it.
    #[must_use]
    pub fn of(outcome: Result<Duration>) -> Self {
        match outcome {
            Ok(took) => Self::Passed(took),
            Err(error) => Self::Failed(error),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Passed(took) => format!("{} s", took.as_secs()),
            Self::Failed(_) => "**FAILED**".to_owned(),
            Self::CannotBe(_) => "–".to_owned(),
        }
    }
}

/// A row: its name, and a cell for each column.
#[derive(Debug)]
struct Row {
    name: &'static str,
    cells: Vec<Cell>,
}

/// Everything that was played.
#[derive(Debug)]
pub struct Matrix {
    rows: Vec<Row>,
    /// Scenarios that are about the whole system and not about loaders: played on UEFI alone.
    alone: Vec<Row>,
}

/// A cell to play.
#[derive(Clone, Copy)]
enum Task {
    Table(usize, Column),
    Alone(usize),
}

/// Plays everything; where `kept` is a run that was interrupted, what it has not passed.
pub fn play_all(kept: &Kept) -> Matrix {
    // Column by column: what a loader's releases need is built by the first who wants them.
    let table =
        Column::ALL.iter().flat_map(|column| (0..table::ALL.len()).map(|row| Task::Table(row, *column)));
    let tasks: Mutex<VecDeque<Task>> =
        Mutex::new((0..scenarios::ALL.len()).map(Task::Alone).chain(table).collect());
    let done: Mutex<Vec<(Task, Cell)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..slots::at_a_time() {
            scope.spawn(|| {
                loop {
                    let Some(task) = locked(&tasks).pop_front() else { return };
                    let cell = match kept.passed(&task.name()) {
                        Some(took) => Cell::Passed(took),
                        None => play(task),
                    };
                    // U-Boot's boards are made of other images.
                    let on_images = !matches!(task, Task::Table(_, Column::UBoot));
                    if let (Cell::Passed(took), true) = (&cell, on_images) {
                        kept.keep(&task.name(), *took);
                    }
                    locked(&done).push((task, cell));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut take = |is_it: &dyn Fn(Task) -> bool| -> Vec<Cell> {
        done.iter().position(|(task, _)| is_it(*task)).map(|at| done.swap_remove(at).1).into_iter().collect()
    };
    let rows = table::ALL.iter().enumerate().map(|(row, scenario)| Row {
        name: scenario.name,
        cells: Column::ALL
            .iter()
            .flat_map(|wanted| {
                take(&|task| matches!(task, Task::Table(at, column) if at == row && column == *wanted))
            })
            .collect(),
    });
    let rows = rows.collect();
    let alone = scenarios::ALL.iter().enumerate().map(|(row, scenario)| Row {
        name: scenario.name,
        cells: take(&|task| matches!(task, Task::Alone(at) if at == row)),
    });
    Matrix { rows, alone: alone.collect() }
}

impl Task {
    fn name(self) -> String {
        match self {
            Task::Table(row, column) => {
                let scenario = table::ALL.get(row).map(|scenario| scenario.name).unwrap_or_default();
                format!("{scenario} {}", column.word())
            }
            Task::Alone(row) => {
                scenarios::ALL.get(row).map(|scenario| scenario.name).unwrap_or_default().to_owned()
            }
        }
    }
}

fn play(task: Task) -> Cell {
    let name = task.name();
    let cell = match task {
        Task::Table(row, column) => table::ALL.get(row).map(|scenario| column.play(scenario)),
        Task::Alone(row) => scenarios::ALL.get(row).map(|scenario| Cell::of(scenario.play())),
    };
    let Some(cell) = cell else { return Cell::CannotBe("there is no such row") };
    match &cell {
        Cell::Passed(took) => printer::say(format_args!("--- {name} passed after {}", seconds(*took))),
        Cell::Failed(error) => {
            printer::say(format_args!("--- {name} FAILED"));
            printer::complain_of(error);
        }
        Cell::CannotBe(why) => printer::say(format_args!("--- {name} cannot be: {why}")),
    }
    cell
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Cells that have passed, in a file: a run that is interrupted can go on. It lies beside the images that they were played with, and
/// goes with them when anything in them changes; its name says what played them.
#[derive(Debug)]
pub struct Kept {
    file: PathBuf,
    /// What an earlier run has passed, and its time in milliseconds.
    earlier: BTreeMap<String, u64>,
    /// That, and what this one passes.
    all: Mutex<BTreeMap<String, u64>>,
}

/// Whether a run begins anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// Every cell is played.
    Anew,
    /// Only those that have not passed yet.
    WhereItStopped,
}

impl Kept {
    /// The cells in `file`, which need not exist.
    #[must_use]
    pub fn open(file: PathBuf, begin: Begin) -> Self {
        let bytes = fs::read(&file).ok().filter(|_| begin == Begin::WhereItStopped);
        let earlier: BTreeMap<_, _> =
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Kept { file, all: Mutex::new(earlier.clone()), earlier }
    }

    fn passed(&self, name: &str) -> Option<Duration> {
        self.earlier.get(name).copied().map(Duration::from_millis)
    }

    /// A file that cannot be written costs time later, and nothing else.
    fn keep(&self, name: &str, took: Duration) {
        let mut all = locked(&self.all);
        all.insert(name.to_owned(), u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        if let Ok(text) = serde_json::to_string_pretty(&*all) {
            fs::write(&self.file, text).ok();
        }
    }
}

impl Matrix {
    /// How many cells failed, and how many were played.
    #[must_use]
    pub fn failed(&self) -> (usize, usize) {
        let cells = || self.rows.iter().chain(&self.alone).flat_map(|row| &row.cells);
        let failed = cells().filter(|cell| matches!(cell, Cell::Failed(_))).count();
        let played = cells().filter(|cell| !matches!(cell, Cell::CannotBe(_))).count();
        (failed, played)
    }

    /// As Markdown, which people can read as well.
    #[must_use]
    pub fn text(&self) -> String {
        let mut notes: Vec<&str> = Vec::new();
        let mut out = String::from("| scenario |");
        for column in Column::ALL {
            write!(out, " {} |", column.word()).ok();
        }
        out.push_str("\n|---|");
        out.push_str(&"---|".repeat(Column::ALL.len()));
        for row in &self.rows {
            write!(out, "\n| `{}` |", row.name).ok();
            for cell in &row.cells {
                write!(out, " {}", cell.text()).ok();
                if let Cell::CannotBe(why) = cell {
                    let known = notes.iter().position(|note| note == why);
                    let number = known.unwrap_or_else(|| {
                        notes.push(why);
                        notes.len().saturating_sub(1)
                    });
                    write!(out, " ({})", number.saturating_add(1)).ok();
                }
                out.push_str(" |");
            }
        }
        out.push('\n');
        for (number, why) in (1..).zip(&notes) {
            write!(out, "\n({number}) {why}.\n").ok();
        }
        out.push_str(
            "\nOn UEFI alone, as no loader makes a difference there:\n\n| scenario | efi |\n|---|---|\n",
        );
        for row in &self.alone {
            let cells: String = row.cells.iter().map(Cell::text).collect();
            writeln!(out, "| `{}` | {cells} |", row.name).ok();
        }
        let (failed, played) = self.failed();
        let cells = || self.rows.iter().chain(&self.alone).flat_map(|row| &row.cells);
        let seconds: u64 =
            cells().map(|cell| if let Cell::Passed(took) = cell { took.as_secs() } else { 0 }).sum();
        writeln!(
            out,
            "\n{played} cells, {failed} failed; {} minutes of machines, {} at a time, on {}.",
            seconds.div_ceil(60),
            slots::at_a_time(),
            crate::accelerator::Accelerator::that_works().name(),
        )
        .ok();
        out
    }

    /// Puts the matrix into a page, between its marks.
    pub fn write_into(&self, page: &Path) -> Result<()> {
        let text = fs::read_to_string(page).map_err(Error::io("read", page))?;
        let new = replaced(&text, &self.text()).ok_or_else(|| {
            Error::io("find the marks of the matrix in", page)(io::Error::from(io::ErrorKind::NotFound))
        })?;
        fs::write(page, new).map_err(Error::io("write", page))
    }
}

const BEGIN: &str = "<!-- matrix: written by `qemu-testbed run --all --write-docs` -->\n";
const END: &str = "<!-- end of the matrix -->\n";

fn replaced(page: &str, matrix: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}{matrix}{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix() -> Matrix {
        let row = |name, last| Row {
            name,
            cells: vec![
                Cell::Passed(Duration::from_secs(17)),
                Cell::CannotBe("nothing counts there"),
                Cell::Failed(Error::NoScenario { name: "x".to_owned() }),
                Cell::Passed(Duration::from_secs(5)),
                last,
            ],
        };
        Matrix {
            rows: vec![
                row("first", Cell::CannotBe("it has no copies")),
                row("second", Cell::CannotBe("nothing counts there")),
            ],
            alone: vec![Row { name: "third", cells: vec![Cell::Passed(Duration::from_secs(3))] }],
        }
    }

    #[test]
    fn no_cell_is_empty_and_each_reason_stands_once() {
        let text = matrix().text();
        assert!(text.contains("| `first` | 17 s | – (1) | **FAILED** | 5 s | – (2) |\n"), "{text}");
        assert!(text.contains("| `second` | 17 s | – (1) | **FAILED** | 5 s | – (1) |\n"), "{text}");
        assert!(text.contains("\n(1) nothing counts there.\n\n(2) it has no copies.\n"), "{text}");
        assert!(text.contains("| `third` | 3 s |\n"), "{text}");
        assert_eq!(matrix().failed(), (2, 7));
    }

    #[test]
    fn a_run_goes_on_where_it_stopped_or_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("matrix.json");
        let first = Kept::open(file.clone(), Begin::WhereItStopped);
        first.keep("a efi", Duration::from_millis(1500));
        assert_eq!(first.passed("a efi"), None, "a run does not skip what it has played itself");
        let second = Kept::open(file.clone(), Begin::WhereItStopped);
        assert_eq!(second.passed("a efi"), Some(Duration::from_millis(1500)));
        assert_eq!(Kept::open(file, Begin::Anew).passed("a efi"), None);
    }

    #[test]
    fn the_page_of_the_project_has_room_for_it() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/boot.md");
        let text = fs::read_to_string(page).unwrap();
        let new = replaced(&text, "| new |\n").unwrap();
        assert!(new.contains("| new |\n"));
        assert_eq!(replaced(&new, "| new |\n").unwrap(), new);
    }
}
