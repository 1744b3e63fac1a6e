//! A network of its own whose loopback is held to a rate, by the kernel's token bucket filter (tc-tbf(8)).

use std::{
    process::{Child, Stdio},
    thread,
    time::Instant,
};

use crate::{
    error::{Error, Result},
    limits, process,
};

/// The network; it ends when dropped.
#[derive(Debug)]
pub struct Link {
    holder: Child,
}

impl Link {
    /// Makes the network. The inner error says why this host has none.
    pub fn held() -> Result<Result<Self, String>> {
        let holder = process::tied("unshare")
            .args(["--net", "--", "sleep", "infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| Error::Start { program: "unshare".to_owned(), source })?;
        let link = Link { holder };
        // Until `unshare` has done its work the process is still in our own network, which must not be touched.
        let deadline = Instant::now() + limits::BENCH_SERVICE_START;
        while !link.is_apart() {
            if Instant::now() > deadline {
                return Ok(Err("no network of its own could be made".to_owned()));
            }
            thread::sleep(limits::BENCH_LOOK_AGAIN);
        }
        let rate = format!("{}bit", limits::BENCH_LINK_BITS_PER_SECOND);
        let up = ["ip", "link", "set", "lo", "up"];
        let held = [
            "tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", &rate, "burst", "256k", "latency",
            "400ms",
        ];
        for words in [&up[..], &held[..]] {
            if let Err(error) = process::run(process::tied("nsenter").args(link.arguments()).args(words)) {
                return Ok(Err(error.to_string()));
            }
        }
        Ok(Ok(link))
    }

    /// The words that lead into it.
    #[must_use]
    pub fn prefix(&self) -> Vec<String> {
        std::iter::once("nsenter".to_owned()).chain(self.arguments()).collect()
    }

    fn arguments(&self) -> [String; 4] {
        ["-t".to_owned(), self.holder.id().to_string(), "-n".to_owned(), "--".to_owned()]
    }

    fn is_apart(&self) -> bool {
        let network = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let theirs = network(&self.holder.id().to_string());
        theirs.is_some() && theirs != network("self")
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.holder.kill().and_then(|()| self.holder.wait()).ok();
    }
}
