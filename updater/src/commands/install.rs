//! `updater install SRC`.

use std::rc::Rc;

use super::{Context, Exit, lock};
use crate::{
    config::Config,
    device::{Device, Purpose},
    error::Result,
    install::{InstallResult, PlanReport, Terms, install, plan},
    printer,
    progress::watcher,
    throttle::{Override, Throttle, ThrottledDisk, ThrottledTransport},
    trust,
};

/// What to install.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A bundle: path or http(s) address
    source: String,
    /// Show what would be fetched and written, and change nothing
    #[arg(long)]
    plan: bool,
}

impl Args {
    /// Installs and arms.
    pub fn run(self, context: &Context) -> Result<Exit> {
        let config = context.load()?;
        let terms = terms(&config)?;
        let _lock = lock(&config)?;
        let mut device = Device::open(&config, if self.plan { Purpose::Look } else { Purpose::Act })?;
        throttle(&config, &mut device);
        let mut progress = watcher(context.format);
        if self.plan {
            let report = plan(&mut device, &terms, &self.source, progress.as_mut())?;
            context.say(&report, &described(&report));
            return Ok(if report.images.is_empty() { Exit::NothingToDo } else { Exit::Done });
        }
        let report = install(&mut device, &terms, &self.source, progress.as_mut())?;
        let (exit, text) = match &report.outcome {
            InstallResult::Installed => (
                Exit::Done,
                format!(
                    "installed {} into bank {} in {:.1} s; reboot to try it: updater reboot",
                    report.release, report.bank, report.seconds
                ),
            ),
            InstallResult::NothingToDo { detail } => (Exit::NothingToDo, format!("nothing to do: {detail}")),
        };
        if exit == Exit::NothingToDo && context.format == printer::Format::Json {
            printer::person(&text);
        }
        context.say(&report, &text);
        Ok(exit)
    }
}

/// Puts banks and network behind the limits.
fn throttle(config: &Config, device: &mut Device) {
    let ports = &mut device.ports;
    let over = Override::in_directory(&config.run_dir);
    let throttle = Throttle::new(Rc::clone(&ports.clock), config.install, Some(over));
    ports.disk = Rc::new(ThrottledDisk { disk: Rc::clone(&ports.disk), throttle: Rc::clone(&throttle) });
    ports.transport = Rc::new(ThrottledTransport { transport: Rc::clone(&ports.transport), throttle });
}

/// A plan for people.
fn described(report: &PlanReport) -> String {
    if report.images.is_empty() {
        return format!("nothing to do: {} is in bank {}", report.release, report.bank);
    }
    let kib = |bytes: u64| bytes.div_ceil(1024);
    let mut text = format!(
        "{} into bank {}: {} KiB of {} KiB would be fetched",
        report.release,
        report.bank,
        kib(report.bytes_to_fetch),
        kib(report.bundle_bytes)
    );
    for image in &report.images {
        text += &format!(
            "\n  {:8} {} KiB: {} in place, {} copied, {} zeros, {} by patches ({} to fetch), {} in frames ({} to fetch)",
            image.image,
            kib(image.bytes),
            kib(image.bytes_skipped),
            kib(image.bytes_copied),
            kib(image.bytes_zeros),
            kib(image.bytes_patched),
            kib(image.patches_bytes),
            kib(image.bytes_fetched),
            kib(image.frames_bytes)
        );
    }
    text
}

fn terms(config: &Config) -> Result<Terms> {
    Ok(Terms {
        compatible: config.compatible.clone(),
        trust: trust::load(&config.trust_root, &config.state())?,
        network: config.network.clone(),
    })
}
