//! Servers that lie, break or change their minds. Real sockets on loopback, the agent's real HTTP client, virtual pauses.
//! In the end the image is installed byte for byte, or nothing is armed and the exit code says what to do.

#![expect(clippy::panic, reason = "a verdict of the judge is a panic")]

use std::rc::Rc;

use bank_format::{Bank, Release, release::Version};
use tests::{
    forge::{self, Forge, noise},
    hostile::{Behaviour, HostileServer},
    simulated::Machine,
};
use updater::{InstallReport, Result, config::Network, http::Http};

/// Longer than the agent's first request, so that several follow.
const IMAGE_BYTES: usize = 700_000;

fn bundle(seed: u32, version: &str) -> Vec<u8> {
    Forge::honest(&noise(seed, IMAGE_BYTES), version).bytes()
}

fn network() -> Network {
    Network { read_timeout_seconds: 1, connect_timeout_seconds: 5, retries: 4, ..Network::default() }
}

fn install_from(behaviour: Behaviour) -> (Rc<Machine>, Result<InstallReport>, HostileServer) {
    let server = HostileServer::start(bundle(1, "1.1.0"), behaviour);
    let running = Release { name: "demo".into(), version: Version::new(1, 0, 0) };
    let machine = Machine::new(running, b"active", b"passive");
    let transport = Rc::new(Http::new(network()));
    let result = machine.install(transport, &forge::root(1, 1), network(), &server.url());
    assert_eq!(machine.root(Bank::A), b"active");
    (machine, result, server)
}

#[track_caller]
fn installs(behaviour: Behaviour) -> (InstallReport, HostileServer) {
    let (machine, result, server) = install_from(behaviour.clone());
    let report = result.unwrap_or_else(|error| panic!("{behaviour:?}: {error:?}"));
    assert!(machine.root(Bank::B) == noise(1, IMAGE_BYTES), "{behaviour:?}: another image");
    assert_eq!(machine.armed.get(), Some(Bank::B), "{behaviour:?}");
    (report, server)
}

#[track_caller]
fn refuses(behaviour: Behaviour, codes: &[u8]) {
    let (machine, result, _server) = install_from(behaviour.clone());
    let error = result.err().unwrap_or_else(|| panic!("{behaviour:?}: was installed"));
    let code = error.kind().exit_code();
    assert!(codes.contains(&code), "{behaviour:?}: exit {code}: {error:?}");
    assert_eq!(machine.armed.get(), None, "{behaviour:?}");
}

#[test]
fn honest_servers_with_and_without_ranges() {
    let (report, server) = installs(Behaviour::Honest);
    assert!(report.bytes_fetched >= IMAGE_BYTES as u64);
    assert!(server.requests().iter().all(|request| request.range.is_some()));
    installs(Behaviour::NoRanges);
    installs(Behaviour::Chunked);
    installs(Behaviour::RedirectOnce);
}

#[test]
fn a_dying_line_costs_time_only() {
    let (report, server) = installs(Behaviour::DropsAfter(100_000));
    assert!(server.requests().len() > 5);
    let overhead = report.bytes_fetched as f64 / IMAGE_BYTES as f64;
    assert!(overhead < 1.2, "what was received is not fetched again: {overhead}");
}

#[test]
fn a_busy_server_is_waited_for_and_a_bounded_time_only() {
    installs(Behaviour::BusyFor(2));
    refuses(Behaviour::BusyForever, &[5, 75]);
}

#[test]
fn a_server_that_forgets_ranges_half_way_is_survived_or_refused() {
    let (machine, result, _server) = install_from(Behaviour::RangesOnlyOnce);
    match result {
        Ok(_) => assert!(machine.root(Bank::B) == noise(1, IMAGE_BYTES)),
        Err(error) => {
            assert!(matches!(error.kind().exit_code(), 5 | 75));
            assert_eq!(machine.armed.get(), None);
        }
    }
}

#[test]
fn servers_that_lie_about_ranges_are_refused() {
    refuses(Behaviour::WrongContentRange, &[4, 5, 75]);
    refuses(Behaviour::LyingContentRange, &[4, 5, 75]);
    refuses(Behaviour::LyingTotal, &[4, 5, 75]);
    refuses(Behaviour::ClaimsGzip, &[4, 5, 75]);
}

#[test]
fn servers_that_break_end_in_a_word_not_in_a_hang() {
    refuses(Behaviour::AlwaysDrops, &[5, 75]);
    refuses(Behaviour::Stalls, &[5, 75]);
    refuses(Behaviour::Missing, &[5, 75]);
    refuses(Behaviour::RedirectLoop, &[5, 75]);
    refuses(Behaviour::RedirectToFile, &[4, 5, 75]);
}

#[test]
fn bytes_beyond_the_promised_length_are_not_read() {
    installs(Behaviour::Overlong);
}

#[test]
fn a_file_that_changes_half_way_is_never_mixed() {
    let other = Forge::honest(&noise(2, IMAGE_BYTES), "1.1.1").bytes();
    for at in 1..4 {
        let (machine, result, _server) = install_from(Behaviour::ChangesAt(at, other.clone()));
        match result {
            Ok(_) => {
                let root = machine.root(Bank::B);
                assert!(root == noise(1, IMAGE_BYTES) || root == noise(2, IMAGE_BYTES), "mixed at {at}");
            }
            Err(_) => assert_eq!(machine.armed.get(), None),
        }
        let (machine, result, _server) = install_from(Behaviour::ChangesSilentlyAt(at, other.clone()));
        match result {
            Ok(_) => assert!(machine.root(Bank::B) == noise(1, IMAGE_BYTES), "mixed at {at}"),
            Err(_) => assert_eq!(machine.armed.get(), None),
        }
    }
}

#[test]
fn a_proxy_is_asked_instead_of_the_server() {
    let proxy = HostileServer::start(bundle(1, "1.1.0"), Behaviour::Honest);
    let running = Release { name: "demo".into(), version: Version::new(1, 0, 0) };
    let machine = Machine::new(running, b"active", b"passive");
    let address = proxy.url().trim_end_matches("/x.roro").to_owned();
    let network = Network { proxy: Some(address), ..network() };
    let transport = Rc::new(Http::new(network.clone()));
    machine.install(transport, &forge::root(1, 1), network, "http://nobody.invalid/x.roro").unwrap();
    assert!(machine.root(Bank::B) == noise(1, IMAGE_BYTES));
    assert!(proxy.requests().iter().all(|request| request.path == "http://nobody.invalid/x.roro"));
}
