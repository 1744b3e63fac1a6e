//! Users and groups: what `systemd-sysusers` would make of the packages' `sysusers.d`, and those of the appliance.
//!
//! Source: `sysusers.d(5)`. Nobody has a password and nobody has a shell. A number that is not fixed is derived from the name, so
//! that another set of packages does not change who owns the files on the state partition.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use crate::{
    appliance::User,
    error::{Error, Result},
    tree::Tree,
};

const NO_SHELL: &str = "/usr/sbin/nologin";
/// Numbers given by name lie here: above what Debian hands out first, below people.
const DERIVED: std::ops::Range<u32> = 500..900;
/// Groups that udev's rules name and its package makes when it is configured.
const UDEV_GROUPS: [&str; 4] = ["input", "kvm", "render", "sgx"];

#[derive(Debug, Clone, Default)]
struct Account {
    uid: Option<u32>,
    gid: Option<u32>,
    comment: String,
    home: String,
}

/// What becomes passwd, group and shadow.
#[derive(Debug, Default)]
pub struct Accounts {
    users: BTreeMap<String, Account>,
    groups: BTreeMap<String, Option<u32>>,
    members: BTreeMap<String, BTreeSet<String>>,
}

impl Accounts {
    /// Reads every `usr/lib/sysusers.d/*.conf` and adds the users of the appliance.
    pub fn collect(tree: &Tree, users: &[User]) -> Result<Self> {
        let mut accounts = Self::default();
        accounts.groups.insert("root".to_owned(), Some(0));
        accounts.user("root", Some(0), Some(0), "root", "/root");
        accounts.groups.insert("nogroup".to_owned(), Some(65_534));
        accounts.user("nobody", Some(65_534), Some(65_534), "nobody", "/nonexistent");
        let files: Vec<String> = tree
            .children("usr/lib/sysusers.d")
            .filter(|(name, _)| name.ends_with(".conf"))
            .map(|(name, _)| format!("usr/lib/sysusers.d/{name}"))
            .collect();
        for file in files {
            for line in tree.text(&file)?.lines() {
                accounts.line(line).map_err(|why| Error::malformed(&file, format!("{line}: {why}")))?;
            }
        }
        for group in UDEV_GROUPS {
            accounts.groups.entry(group.to_owned()).or_default();
        }
        for user in users {
            accounts.groups.insert(user.name.clone(), Some(user.uid));
            accounts.user(&user.name, Some(user.uid), Some(user.uid), "", &user.home);
            for group in &user.groups {
                accounts.groups.entry(group.clone()).or_default();
                accounts.members.entry(group.clone()).or_default().insert(user.name.clone());
            }
        }
        Ok(accounts)
    }

    fn user(&mut self, name: &str, uid: Option<u32>, gid: Option<u32>, comment: &str, home: &str) {
        let (comment, home) = (comment.to_owned(), home.to_owned());
        self.users.insert(name.to_owned(), Account { uid, gid, comment, home });
    }

    fn line(&mut self, line: &str) -> Result<(), String> {
        let words = words(line);
        let mut words = words.iter().map(String::as_str);
        let Some(kind) = words.next().filter(|kind| !kind.starts_with('#')) else { return Ok(()) };
        let name = words.next().ok_or("a name is missing")?;
        let field = |word: Option<&str>| word.filter(|word| *word != "-").unwrap_or_default().to_owned();
        let id = field(words.next());
        match kind.trim_end_matches('!') {
            "u" => {
                let comment = field(words.next());
                let home = Some(field(words.next())).filter(|home| !home.is_empty());
                let (uid, gid) = match id.split_once(':') {
                    Some((uid, gid)) => (number(uid)?, number(gid)?),
                    None => (number(&id)?, None),
                };
                // The own group of a user that names no other one.
                if gid.is_none() {
                    self.groups.entry(name.to_owned()).or_insert(uid);
                }
                if !self.users.contains_key(name) {
                    self.user(name, uid, gid, &comment, home.as_deref().unwrap_or("/"));
                }
            }
            "g" => {
                let gid = number(&id)?;
                let known = self.groups.entry(name.to_owned()).or_default();
                *known = known.or(gid);
            }
            "m" => {
                self.groups.entry(id.clone()).or_default();
                self.members.entry(id).or_default().insert(name.to_owned());
            }
            "r" => {}
            other => return Err(format!("the kind {other} is not known")),
        }
        Ok(())
    }

    /// Gives everyone a number and writes the three files, and `nologin` beside them where nobody can log in.
    pub fn write(self, tree: &mut Tree) -> Result<()> {
        let mut taken: BTreeSet<u32> = self.groups.values().flatten().copied().collect();
        taken.extend(self.users.values().filter_map(|user| user.uid));
        let mut groups = BTreeMap::new();
        for (name, gid) in &self.groups {
            let gid = match gid {
                Some(gid) => *gid,
                None => derive(name, &mut taken)?,
            };
            groups.insert(name.as_str(), gid);
        }
        let mut users: Vec<(u32, u32, &str, &Account)> = Vec::new();
        for (name, user) in &self.users {
            let own_group = groups.get(name.as_str()).copied();
            let uid = match (user.uid, own_group) {
                (Some(uid), _) => uid,
                // One number for user and group reads better; the group has just got a free one.
                (None, Some(gid)) => gid,
                (None, None) => derive(name, &mut taken)?,
            };
            let gid = user.gid.or(own_group).unwrap_or(uid);
            users.push((uid, gid, name, user));
        }
        users.sort_by_key(|(uid, _, name, _)| (*uid, *name));
        let mut passwd = String::new();
        let mut shadow = String::new();
        for (uid, gid, name, user) in users {
            passwd.push_str(&format!("{name}:x:{uid}:{gid}:{}:{}:{NO_SHELL}\n", user.comment, user.home));
            shadow.push_str(&format!("{name}:!*:::::::\n"));
        }
        let mut by_number: Vec<(u32, &str)> = groups.iter().map(|(name, gid)| (*gid, *name)).collect();
        by_number.sort_unstable();
        let mut group = String::new();
        let mut gshadow = String::new();
        for (gid, name) in by_number {
            let members: Vec<&str> =
                self.members.get(name).into_iter().flatten().map(String::as_str).collect();
            group.push_str(&format!("{name}:x:{gid}:{}\n", members.join(",")));
            gshadow.push_str(&format!("{name}:!*::{}\n", members.join(",")));
        }
        tree.put_file("etc/passwd", passwd.as_str(), 0o644)?;
        tree.put_file("etc/group", group.as_str(), 0o644)?;
        tree.put_file("etc/shadow", shadow.as_str(), 0o600)?;
        tree.put_file("etc/gshadow", gshadow.as_str(), 0o600)
    }
}

fn number(text: &str) -> Result<Option<u32>, String> {
    match text {
        "" | "-" => Ok(None),
        // The owner of a path decides: none of them exists at build time.
        path if path.starts_with('/') => Ok(None),
        digits => digits.parse().map(Some).map_err(|_| format!("{digits} is no number")),
    }
}

fn derive(name: &str, taken: &mut BTreeSet<u32>) -> Result<u32> {
    let digest: [u8; 32] = Sha256::digest(name).into();
    let [a, b, c, d, ..] = digest;
    let span = DERIVED.end - DERIVED.start;
    let start = u32::from_le_bytes([a, b, c, d]) % span;
    let free = (0..span).map(|step| DERIVED.start + (start + step) % span).find(|id| taken.insert(*id));
    free.ok_or_else(|| Error::malformed("accounts", "no number is left for another user"))
}

/// Words of a line; double quotes keep blanks together.
fn words(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            blank if blank.is_whitespace() && !quoted => found.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    found.extend(word);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(conf: &str) -> (String, String, String) {
        let mut tree = Tree::new();
        tree.put_file("usr/lib/sysusers.d/a.conf", conf, 0o644).unwrap();
        let kiosk = User {
            name: "kiosk".to_owned(),
            uid: 800,
            home: "/var/lib/kiosk".to_owned(),
            groups: vec!["video".to_owned()],
        };
        Accounts::collect(&tree, &[kiosk]).unwrap().write(&mut tree).unwrap();
        let text = |path| tree.text(path).unwrap();
        (text("etc/passwd"), text("etc/group"), text("etc/shadow"))
    }

    #[test]
    fn fixed_numbers_stay_and_others_depend_on_the_name_alone() {
        let conf = "# users\nu root 0 - /root /bin/bash\ng video 44 -\nu sync 4:65534 - /bin /bin/sync\n\
                    u messagebus - \"System Message Bus\"\nm messagebus video\n";
        let (passwd, group, shadow) = files(conf);
        assert!(
            passwd.starts_with("root:x:0:0:root:/root:/usr/sbin/nologin\nsync:x:4:65534::/bin:"),
            "{passwd}"
        );
        assert!(passwd.contains("kiosk:x:800:800::/var/lib/kiosk:"), "{passwd}");
        assert!(group.contains("video:x:44:kiosk,messagebus\n"), "{group}");
        assert!(shadow.lines().all(|line| line.contains(":!*:")));
        let bus = passwd.lines().find(|line| line.contains("System Message Bus")).unwrap().to_owned();
        let (more, _, _) = files(&format!("u aaa -\nu zzz -\n{conf}"));
        assert!(more.contains(&bus));
    }

    #[test]
    fn lines_that_make_no_sense_are_refused() {
        for line in ["u", "u a 1x", "q a 1"] {
            assert!(Accounts::default().line(line).is_err(), "{line}");
        }
        assert!(Accounts::default().line("").is_ok());
    }
}
