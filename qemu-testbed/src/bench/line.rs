//! The lines that tools are run with, as they stand in the tables and in the report: words, `{names}` and pipes.
//!
//! A line is cut into words before names are filled in, so a path with a space stays one word and no shell is asked.
//! ` | ` joins two stages, a trailing ` > FILE` keeps what the last one prints. Deliberately absent: all else a shell can do.

use std::{collections::BTreeMap, path::PathBuf};

use crate::error::{Error, Result};

/// What the names in braces stand for.
#[derive(Debug, Clone, Default)]
pub struct Names(BTreeMap<&'static str, String>);

/// A line with its names filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Program and arguments of each stage, the output of each being the input of the next.
    pub stages: Vec<Vec<String>>,
    /// Where the output of the last stage goes; nowhere if there is none.
    pub output: Option<PathBuf>,
}

impl Names {
    /// Gives a name its meaning, in place of an earlier one.
    pub fn set(&mut self, name: &'static str, meaning: impl Into<String>) {
        self.0.insert(name, meaning.into());
    }

    /// What a name stands for.
    pub fn get(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).ok_or_else(|| Error::Unexpected {
            what: "a line of the benchmark".to_owned(),
            wanted: "a name that has a meaning here".to_owned(),
            seen: format!("{{{name}}}"),
        })
    }

    /// A word with its names filled in.
    pub fn fill(&self, word: &str) -> Result<String> {
        let mut filled = String::new();
        let mut rest = word;
        while let Some((before, name, behind)) = first_name(rest) {
            filled.push_str(before);
            filled.push_str(self.get(name)?);
            rest = behind;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    /// Reads a line.
    pub fn line(&self, template: &str) -> Result<Line> {
        let mut stages = Vec::new();
        let mut stage: Vec<String> = Vec::new();
        let mut output = None;
        let mut words = template.split_whitespace();
        while let Some(word) = words.next() {
            match word {
                "|" => stages.push(std::mem::take(&mut stage)),
                ">" => output = words.next().map(|file| self.fill(file)).transpose()?.map(PathBuf::from),
                word => stage.push(self.fill(word)?),
            }
        }
        stages.push(stage);
        if stages.iter().any(Vec::is_empty) {
            return Err(Error::Unexpected {
                what: "a line of the benchmark".to_owned(),
                wanted: "a program in every stage".to_owned(),
                seen: template.to_owned(),
            });
        }
        Ok(Line { stages, output })
    }
}

/// What stands before the first name, the name, and what stands behind it. Braces around anything else are no name.
fn first_name(text: &str) -> Option<(&str, &str, &str)> {
    let is_of_a_name = |letter: char| letter.is_ascii_lowercase() || letter == '-';
    text.match_indices('{').find_map(|(at, _)| {
        let (before, rest) = text.split_at_checked(at)?;
        let (name, behind) = rest.strip_prefix('{')?.split_once('}')?;
        (!name.is_empty() && name.chars().all(is_of_a_name)).then_some((before, name, behind))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let mut names = Names::default();
        names.set("new", "/a folder/v2.erofs");
        names.set("url", "http://127.0.0.1:1");
        names
    }

    #[test]
    fn words_are_cut_before_names_are_filled_in() {
        let line = names().line("curl -s {url}/x | dd of={new} bs=4M > {new}.log").unwrap();
        let wanted =
            [vec!["curl", "-s", "http://127.0.0.1:1/x"], vec!["dd", "of=/a folder/v2.erofs", "bs=4M"]];
        assert_eq!(line.stages, wanted);
        assert_eq!(line.output, Some(PathBuf::from("/a folder/v2.erofs.log")));
    }

    #[test]
    fn braces_around_anything_else_stay() {
        let filled = names().fill("properties: { url = \"{url}/x\"; }; {} {{new}}").unwrap();
        assert_eq!(filled, "properties: { url = \"http://127.0.0.1:1/x\"; }; {} {/a folder/v2.erofs}");
    }

    #[test]
    fn a_name_without_meaning_and_a_stage_without_program_are_refused() {
        assert!(names().line("cat {old}").unwrap_err().to_string().contains("{old}"));
        for line in ["", "cat |", "| cat", "cat | | cat"] {
            assert!(names().line(line).is_err(), "{line}");
        }
    }
}
