//! The matrix: every scenario of the table with every boot loader, as many machines side by side as the host bears.
//!
//! Promises that no cell is empty: it was played and has its time, or it failed, or it says why it cannot be. The page that shows the
//! matrix is written by the same code. Deliberately absent: a second chance for a cell that failed.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    fs, io,
    path::Path,
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
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
            Self::UBoot => Cell::of(uboot::play(scenario)),
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
    took: Duration,
}

/// A cell to play.
#[derive(Clone, Copy)]
enum Task {
    Table(usize, Column),
    Alone(usize),
}

/// Plays everything.
pub fn play_all() -> Matrix {
    let started = Instant::now();
    // Column by column: what a loader's releases need is built by the first who wants them.
    let table =
        Column::ALL.iter().flat_map(|column| (0..table::ALL.len()).map(|row| Task::Table(row, *column)));
    let tasks: Mutex<VecDeque<Task>> =
        Mutex::new(table.chain((0..scenarios::ALL.len()).map(Task::Alone)).collect());
    let done: Mutex<Vec<(Task, Cell)>> = Mutex::default();
    thread::scope(|scope| {
        for _ in 0..slots::at_a_time() {
            scope.spawn(|| {
                while let Some(task) = locked(&tasks).pop_front() {
                    let cell = play(task);
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
    Matrix { rows, alone: alone.collect(), took: started.elapsed() }
}

fn play(task: Task) -> Cell {
    let (name, cell) = match task {
        Task::Table(row, column) => match table::ALL.get(row) {
            Some(scenario) => (format!("{} {}", scenario.name, column.word()), column.play(scenario)),
            None => return Cell::CannotBe("there is no such row"),
        },
        Task::Alone(row) => match scenarios::ALL.get(row) {
            Some(scenario) => (scenario.name.to_owned(), Cell::of(scenario.play())),
            None => return Cell::CannotBe("there is no such row"),
        },
    };
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
        let minutes = self.took.as_secs().div_ceil(60);
        writeln!(
            out,
            "\n{played} cells played in {minutes} minutes on {}, {} machines at a time; {failed} failed.",
            crate::accelerator::Accelerator::that_works().name(),
            slots::at_a_time(),
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
            took: Duration::from_secs(61),
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
    fn the_page_of_the_project_has_room_for_it() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/boot.md");
        let text = fs::read_to_string(page).unwrap();
        let new = replaced(&text, "| new |\n").unwrap();
        assert!(new.contains("| new |\n"));
        assert_eq!(replaced(&new, "| new |\n").unwrap(), new);
    }
}
