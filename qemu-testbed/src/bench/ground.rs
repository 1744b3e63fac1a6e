//! The ground on which all tools are measured alike: images, banks, shelf, keys, and what must stand around each tool.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    bench::{
        banks::{Banks, Before},
        corpus::Images,
        group::Groups,
        line::{Line, Names},
        measure::{Conditions, Cost, Scales},
        programs::Programs,
        rauc::{self, Rauc},
        results::Report,
        roro::Device,
        swupdate,
        tools::{Case, RaucBytes, Setting, Tool},
        web::{Web, Wire},
    },
    error::{Error, Result},
    process,
};

/// The ground.
#[derive(Debug)]
pub struct Ground {
    /// The banks.
    pub banks: Banks,
    /// What is served.
    pub shelf: PathBuf,
    images: Images,
    names: Names,
    scales: Scales,
    scratch: PathBuf,
    running: Result<Device, String>,
    fresh: Result<Device, String>,
    rauc: Option<Result<Rauc, String>>,
    work: PathBuf,
}

/// What one apply cost and sent.
#[derive(Debug, Clone, Copy)]
pub struct Applied {
    /// What it cost.
    pub cost: Cost,
    /// Bytes over the wire.
    pub wire: Wire,
    /// What Roro says of itself.
    pub report: Option<Report>,
}

impl Ground {
    /// Lays it out in `work`, which must be empty.
    pub fn lay_out(work: &Path, images: Images, programs: &Programs) -> Result<Self> {
        let [shelf, scratch, keys] = ["shelf", "scratch", "keys"].map(|name| work.join(name));
        for folder in [&shelf, &scratch] {
            fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        }
        let mut names = Names::default();
        for (name, path) in [
            ("image-tool", &programs.image_tool),
            ("updater", &programs.updater),
            ("keys", &keys),
            ("scratch", &scratch),
            ("cert", &work.join("cert.pem")),
            ("key", &work.join("key.pem")),
            ("base", &shelf.join("v1.roro")),
            ("old", &images.v1),
            ("report", &scratch.join("report")),
        ] {
            names.set(name, text(path)?);
        }
        if let Ok(bita) = &programs.bita {
            names.set("bita", text(bita)?);
        }
        names.set("mksquashfs", rauc::MKSQUASHFS);
        names.set("url", Web::url());
        let old_bytes = images.bytes(&images.v1)?;
        names.set("window", old_bytes.next_multiple_of(1 << 20).to_string());
        let banks = Banks::new(work, images.largest()?, &images.v1)?;
        names.set("running", text(banks.running.node())?);
        names.set("target", text(banks.target.node())?);
        let mut ground = Ground {
            banks,
            shelf,
            images,
            names,
            scales: Scales::new(&scratch)?,
            scratch,
            running: Err("not set up".to_owned()),
            fresh: Err("not set up".to_owned()),
            rauc: None,
            work: work.to_owned(),
        };
        ground.sign(&keys)?;
        ground.devices(&programs.updater, &keys)?;
        Ok(ground)
    }

    fn sign(&self, keys: &Path) -> Result<()> {
        process::run(Command::new(self.names.get("image-tool")?).arg("keygen").arg(keys))?;
        let mut certificate = Command::new("openssl");
        certificate
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=bench"])
            .args(["-keyout", self.names.get("key")?, "-out", self.names.get("cert")?])
            .args(["-addext", "extendedKeyUsage=emailProtection,codeSigning"])
            .args(["-addext", "keyUsage=digitalSignature", "-addext", "basicConstraints=critical,CA:TRUE"]);
        process::run(&mut certificate).map(drop)
    }

    /// A Roro that cannot even run v1 is a row that failed, and no reason to measure nobody.
    fn devices(&mut self, updater: &Path, keys: &Path) -> Result<()> {
        let line = self.names.line(
            "{image-tool} bundle --name bench --compatible bench,any --version 1.0.0 --image root={old} \
             --keys {keys} --out {base}",
        )?;
        let made = self.scales.run(&[line], &Conditions::default())?;
        let base = PathBuf::from(self.names.get("base")?);
        let said = |error: Error| error.to_string();
        self.running = made.and_then(|_| {
            Device::running(&self.work.join("device"), updater, keys, &self.banks, &base).map_err(said)
        });
        self.fresh = Device::fresh(&self.work.join("fresh"), keys, &self.banks).map_err(said);
        Ok(())
    }

    /// The image that an update brings.
    pub fn new_image(&self, case: Case) -> Result<&Path, String> {
        match case {
            Case::Security => Ok(&self.images.v2),
            Case::Package => Ok(&self.images.v3),
            Case::Unchanged => Ok(&self.images.v1),
            Case::Major => self.images.major.as_deref().ok_or_else(|| "there is no such image".to_owned()),
        }
    }

    /// Makes what the tool serves, unless it lies there. The inner error is what the tool said.
    pub fn make(&mut self, tool: &Tool, case: Case) -> Result<Result<Option<Cost>, String>> {
        let new = match self.new_image(case) {
            Ok(new) => text(new)?,
            Err(why) => return Ok(Err(why)),
        };
        if self.names.get("bita").is_err() && tool.make.iter().any(|line| line.starts_with("{bita}")) {
            return Ok(Err("bita could not be installed".to_owned()));
        }
        self.clear_scratch()?;
        let owner = tool.shares.unwrap_or(tool.name);
        let folder = self.shelf.join(case.word()).join(owner);
        self.names.set("new", new);
        self.names.set("version", case.version());
        self.names.set("shelf", text(&folder)?);
        self.names.set("url", format!("{}/{}/{owner}", Web::url(), case.word()));
        self.names.set("download", format!("-u {}/new.swu", self.names.get("url")?));
        for template in tool.prepare {
            if let Err(finding) = self.scales.run(&[self.names.line(template)?], &Conditions::default())? {
                return Ok(Err(finding));
            }
        }
        if let Err(why) = self.rauc_for(tool)? {
            return Ok(Err(why));
        }
        if folder.is_dir() {
            return Ok(Ok(None));
        }
        let unfinished = folder.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).map_err(Error::io("remove", &unfinished))?;
        }
        fs::create_dir_all(&unfinished).map_err(Error::io("create", &unfinished))?;
        self.names.set("shelf", text(&unfinished)?);
        if let (Setting::Rauc { adaptive, .. }, Some(Ok(rauc))) = (tool.setting, &self.rauc) {
            rauc.content(Path::new(self.names.get("new")?), adaptive, &self.scratch.join("content"))?;
        }
        let cost = match self.scales.run(&self.lines(tool.make)?, &Conditions::default())? {
            Ok(cost) => cost,
            Err(finding) => return Ok(Err(finding)),
        };
        if let Setting::Swupdate { image, description } = tool.setting {
            swupdate::archive(&self.names, image, description)?;
        }
        fs::rename(&unfinished, &folder).map_err(Error::io("name", &folder))?;
        self.names.set("shelf", text(&folder)?);
        Ok(Ok(Some(cost)))
    }

    /// The size of the file in which all of an update lies.
    pub fn served_bytes(&self, tool: &Tool) -> Result<Option<u64>> {
        let Some(file) = tool.served else { return Ok(None) };
        self.images.bytes(&Path::new(self.names.get("shelf")?).join(file)).map(Some)
    }

    /// Applies what was made last, into a target that holds `before`, and compares the bank.
    pub fn apply(
        &mut self,
        tool: &Tool,
        case: Case,
        before: Before,
        web: &mut Web,
        conditions: &Conditions,
    ) -> Result<Result<Applied, String>> {
        self.banks.reset(before)?;
        let mut conditions = conditions.clone();
        let mut service = None;
        match tool.setting {
            Setting::Plain => {}
            Setting::RoroDevice | Setting::RoroFresh => {
                let device = if tool.setting == Setting::RoroFresh { &self.fresh } else { &self.running };
                let device = match device {
                    Ok(device) => device,
                    Err(why) => return Ok(Err(why.clone())),
                };
                device.restore()?;
                self.names.set("config", text(&device.config())?);
            }
            Setting::Rauc { .. } => {
                if let Some(Ok(rauc)) = &self.rauc {
                    let started = rauc.start(&conditions.prefix)?;
                    self.names.set("bus", started.address.clone());
                    conditions.service = Some(started.process());
                    service = Some(started);
                }
            }
            Setting::Swupdate { .. } => self.remove_sockets()?,
        }
        let mut lines = self.lines(tool.apply)?;
        lines.push(self.names.line("sync {target}")?);
        let reads = rauc::mounted_reads(&self.banks)?;
        web.begin()?;
        let outcome = self.scales.run(&lines, &conditions)?;
        let mut wire = web.count()?;
        if matches!(tool.setting, Setting::Rauc { bytes: RaucBytes::Mounted, .. }) {
            wire.sent = rauc::mounted_reads(&self.banks)?.saturating_sub(reads);
        }
        drop(service);
        let cost = match outcome {
            Ok(cost) => cost,
            Err(finding) => return Ok(Err(finding)),
        };
        let new = match self.new_image(case) {
            Ok(new) => new,
            Err(why) => return Ok(Err(why)),
        };
        if !self.banks.target.holds(new)? {
            return Ok(Err("the bank does not hold the image".to_owned()));
        }
        let report = fs::read_to_string(self.scratch.join("report")).ok();
        let report = report.and_then(|lines| Report::read(&lines));
        Ok(Ok(Applied { cost, wire, report }))
    }

    /// A plain dd of the raw image into the target, which holds v1.
    pub fn plain_dd(&mut self, case: Case, conditions: &Conditions) -> Result<Result<Cost, String>> {
        self.banks.reset(Before::Old)?;
        let new = match self.new_image(case) {
            Ok(new) => text(new)?,
            Err(why) => return Ok(Err(why)),
        };
        self.names.set("new", new);
        let line =
            self.names.line("dd if={new} of={target} bs=4M oflag=direct conv=fsync,notrunc status=none")?;
        self.scales.run(&[line], conditions)
    }

    /// The control groups of this host.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        self.scales.groups()
    }

    /// A folder for notes, such as a server's log.
    #[must_use]
    pub fn notes(&self, name: &str) -> PathBuf {
        self.work.join(name)
    }

    /// The size of what an update brings.
    pub fn image_bytes(&self, case: Case) -> Result<u64> {
        self.new_image(case).map_or(Ok(0), |image| self.images.bytes(image))
    }

    /// The image that the devices run.
    #[must_use]
    pub fn old_image(&self) -> &Path {
        &self.images.v1
    }

    fn lines(&self, templates: &[&str]) -> Result<Vec<Line>> {
        templates.iter().map(|template| self.names.line(template)).collect()
    }

    fn rauc_for(&mut self, tool: &Tool) -> Result<Result<(), String>> {
        if !matches!(tool.setting, Setting::Rauc { .. }) {
            return Ok(Ok(()));
        }
        if self.rauc.is_none() {
            let folder = self.work.join("rauc");
            let rauc = Rauc::install(&folder, &self.names, &self.banks, &self.images.v1);
            self.rauc = Some(rauc.map_err(|error| error.to_string()));
        }
        match &self.rauc {
            Some(Err(why)) => Ok(Err(format!("rauc could not be set up: {why}"))),
            Some(Ok(_)) | None => Ok(Ok(())),
        }
    }

    fn clear_scratch(&self) -> Result<()> {
        fs::remove_dir_all(&self.scratch).map_err(Error::io("clear", &self.scratch))?;
        fs::create_dir_all(&self.scratch).map_err(Error::io("clear", &self.scratch))
    }

    /// Sockets of an earlier run, which the next one takes for a running SWUpdate.
    fn remove_sockets(&self) -> Result<()> {
        for name in ["sockinstctrl", "swupdateprog"] {
            let socket = self.scratch.join(name);
            if socket.exists() {
                fs::remove_file(&socket).map_err(Error::io("remove", &socket))?;
            }
        }
        Ok(())
    }
}

fn text(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).ok_or_else(|| Error::Unexpected {
        what: "a path of the benchmark".to_owned(),
        wanted: "UTF-8".to_owned(),
        seen: path.display().to_string(),
    })
}
