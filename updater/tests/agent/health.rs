//! Every kind of check against the real thing: servers on loopback, files, programs. systemd and the container runtime are played.
//! Faults of the servers: none, another status, a body without end, a body or a head that drips for ever.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime},
};

use crate::support::{config, device_directory, write};
use updater::{
    gate::{Finding, Wait, Watch, examine, reason},
    health::{
        look::Eye,
        plan,
        rounds::{Mode, Standing, Trouble},
    },
    machine::{Machine, ThisMachine},
};

/// systemd and containers by name; programs are run.
#[derive(Default)]
pub struct Played {
    /// Units that failed.
    pub failed: Vec<String>,
    /// Why the system does not come up.
    pub down: Option<&'static str>,
    /// Why `boot-complete.target` is not reached.
    pub incomplete: Option<&'static str>,
    /// Limits that were given to the wait for the system.
    pub waited: Mutex<Vec<Duration>>,
}

impl Machine for Played {
    fn wait_until_up(&self, limit: Duration) -> Result<(), String> {
        self.waited.lock().unwrap().push(limit);
        self.down.map_or(Ok(()), |why| Err(why.into()))
    }
    fn complete_boot(&self, limit: Duration) -> Result<(), String> {
        self.waited.lock().unwrap().push(limit);
        self.incomplete.map_or(Ok(()), |why| Err(why.into()))
    }
    fn failed_units(&self, _: Duration) -> Result<Vec<String>, String> {
        Ok(self.failed.clone())
    }
    fn unit_is_active(&self, unit: &str, _: Duration) -> Result<(), String> {
        if unit == "good.service" { Ok(()) } else { Err(format!("{unit} is inactive")) }
    }
    fn container_status(&self, container: &str, _: Duration) -> Result<String, String> {
        match container {
            "web" => Ok("running".into()),
            "old" => Ok("stopped".into()),
            // Worse than any runtime: it never answers.
            "stuck" => loop {
                thread::park();
            },
            _ => Err("crun knows no state of it".into()),
        }
    }
    fn check(&self, command: &[String], limit: Duration) -> Result<(), Trouble> {
        ThisMachine.check(command, limit)
    }
    fn journal(&self) -> Vec<u8> {
        b"the log of that boot\n".to_vec()
    }
}

/// Notes the longest silence of the gate.
struct Silence {
    last: Instant,
    longest: Duration,
}

impl Silence {
    fn new() -> Self {
        Self { last: Instant::now(), longest: Duration::ZERO }
    }
}

impl Watch for Silence {
    fn progress(&mut self, _: &[Finding], _: &str) {
        self.longest = self.longest.max(self.last.elapsed());
        self.last = Instant::now();
    }
}

const UNTIL_HEALTHY: Mode = Mode::Until { soak: Duration::ZERO };

fn declare(directory: &Path, text: &str) {
    std::fs::create_dir_all(directory.join("health.d")).unwrap();
    write(directory, "health.d/test.toml", text.as_bytes());
}

fn examined(directory: &Path, mode: Mode) -> Vec<Finding> {
    let config = config(directory);
    let eye = Arc::new(Eye::new(Arc::new(Played::default()), &config));
    let mut silence = Silence::new();
    let findings = examine(&eye, plan(&config), Wait::No, mode, &mut silence);
    assert!(silence.longest < Duration::from_secs(3), "the gate was silent for {:?}", silence.longest);
    findings
}

/// The finding of the one check that has these keys, looked at once.
fn look(body: &str) -> Finding {
    let dir = device_directory();
    std::fs::write(dir.path().join("release.json"), "{}").unwrap();
    declare(dir.path(), &format!("[[check]]\nname = \"it\"\ndeadline_seconds = 2\n{body}\n"));
    let mut findings = examined(dir.path(), Mode::Once);
    assert!(findings.iter().take(2).all(|finding| finding.state == Standing::Healthy), "{findings:?}");
    findings.pop().unwrap()
}

fn is_good(body: &str) {
    let finding = look(body);
    assert_eq!((finding.state, &finding.why), (Standing::Healthy, &None), "{body}");
}

fn is_bad(body: &str, expected: &str) -> Finding {
    let finding = look(body);
    let why = finding.why.clone().unwrap_or_default();
    assert!(finding.state == Standing::Failed && why.contains(expected), "{body}: {finding:?}");
    finding
}

/// Serves each connection by this function; gives its port.
fn serve(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = Arc::new(answer);
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let answer = Arc::clone(&answer);
            thread::spawn(move || {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let _ = answer(&mut stream);
            });
        }
    });
    port
}

fn says(status: &'static str, body: &'static str) -> u16 {
    serve(move |stream| {
        let length = body.len();
        write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
    })
}

fn http(port: u16, more: &str) -> String {
    format!("kind = \"http\"\nurl = \"http://127.0.0.1:{port}/\"\n{more}")
}

/// A port that nobody listens on.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn programs_units_and_containers() {
    is_good("command = [\"/bin/sh\", \"-c\", \"exit 0\"]");
    let finding = is_bad("command = [\"/bin/sh\", \"-c\", \"echo no kiosk; exit 7\"]", "exit 7: no kiosk");
    assert_eq!(finding.output.as_deref(), Some("no kiosk\n"));
    is_bad("command = [\"/bin/sh\", \"-c\", \"sleep 1000\"]", "no answer in 2 s");
    is_bad("command = [\"/nonexistent/x\"]", "cannot be run");
    is_good("kind = \"unit\"\nunit = \"good.service\"");
    is_bad("kind = \"unit\"\nunit = \"bad.service\"", "bad.service is inactive");
    is_good("kind = \"container\"\ncontainer = \"web\"\nunit = \"good.service\"");
    is_bad("kind = \"container\"\ncontainer = \"web\"\nunit = \"bad.service\"", "is inactive");
    is_bad("kind = \"container\"\ncontainer = \"old\"", "container old is stopped");
    is_bad("kind = \"container\"\ncontainer = \"none\"", "knows no state");
}

#[test]
fn web_servers_are_judged_by_status_and_body() {
    let good = says("200 OK", "all is ready here");
    is_good(&http(good, ""));
    is_good(&http(good, "body_contains = \"ready\""));
    let finding =
        is_bad(&http(good, "body_contains = \"broken\""), "\"broken\" is not in the first 17 bytes");
    assert_eq!(finding.output.as_deref(), Some("all is ready here"));
    let finding =
        is_bad(&http(says("503 Service Unavailable", "no database"), ""), "status 503, expected 200");
    assert_eq!(finding.output.as_deref(), Some("no database"));
    is_good(&http(says("302 Found", ""), "status = 302"));
    is_bad(&http(closed_port(), ""), "refused");
    let no_tls = format!("kind = \"http\"\nurl = \"https://127.0.0.1:{good}/\"");
    assert!(look(&no_tls).state == Standing::Failed, "it speaks no TLS");
}

#[test]
fn hostile_servers_cost_bounded_time_and_memory() {
    let endless = serve(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            stream.write_all(&[b'x'; 65536])?;
        }
    });
    let began = Instant::now();
    let finding = is_bad(&http(endless, "body_contains = \"y\""), "is not in the first 262144 bytes");
    assert!(finding.output.unwrap().len() <= 4096);
    let drips = serve(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
        loop {
            stream.write_all(b"x")?;
            thread::sleep(Duration::from_millis(50));
        }
    });
    is_bad(&http(drips, "body_contains = \"y\""), "is not in the first");
    let never_begins = serve(|stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nX: ")?;
        loop {
            stream.write_all(b"x")?;
            thread::sleep(Duration::from_millis(50));
        }
    });
    is_bad(&http(never_begins, ""), "no answer in");
    is_bad(&http(serve(|stream| stream.write_all(b"\0\xff\r\n\r\n")), ""), "");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn ports_files_room_and_clock() {
    let port = says("200 OK", "");
    is_good(&format!("kind = \"tcp\"\naddress = \"127.0.0.1:{port}\""));
    is_good(&format!("kind = \"tcp\"\naddress = \"localhost:{port}\""));
    is_bad(
        &format!("kind = \"tcp\"\naddress = \"127.0.0.1:{}\"", closed_port()),
        "does not accept connections",
    );

    is_bad("kind = \"tcp\"\naddress = \"nobody.invalid:80\"", "");

    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), "beat", b"state: running\n");
    let file = |more: &str| format!("kind = \"file\"\npath = \"{}\"\n{more}", path.display());
    is_good(&file("max_age_seconds = 60\ncontains = \"running\""));
    is_bad(&file("contains = \"stopped\""), "\"stopped\" is not in");
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(SystemTime::now() - Duration::from_secs(90))
        .unwrap();
    is_bad(&file("max_age_seconds = 60"), "at most 60 s are allowed");
    is_bad("kind = \"file\"\npath = \"/nonexistent/x\"", "No such file");

    is_good("kind = \"free_space\"\npath = \"/\"\nmin_percent = 0");
    is_bad("kind = \"free_space\"\npath = \"/\"\nmin_mib = 1000000000000", "MiB are needed");
    is_good("kind = \"clock\"");
}

#[test]
fn a_clock_before_the_build_and_a_state_that_takes_nothing_are_failures() {
    let dir = device_directory();
    declare(dir.path(), "[[check]]\nname = \"clock\"\nkind = \"clock\"\n");
    let release = File::create(dir.path().join("release.json")).unwrap();
    release.set_modified(SystemTime::now() + Duration::from_secs(86400)).unwrap();
    let path = dir.path().join("updater.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    // A directory within a file: not even root can write there.
    std::fs::write(&path, text.replace("state_dir = \"state\"", "state_dir = \"root.json/state\"")).unwrap();
    let findings = examined(dir.path(), Mode::Once);
    let failed: Vec<_> = findings.iter().filter(|finding| finding.state == Standing::Failed).collect();
    let names: Vec<_> = failed.iter().map(|finding| finding.check.as_str()).collect();
    assert_eq!(names, ["state is writable", "clock"], "{findings:?}");
    assert!(failed[1].why.as_ref().unwrap().contains("the image was built at"), "{failed:?}");
}

#[test]
fn one_update_source_that_answers_is_enough() {
    let found = |sources: &[u16]| {
        let dir = device_directory();
        let path = dir.path().join("updater.toml");
        let mut text = std::fs::read_to_string(&path).unwrap();
        for port in sources {
            text = format!("{text}\n[[source]]\nurl = \"http://127.0.0.1:{port}/\"\n");
        }
        std::fs::write(&path, text).unwrap();
        examined(dir.path(), Mode::Once).pop().unwrap()
    };
    let broken = says("500 Internal Server Error", "");
    // A repository has no page at its root: that it says so is enough.
    let good = found(&[closed_port(), broken, says("404 Not Found", "")]);
    assert_eq!(
        (good.check.as_str(), good.state),
        ("update source is reachable", Standing::Healthy),
        "{good:?}"
    );
    let shut =
        ["401 Unauthorized", "403 Forbidden", "407 Proxy Authentication Required"].map(|line| says(line, ""));
    let bad = found(&[&[closed_port(), broken], &shut[..]].concat());
    let why = bad.why.unwrap();
    for expected in
        ["no update source answers", "refused", "status 500", "status 401", "status 403", "status 407"]
    {
        assert!(why.contains(expected), "{expected}: {why}");
    }
    is_bad("kind = \"update_source\"", "no [[source]] is configured");
}

#[test]
fn credentials_of_a_source_and_escapes_of_a_program_are_told_nobody() {
    let dir = device_directory();
    let path = dir.path().join("updater.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let port = closed_port();
    let source = format!("http://user:pass-word@127.0.0.1:{port}/repo/se-cret/?token=se-cret");
    std::fs::write(&path, format!("{text}\n[[source]]\nurl = \"{source}\"\n")).unwrap();
    declare(
        dir.path(),
        "[[check]]\nname = \"loud\"\ncommand = [\"/bin/sh\", \"-c\", \"printf '\\\\033[2Jall is well'; exit 1\"]\n",
    );
    let findings = examined(dir.path(), Mode::Once);
    let told = reason(&findings).unwrap();
    assert!(told.contains(&format!("http://127.0.0.1:{port}: ")), "{told}");
    assert!(told.contains("loud: exit 1: \u{fffd}[2Jall is well"), "{told}");
    for secret in ["pass-word", "se-cret", "user", "\u{1b}"] {
        assert!(!told.contains(secret), "{told}");
    }
    let mut device = crate::support::open(dir.path());
    let terms = updater::Terms {
        compatible: "test,any".into(),
        trust: crate::support::trust(),
        network: updater::config::Network { retries: 0, ..Default::default() },
    };
    let error =
        updater::install(&mut device, &terms, &source, &mut updater::ports::Silent).unwrap_err().line();
    assert!(
        error.contains("127.0.0.1") && !error.contains("pass-word") && !error.contains("se-cret"),
        "{error}"
    );
}

#[test]
fn what_comes_up_late_is_waited_for_and_must_hold() {
    let dir = device_directory();
    let ready = dir.path().join("ready");
    let text = format!(
        "soak_seconds = 3\n[[check]]\nname = \"ready\"\nkind = \"file\"\npath = \"{}\"\n\
         deadline_seconds = 9\ninterval_seconds = 1\n",
        ready.display()
    );
    declare(dir.path(), &text);
    let appears = ready.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(1500));
        std::fs::write(appears, "").unwrap();
    });
    let began = Instant::now();
    let finding = examined(dir.path(), UNTIL_HEALTHY).pop().unwrap();
    assert_eq!((finding.check.as_str(), finding.state), ("ready", Standing::Healthy));
    assert!(finding.looks >= 4 && began.elapsed() >= Duration::from_secs(4), "{finding:?}");

    let vanishes = ready.clone();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(1500));
        std::fs::remove_file(vanishes).unwrap();
    });
    let why = reason(&examined(dir.path(), UNTIL_HEALTHY)).unwrap();
    assert!(why.starts_with("ready: was healthy, then: "), "{why}");
}

#[test]
fn a_check_that_is_stuck_fails_and_does_not_silence_the_gate() {
    let dir = device_directory();
    declare(
        dir.path(),
        "[[check]]\nname = \"stuck\"\nkind = \"container\"\ncontainer = \"stuck\"\ndeadline_seconds = 1\n\
         [[check]]\nname = \"good\"\ncommand = [\"/bin/true\"]\n",
    );
    let findings = examined(dir.path(), UNTIL_HEALTHY);
    assert_eq!(reason(&findings).as_deref(), Some("stuck: no answer in 1 s"));
    assert_eq!(findings.last().unwrap().state, Standing::Healthy);
}

#[test]
fn declarations_that_cannot_be_read_are_a_failed_check() {
    let dir = device_directory();
    declare(dir.path(), "[[check]]\nname = \"x\"\nkind = \"htp\"\n");
    let findings = examined(dir.path(), UNTIL_HEALTHY);
    let why = reason(&findings).unwrap();
    assert!(why.starts_with("health checks can be read: ") && why.contains("did you mean \"http\""), "{why}");
    assert_eq!(findings.len(), 3, "what every system must pass is looked at all the same");
}

#[test]
fn every_example_of_the_page_is_read() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/health.md");
    let text = std::fs::read_to_string(page).unwrap();
    let mut kinds = Vec::new();
    let mut examples = 0;
    for block in text.split("```toml\n").skip(1) {
        let block = block.split("```").next().unwrap();
        examples += 1;
        if block.contains("[[check]]") {
            let found = bank_format::health::parse(block).unwrap_or_else(|why| panic!("{why}:\n{block}"));
            kinds.extend(found.checks.iter().map(|check| check.kind.word()));
        } else {
            let whole = format!(
                "compatible = \"a\"\nstate_dir = \"s\"\nrecord = \"r\"\n{block}\n[boot]\nbackend = \"file\"\npath = \"p\"\n\
                 [bank.a]\nroot = \"1\"\n[bank.b]\nroot = \"2\"\n"
            );
            updater::config::Config::parse(&whole, Path::new("/"))
                .unwrap_or_else(|why| panic!("{why}:\n{block}"));
        }
    }
    kinds.sort_unstable();
    kinds.dedup();
    let all = ["clock", "command", "container", "file", "free_space", "http", "tcp", "unit", "update_source"];
    assert_eq!(kinds, all, "the page has an example of each kind");
    assert!(examples > all.len());
}
