//! Units: what `systemctl --root enable` and `mask` would do, in a tree.
//!
//! Source: the `[Install]` section in `systemd.unit(5)`. Links have the absolute path of the unit as target, as systemctl's have.

use std::collections::BTreeSet;

use crate::{
    error::{Error, Result},
    tree::Tree,
};

const OWN: &str = "etc/systemd/system";
const PLACES: [&str; 2] = [OWN, "usr/lib/systemd/system"];

/// Enables a unit and what it names with `Also=`.
pub fn enable(tree: &mut Tree, unit: &str) -> Result<()> {
    let mut done = BTreeSet::new();
    enable_once(tree, unit, &mut done)
}

fn enable_once(tree: &mut Tree, unit: &str, done: &mut BTreeSet<String>) -> Result<()> {
    if !done.insert(unit.to_owned()) {
        return Ok(());
    }
    let (file, instance) = find(tree, unit)?;
    let target = format!("/{file}");
    let text = tree.text(&file)?;
    let mut instance = instance;
    let install = install_section(&text);
    let values = |key: &'static str| {
        install.iter().filter(move |(found, _)| found == key).flat_map(|(_, value)| value.split_whitespace())
    };
    if instance.as_deref() == Some("") {
        instance = values("DefaultInstance").last().map(str::to_owned);
    }
    let name = match (&instance, unit.split_once('@')) {
        (Some(instance), Some((prefix, rest))) => {
            let suffix = rest.rsplit_once('.').map_or("", |(_, suffix)| suffix);
            format!("{prefix}@{instance}.{suffix}")
        }
        _ => unit.to_owned(),
    };
    let expand = |text: &str| text.replace("%i", instance.as_deref().unwrap_or_default());
    let mut links: Vec<String> = Vec::new();
    for (key, suffix) in [("WantedBy", "wants"), ("RequiredBy", "requires")] {
        links.extend(values(key).map(|by| format!("{OWN}/{}.{suffix}/{name}", expand(by))));
    }
    links.extend(values("Alias").map(|alias| format!("{OWN}/{}", expand(alias))));
    let also: Vec<String> = values("Also").map(expand).collect();
    if links.is_empty() && also.is_empty() {
        return Err(Error::malformed(unit, "its [Install] section names nothing, so it cannot be enabled"));
    }
    for link in links {
        tree.put_link(&link, &target)?;
    }
    for other in also {
        enable_once(tree, &other, done)?;
    }
    Ok(())
}

/// Makes a unit impossible to start.
pub fn mask(tree: &mut Tree, unit: &str) -> Result<()> {
    check_name(unit)?;
    tree.put_link(&format!("{OWN}/{unit}"), "/dev/null")
}

/// Path of the unit's file, and its instance if it has one (empty for a bare template).
fn find(tree: &Tree, unit: &str) -> Result<(String, Option<String>)> {
    check_name(unit)?;
    let template = unit.split_once('@').and_then(|(prefix, rest)| {
        let (instance, suffix) = rest.rsplit_once('.')?;
        Some((format!("{prefix}@.{suffix}"), instance.to_owned()))
    });
    let (file, instance) = match template {
        Some((file, instance)) => (file, Some(instance)),
        None => (unit.to_owned(), None),
    };
    let path = PLACES.iter().find_map(|place| tree.resolve(&format!("{place}/{file}")));
    match path {
        Some(path) => Ok((path, instance)),
        None => Err(Error::missing(format!("unit {unit}"), "no package of the appliance brings it")),
    }
}

fn check_name(unit: &str) -> Result<()> {
    if unit.contains('/') || !unit.contains('.') || unit.starts_with('.') {
        return Err(Error::malformed(unit, "expected the name of a unit, such as app.service"));
    }
    Ok(())
}

fn install_section(text: &str) -> Vec<(String, String)> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[Install]";
        } else if inside
            && !line.starts_with(['#', ';'])
            && let Some((key, value)) = line.split_once('=')
        {
            found.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Kind;

    fn link(tree: &Tree, path: &str) -> String {
        match tree.get(path).map(|entry| &entry.kind) {
            Some(Kind::Symlink(target)) => target.clone(),
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn every_line_of_the_install_section_becomes_links() {
        let mut tree = Tree::new();
        let unit = |name: &str| format!("usr/lib/systemd/system/{name}");
        tree.put_file(
            &unit("net.service"),
            "[Unit]\nWantedBy=never.target\n[Install]\n# no\nWantedBy=multi-user.target other.target\nAlias=dbus-net.service\nAlso=net.socket\n",
            0o644,
        )
        .unwrap();
        tree.put_file(&unit("net.socket"), "[Install]\nRequiredBy=sockets.target\nAlso=net.service\n", 0o644)
            .unwrap();
        tree.put_file(
            &unit("getty@.service"),
            "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n",
            0o644,
        )
        .unwrap();
        enable(&mut tree, "net.service").unwrap();
        enable(&mut tree, "getty@.service").unwrap();
        enable(&mut tree, "getty@ttyS0.service").unwrap();
        for (path, target) in [
            ("multi-user.target.wants/net.service", "net.service"),
            ("other.target.wants/net.service", "net.service"),
            ("dbus-net.service", "net.service"),
            ("sockets.target.requires/net.socket", "net.socket"),
            ("getty.target.wants/getty@tty1.service", "getty@.service"),
            ("getty.target.wants/getty@ttyS0.service", "getty@.service"),
        ] {
            assert_eq!(link(&tree, &format!("{OWN}/{path}")), format!("/{}", unit(target)));
        }
        assert!(tree.get(&format!("{OWN}/never.target.wants/net.service")).is_none());
        mask(&mut tree, "net.socket").unwrap();
        assert_eq!(link(&tree, "etc/systemd/system/net.socket"), "/dev/null");
    }

    #[test]
    fn what_cannot_be_enabled_is_told() {
        let mut tree = Tree::new();
        tree.put_file("usr/lib/systemd/system/static.service", "[Service]\n", 0o644).unwrap();
        assert!(enable(&mut tree, "static.service").unwrap_err().to_string().contains("[Install]"));
        assert!(enable(&mut tree, "gone.service").unwrap_err().to_string().contains("no package"));
        assert!(enable(&mut tree, "../x.service").is_err());
    }
}
