//! One look at one check. It may block for its limit, and runs on a thread of its own.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bank_format::health::{Kind, Least};

use super::{Subject, rounds::Trouble};
use crate::{
    clock::SystemClock,
    config::{Config, Network},
    http::{self, Http},
    limits::{
        EARLIEST_CLOCK, LATEST_CLOCK, MAX_CHECK_OUTPUT_BYTES, MAX_CHECKED_BYTES, MAX_NETWORK_STEP, MIN_LOOK,
    },
    linux,
    machine::Machine,
    ports::{Clock, Request, Transport, TransportError},
};

/// 407 of HTTP: it is the proxy that speaks, not the server. 401 and 403: a server that lets this device fetch nothing.
const REFUSALS: [u16; 3] = [401, 403, 407];

/// Who looks, and what it needs for that.
pub struct Eye {
    /// systemd, programs, containers.
    pub machine: Arc<dyn Machine>,
    state_dir: PathBuf,
    /// A file of the running image: its time is the time of the build.
    release_file: PathBuf,
    sources: Vec<String>,
    network: Network,
}

impl Eye {
    /// For the device of this configuration.
    #[must_use]
    pub fn new(machine: Arc<dyn Machine>, config: &Config) -> Self {
        Self {
            machine,
            state_dir: config.state_dir.clone(),
            release_file: config.release_file.clone(),
            sources: config.source.iter().map(|source| source.url.clone()).collect(),
            network: config.network.clone(),
        }
    }

    /// Looks once, for at most about `limit`.
    pub fn look(&self, subject: &Subject, limit: Duration) -> Result<(), Trouble> {
        let kind = match subject {
            Subject::FailedUnits => return self.failed_units(limit),
            Subject::State => {
                return state_is_writable(&self.state_dir).map_err(|error| Trouble::new(error.to_string()));
            }
            Subject::Declared(kind) => kind,
        };
        match kind {
            Kind::Command { command } => self.machine.check(command, limit),
            Kind::Unit { unit } => self.machine.unit_is_active(unit, limit).map_err(Trouble::new),
            Kind::Http { url, status, body_contains } => {
                web_answers(url, *status, body_contains.as_deref(), limit)
            }
            Kind::Tcp { address } => port_is_open(address, limit).map_err(Trouble::new),
            Kind::File { path, max_age_seconds, contains } => {
                file_is_there(Path::new(path), *max_age_seconds, contains.as_deref()).map_err(Trouble::new)
            }
            Kind::FreeSpace { path, least } => {
                has_room(Path::new(path), *least).map_err(|why| Trouble::new(format!("{path} {why}")))
            }
            Kind::Container { container, unit } => self.container_runs(container, unit.as_deref(), limit),
            Kind::Clock => {
                let built = std::fs::metadata(&self.release_file).and_then(|file| file.modified()).ok();
                clock_is_sane(SystemClock::default().unix_seconds(), built).map_err(Trouble::new)
            }
            Kind::UpdateSource => self.source_answers(limit),
        }
    }

    fn failed_units(&self, limit: Duration) -> Result<(), Trouble> {
        let units = self.machine.failed_units(limit).map_err(Trouble::new)?;
        if units.is_empty() { Ok(()) } else { Err(Trouble::new(format!("failed: {}", units.join(", ")))) }
    }

    fn container_runs(&self, container: &str, unit: Option<&str>, limit: Duration) -> Result<(), Trouble> {
        let status = self.machine.container_status(container, limit).map_err(Trouble::new)?;
        if status != "running" {
            return Err(Trouble::new(format!("container {container} is {status}")));
        }
        match unit {
            Some(unit) => self.machine.unit_is_active(unit, limit).map_err(Trouble::new),
            None => Ok(()),
        }
    }

    /// Asked as an install would ask: same client, same proxy, same certificates. Anything that a working server says will do; only
    /// its own failure (5xx) will not, nor that it, or a proxy, does not let this device in.
    fn source_answers(&self, limit: Duration) -> Result<(), Trouble> {
        let end = Instant::now() + limit;
        let mut troubles = Vec::new();
        for url in &self.sources {
            let step = end.saturating_duration_since(Instant::now()).min(MAX_NETWORK_STEP).as_secs().max(1);
            let mut network = self.network.clone();
            network.connect_timeout_seconds = network.connect_timeout_seconds.min(step);
            network.read_timeout_seconds = network.read_timeout_seconds.min(step);
            match Http::new(network).get(&Request { url, first: 0, last: 0 }) {
                Ok(answer) if answer.status < 500 && !REFUSALS.contains(&answer.status) => return Ok(()),
                Ok(answer) => {
                    troubles.push(format!("{}: status {}", http::server_of(url), answer.status));
                }
                Err(error) => troubles.push(format!("{}: {}", http::server_of(url), of_transport(&error))),
            }
            if Instant::now() >= end {
                break;
            }
        }
        if troubles.is_empty() {
            return Err(Trouble::new("no [[source]] is configured"));
        }
        Err(Trouble::new(format!("no update source answers: {}", troubles.join("; "))))
    }
}

fn of_transport(error: &TransportError) -> String {
    match error {
        TransportError::Network { source } => source.to_string(),
        TransportError::Refused { detail } => detail.clone(),
    }
}

fn state_is_writable(state_dir: &Path) -> io::Result<()> {
    std::fs::create_dir_all(state_dir)?;
    let path = state_dir.join("gate.probe");
    let mut file = File::create(&path)?;
    file.write_all(b"roro\n")?;
    file.sync_all()?;
    std::fs::remove_file(&path)?;
    linux::sync_directory_of(&path)
}

fn web_answers(url: &str, status: u16, body_contains: Option<&str>, limit: Duration) -> Result<(), Trouble> {
    let end = Instant::now() + limit;
    let answer =
        http::ask(url, limit.min(MAX_NETWORK_STEP)).map_err(|error| Trouble::new(of_transport(&error)))?;
    if answer.status != status {
        let mut trouble = Trouble::new(format!("status {}, expected {status}", answer.status));
        let (body, _) = read_part(answer.body, MAX_CHECK_OUTPUT_BYTES, end, None);
        trouble.output = String::from_utf8_lossy(&body).into_owned();
        return Err(trouble);
    }
    let Some(wanted) = body_contains else { return Ok(()) };
    let (body, found) = read_part(answer.body, MAX_CHECKED_BYTES, end, Some(wanted.as_bytes()));
    if found {
        return Ok(());
    }
    let shown = body.get(..body.len().min(MAX_CHECK_OUTPUT_BYTES)).unwrap_or_default();
    Err(Trouble {
        why: format!("{wanted:?} is not in the first {} bytes of the body", body.len()),
        output: String::from_utf8_lossy(shown).into_owned(),
    })
}

/// Reads until `wanted` is found, and never more than `limit_bytes`, nor much longer than `end`: the server may drip for ever.
fn read_part(
    mut from: impl Read,
    limit_bytes: usize,
    end: Instant,
    wanted: Option<&[u8]>,
) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    let mut buffer = [0; 4096];
    while body.len() < limit_bytes && Instant::now() < end {
        let read = match from.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            Ok(read) => read,
        };
        // What is looked for may begin in the part before.
        let overlap = wanted.map_or(0, |wanted| wanted.len().saturating_sub(1));
        let from_here = body.len().saturating_sub(overlap);
        body.extend_from_slice(buffer.get(..read).unwrap_or_default());
        body.truncate(limit_bytes);
        let news = body.get(from_here..).unwrap_or_default();
        if wanted.is_some_and(|wanted| contains(news, wanted)) {
            return (body, true);
        }
    }
    let empty = wanted.is_some_and(<[u8]>::is_empty);
    (body, empty)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn port_is_open(address: &str, limit: Duration) -> Result<(), String> {
    let (host, port) = address.rsplit_once(':').ok_or("address has no port")?;
    let port: u16 = port.parse().map_err(|_| "port is no number")?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let hosts = if host == "localhost" {
        vec![IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]
    } else {
        (host, port)
            .to_socket_addrs()
            .map_err(|error| format!("{host} cannot be resolved: {error}"))?
            .map(|address| address.ip())
            .collect()
    };
    let end = Instant::now() + limit;
    let mut last = format!("{host} has no address");
    for host in hosts {
        let step = end.saturating_duration_since(Instant::now()).clamp(MIN_LOOK, MAX_NETWORK_STEP);
        match TcpStream::connect_timeout(&SocketAddr::new(host, port), step) {
            Ok(_) => return Ok(()),
            Err(error) => last = format!("{address} does not accept connections: {error}"),
        }
    }
    Err(last)
}

fn file_is_there(path: &Path, max_age_seconds: Option<u64>, wanted: Option<&str>) -> Result<(), String> {
    let trouble = |error: io::Error| format!("{}: {error}", path.display());
    let about = std::fs::metadata(path).map_err(trouble)?;
    if let Some(limit) = max_age_seconds {
        // A time in the future is younger than any limit.
        let age = about.modified().map_err(trouble)?.elapsed().unwrap_or_default().as_secs();
        if age > limit {
            return Err(format!("{} is {age} s old, at most {limit} s are allowed", path.display()));
        }
    }
    if let Some(wanted) = wanted {
        if !about.is_file() {
            return Err(format!("{} is no file", path.display()));
        }
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(trouble)?;
        file.take(MAX_CHECKED_BYTES as u64).read_to_end(&mut bytes).map_err(trouble)?;
        if !contains(&bytes, wanted.as_bytes()) {
            return Err(format!("{wanted:?} is not in {}", path.display()));
        }
    }
    Ok(())
}

fn has_room(path: &Path, least: Least) -> Result<(), String> {
    let room = linux::free_space(path).map_err(|error| error.to_string())?;
    enough(room.free_bytes, room.total_bytes, least)
}

fn enough(free_bytes: u64, total_bytes: u64, least: Least) -> Result<(), String> {
    let (have, need, unit) = match least {
        Least::Mib(mib) => (free_bytes >> 20, mib, "MiB"),
        Least::Percent(percent) => {
            let have = u128::from(free_bytes).saturating_mul(100) / u128::from(total_bytes.max(1));
            (u64::try_from(have).unwrap_or(u64::MAX), percent, "%")
        }
    };
    if have >= need { Ok(()) } else { Err(format!("has {have} {unit} free, {need} {unit} are needed")) }
}

/// Every file of an image carries the time of its build, which no clock that is right can be before.
fn clock_is_sane(now: i64, built: Option<SystemTime>) -> Result<(), String> {
    let built = built
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or(0)
        .max(EARLIEST_CLOCK);
    if now < built {
        return Err(format!("the clock says {now}, the image was built at {built} (seconds since 1970)"));
    }
    if now >= LATEST_CLOCK {
        return Err(format!("the clock says {now} (seconds since 1970), that is after the year 2099"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_between_the_build_and_2100() {
        let built = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        assert!(clock_is_sane(1_800_000_000, built).is_ok());
        assert!(clock_is_sane(1_799_999_999, built).unwrap_err().contains("built at 1800000000"));
        assert!(clock_is_sane(0, None).is_err(), "a clock without a battery");
        assert!(clock_is_sane(EARLIEST_CLOCK, Some(SystemTime::UNIX_EPOCH)).is_ok());
        assert!(clock_is_sane(LATEST_CLOCK, None).is_err());
    }

    #[test]
    fn room_is_counted_in_mib_or_percent() {
        assert!(enough(10 << 20, 100 << 20, Least::Mib(10)).is_ok());
        assert_eq!(
            enough((10 << 20) - 1, 100 << 20, Least::Mib(10)).unwrap_err(),
            "has 9 MiB free, 10 MiB are needed"
        );
        assert!(enough(10 << 20, 100 << 20, Least::Percent(10)).is_ok());
        assert!(enough(u64::MAX, u64::MAX, Least::Percent(100)).is_ok());
        assert!(enough(0, 0, Least::Percent(1)).is_err());
        assert!(has_room(Path::new("/"), Least::Mib(0)).is_ok());
        assert!(has_room(Path::new("/"), Least::Mib(1 << 40)).is_err());
        assert!(has_room(Path::new("/nonexistent/x"), Least::Mib(0)).is_err());
    }

    #[test]
    fn files_are_looked_at_by_age_and_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        assert!(file_is_there(&path, None, None).unwrap_err().contains("state: "));
        std::fs::write(&path, "mode=ready\n").unwrap();
        assert!(file_is_there(&path, Some(60), Some("ready")).is_ok());
        assert!(file_is_there(&path, None, Some("failed")).unwrap_err().contains("is not in"));
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(100)).unwrap();
        assert!(file_is_there(&path, Some(60), None).unwrap_err().contains("at most 60 s"));
        assert!(file_is_there(dir.path(), None, None).is_ok());
        assert!(file_is_there(dir.path(), None, Some("x")).unwrap_err().contains("is no file"));
    }

    #[test]
    fn a_part_is_found_across_reads_and_never_beyond_the_limit() {
        /// Gives one byte for each read.
        struct Drip<'a>(&'a [u8]);
        impl Read for Drip<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let (Some(byte), Some(place)) = (self.0.first(), buffer.first_mut()) else { return Ok(0) };
                *place = *byte;
                self.0 = self.0.get(1..).unwrap_or_default();
                Ok(1)
            }
        }
        let end = Instant::now() + Duration::from_secs(60);
        assert!(read_part(Drip(b"it is all ready now"), 100, end, Some(b"ready")).1);
        assert!(!read_part(Drip(b"it is all ready now"), 14, end, Some(b"ready")).1);
        assert!(read_part(Drip(b""), 14, end, Some(b"")).1);
        assert_eq!(read_part(io::repeat(b'x'), 10_000, end, Some(b"y")).0.len(), 10_000);
        assert!(read_part(io::repeat(b'x'), 10, Instant::now(), Some(b"x")).0.is_empty(), "its time is over");
    }
}
