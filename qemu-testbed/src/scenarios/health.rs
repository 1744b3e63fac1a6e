//! Health checks as a product declares them, in a whole system.

use bank_format::Bank;
use serde_json::Value;

use crate::{
    error::{Error, Result},
    limits,
    release::Release,
    server::Server,
    stage::Stage,
};

use super::beginnings;

/// What `qemu-testbed/appliances/checked.toml` declares, by kind.
const KINDS: [&str; 8] = ["command", "unit", "http", "tcp", "file", "free_space", "clock", "update_source"];
/// A soak is there where each check was looked at again.
const LOOKS: u64 = 2;

pub(super) fn every_kind_of_check_is_made(stage: &mut Stage) -> Result<()> {
    beginnings::first_boot(stage)?;
    stage.install(Release::Checked)?;
    // The update source of the release, and of nobody else.
    let source = Server::start_at(&stage.runs(), limits::SOURCE_PORT)?;
    stage.reboot()?;
    let status = stage.expect_confirmed(Bank::B, Release::Checked.version())?;
    let odd = |wanted: &str, seen: &Value| Error::Unexpected {
        what: "health in updater status".to_owned(),
        wanted: wanted.to_owned(),
        seen: seen.to_string(),
    };
    let health = status.get("health").unwrap_or(&Value::Null);
    if health.get("phase").and_then(Value::as_str) != Some("confirmed") {
        return Err(odd("the phase confirmed", health));
    }
    let checks = health.get("checks").and_then(Value::as_array).cloned().unwrap_or_default();
    for kind in KINDS {
        let healthy = checks.iter().any(|check| {
            check.get("kind").and_then(Value::as_str) == Some(kind)
                && check.get("state").and_then(Value::as_str) == Some("healthy")
                && check.get("looks").and_then(Value::as_u64).is_some_and(|looks| looks >= LOOKS)
        });
        if !healthy {
            return Err(odd(&format!("a check of the kind {kind}, healthy after {LOOKS} looks"), health));
        }
    }
    let requests = source.served().requests;
    if requests < LOOKS {
        return Err(odd(&format!("{LOOKS} requests to the update source"), &Value::from(requests)));
    }
    stage.tell(&format!("{} checks of {} kinds held through the soak", checks.len(), KINDS.len()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_asks_for_updates_where_they_are_served() {
        let text = include_str!("../../appliances/checked.toml");
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("appliances/checked.toml");
        image_tool::appliance::Appliance::load(&file).unwrap();
        assert!(text.contains(&format!("url = \"http://10.0.2.2:{}/updates\"", limits::SOURCE_PORT)));
        for kind in KINDS.into_iter().filter(|kind| *kind != "command") {
            assert!(text.contains(&format!("kind = \"{kind}\"")), "{kind}");
        }
    }
}
