//! The initrd: the static `boot-hooks` as `/init`, the modules that it loads, and the directories that it mounts on.

use crate::{
    error::Result,
    modules::KernelModules,
    tree::{Content, Entry, Kind, Tree},
};

/// Builds the tree. `modules` are loaded in their order, what they need before them.
pub fn build(init: Content, kernel: &KernelModules<'_>, root: &Tree, modules: &[String]) -> Result<Tree> {
    let mut tree = Tree::new();
    tree.put_file("init", init, 0o755)?;
    for directory in ["dev", "proc", "sys", "run", "sysroot", "modules"] {
        tree.put_directory(directory, 0o755)?;
    }
    // The kernel opens it before anything is mounted; without it the first messages of /init are lost.
    tree.put("dev/console", Entry::new(Kind::CharDevice { major: 5, minor: 1 }, 0o600))?;
    // Where no console driver answers, the runtime of /init opens it instead.
    tree.put("dev/null", Entry::new(Kind::CharDevice { major: 1, minor: 3 }, 0o666))?;
    let mut order = String::new();
    for path in kernel.closure(modules)? {
        let name = path.rsplit_once('/').map_or(path.as_str(), |(_, name)| name);
        tree.put_file(&format!("modules/{name}"), root.content(&path)?.clone(), 0o644)?;
        order.push_str(name);
        order.push('\n');
    }
    tree.put_file("modules/load", order.as_str(), 0o644)?;
    Ok(tree)
}
