//! `updater throttle`.

use super::{Context, Exit};
use crate::{
    config::Config,
    error::{Error, Result, file},
    throttle::{Limits, Override, Priority},
};

/// How much an install may take; without options, what counts now is shown.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Bytes of the network in a second, such as 500K or 2M; 0 is no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    network: Option<u64>,
    /// Bytes of the banks in a second, read and written; 0 is no limit
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    disk: Option<u64>,
    /// Let everything else on the device go first
    #[arg(long, conflicts_with = "normal")]
    idle: bool,
    /// Take turns with everything else
    #[arg(long)]
    normal: bool,
    /// Back to what the configuration says
    #[arg(long, conflicts_with_all = ["network", "disk", "idle", "normal"])]
    reset: bool,
}

impl Args {
    /// Sets and shows. No lock is taken: it is for installs that are under way.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config: Config = context.load()?;
        let over = Override::in_directory(&config.run_dir);
        if self.reset {
            over.write(None)?;
        }
        let counts = over.read()?.unwrap_or(config.install);
        let limit = |asked: Option<u64>, now: Option<u64>| {
            asked.map_or(now, |rate| Some(rate).filter(|rate| *rate > 0))
        };
        let wanted = Limits {
            network_bytes_per_second: limit(self.network, counts.network_bytes_per_second),
            disk_bytes_per_second: limit(self.disk, counts.disk_bytes_per_second),
            priority: match (self.idle, self.normal) {
                (true, _) => Priority::Idle,
                (false, true) => Priority::Normal,
                (false, false) => counts.priority,
            },
        };
        let limits = wanted;
        limits.check(config.network.min_bytes_per_second).map_err(|detail| Error::Usage { detail })?;
        if wanted != counts {
            std::fs::create_dir_all(&config.run_dir).map_err(file("create", &config.run_dir))?;
            over.write(Some(&wanted))?;
        }
        let rate =
            |rate: Option<u64>| rate.map_or("no limit".into(), |rate| format!("{rate} bytes per second"));
        let priority = match limits.priority {
            Priority::Normal => "normal",
            Priority::Idle => "idle",
        };
        let text = format!(
            "network: {}, disk: {}, priority: {priority}",
            rate(limits.network_bytes_per_second),
            rate(limits.disk_bytes_per_second)
        );
        context.say(&limits, &text);
        Ok(Exit::Done)
    }
}

/// A number, with K, M or G for powers of 1024.
fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (text.get(..at), 10),
        Some((at, 'm' | 'M')) => (text.get(..at), 20),
        Some((at, 'g' | 'G')) => (text.get(..at), 30),
        Some(_) | None => (Some(text), 0),
    };
    let number: Option<u64> = digits.and_then(|digits| digits.parse().ok());
    number
        .and_then(|number| number.checked_mul(1 << shift))
        .ok_or_else(|| "a number, such as 500K or 2M".into())
}
