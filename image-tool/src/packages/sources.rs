//! Which lines of the host's apt configuration an appliance may use: those of its suite, with updates and security.
//!
//! A pure choice over texts; both forms that apt knows are read (`sources.list(5)`).

/// Sources in both forms; either may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// Lines `deb ...`.
    pub one_line: String,
    /// Stanzas.
    pub deb822: String,
}

impl Sources {
    /// Takes what fits from a file in the one-line form.
    pub fn add_one_line(&mut self, text: &str, suite: &str, components: &[String]) {
        for line in text.lines() {
            let line = line.split('#').next().unwrap_or_default();
            let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
            let rest = rest.trim_start();
            let (options, rest) = match rest.strip_prefix('[').and_then(|inner| inner.split_once(']')) {
                Some((options, rest)) => (format!("[{}] ", options.trim()), rest),
                None => (String::new(), rest),
            };
            let mut words = rest.split_whitespace();
            let (Some(uri), Some(found)) = (words.next(), words.next()) else { continue };
            let kept: Vec<&str> = words.filter(|word| components.iter().any(|known| known == word)).collect();
            if is_wanted(found, suite) && !uri.starts_with("cdrom:") && !kept.is_empty() {
                self.one_line.push_str(&format!("deb {options}{uri} {found} {}\n", kept.join(" ")));
            }
        }
    }

    /// Takes what fits from a file of stanzas.
    pub fn add_deb822(&mut self, text: &str, suite: &str, components: &[String]) {
        for stanza in stanzas(text) {
            let field = |name: &str| {
                stanza.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
            };
            let words = |name: &str| field(name).unwrap_or_default().split_whitespace();
            let disabled = words("Enabled").any(|word| matches!(word, "no" | "false" | "off" | "0"));
            let suites: Vec<&str> = words("Suites").filter(|found| is_wanted(found, suite)).collect();
            let kept: Vec<&str> =
                words("Components").filter(|word| components.iter().any(|known| known == word)).collect();
            let binary = words("Types").any(|word| word == "deb");
            if disabled || !binary || suites.is_empty() || kept.is_empty() {
                continue;
            }
            if !self.deb822.is_empty() {
                self.deb822.push('\n');
            }
            for (key, value) in &stanza {
                let value = match key.to_ascii_lowercase().as_str() {
                    "types" => "deb".to_owned(),
                    "suites" => suites.join(" "),
                    "components" => kept.join(" "),
                    _ => value.clone(),
                };
                self.deb822.push_str(&format!("{key}: {value}\n"));
            }
        }
    }
}

fn is_wanted(found: &str, suite: &str) -> bool {
    match found.strip_prefix(suite) {
        Some(rest) => matches!(rest, "" | "-updates" | "-security" | "/updates"),
        None => false,
    }
}

/// Stanzas as fields with their continuation lines.
fn stanzas(text: &str) -> Vec<Vec<(String, String)>> {
    let mut all: Vec<Vec<(String, String)>> = vec![Vec::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some(stanza) = all.last_mut() else { break };
        if line.trim().is_empty() {
            all.push(Vec::new());
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = stanza.last_mut() {
                value.push('\n');
                value.push_str(line);
            }
        } else if let Some((key, value)) = line.split_once(':') {
            stanza.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    all.retain(|stanza| !stanza.is_empty());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_suite_with_updates_and_security_is_taken() {
        let mut sources = Sources::default();
        let main = ["main".to_owned()];
        sources.add_one_line(
            "deb http://a/debian bookworm main contrib # home\n\
             deb-src http://a/debian bookworm main\n\
             deb [signed-by=/k arch=amd64] https://b/ bookworm-security main\n\
             deb https://vendor/ vendor-bookworm main\ndeb https://vendor/ bookworm stable\n\
             deb cdrom:[x]/ bookworm main\n# deb http://off bookworm main\n",
            "bookworm",
            &main,
        );
        assert_eq!(
            sources.one_line,
            "deb http://a/debian bookworm main\n\
             deb [signed-by=/k arch=amd64] https://b/ bookworm-security main\n"
        );
        sources.add_deb822(
            "# comment\nTypes: deb deb-src\nURIs: http://a/\nSuites: bookworm bookworm-backports\n\
             Components: main contrib\nSigned-By:\n -----BEGIN\n .\n\nTypes: deb\nURIs: http://off/\n\
             Suites: bookworm\nComponents: main\nEnabled: no\n\nTypes: deb\nURIs: http://n/\nSuites: nodistro\nComponents: main\n",
            "bookworm",
            &main,
        );
        assert_eq!(
            sources.deb822,
            "Types: deb\nURIs: http://a/\nSuites: bookworm\nComponents: main\nSigned-By: \n -----BEGIN\n .\n"
        );
    }
}
