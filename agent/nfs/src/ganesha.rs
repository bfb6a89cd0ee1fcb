//! NFS-Ganesha: its configuration files, and the running server over D-Bus, or by a signal.

mod bus;
mod config;

use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;

use crate::{
    edit::{self, Change, Edit, Format},
    error::NfsError,
    server::{Plan, Wish},
    table::{Access, Client, Export, Table},
};
use bus::Bus;
use config::{AccessType, Block, Parsed};

/// How the server is made to read its configuration anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reload {
    /// `UpdateExport` over D-Bus, which also tells what is served.
    #[default]
    Dbus,
    /// SIGHUP. The server can't be asked then, so nothing is ever proved.
    Sighup,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GaneshaConfig {
    pub config: PathBuf,
    pub reload: Reload,
    /// Address of the bus; the system's by default.
    pub bus: Option<String>,
    pub pid_file: PathBuf,
}

impl Default for GaneshaConfig {
    fn default() -> Self {
        let (config, pid_file) = ("/etc/ganesha/ganesha.conf".into(), "/var/run/ganesha/ganesha.pid".into());
        Self { config, reload: Reload::default(), bus: None, pid_file }
    }
}

/// What a signal may take until clients notice.
const SETTLES: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub(crate) struct Ganesha(pub(crate) GaneshaConfig);

/// A configuration file as it is.
struct Read {
    path: PathBuf,
    text: String,
}

impl Ganesha {
    /// The main file and those that it includes.
    fn files(&self) -> Result<Vec<Read>, NfsError> {
        const FILES_MAX: usize = 1000;
        let mut files: Vec<Read> = Vec::new();
        let mut wanted = vec![self.0.config.clone()];
        while let Some(path) = wanted.pop() {
            if files.iter().any(|file| file.path == path) {
                continue;
            }
            if files.len() == FILES_MAX {
                return Err(NfsError::Syntax { path, line: 1, problem: "more than 1000 files include each other" });
            }
            let text = edit::read(&path)?;
            // Relative to where the first one is, as the server reads them.
            let beside = self.0.config.parent().unwrap_or(Path::new("/"));
            wanted.extend(
                config::parse(&path, &text)?.includes.into_iter().rev().map(|file| beside.join(edit::path(&file))),
            );
            files.push(Read { path, text });
        }
        Ok(files)
    }

    /// What exports have that say nothing themselves.
    fn inherited(parsed: &[Parsed]) -> AccessType {
        let defaults = parsed.iter().flat_map(|it| &it.blocks).filter(|block| block.is("EXPORT_DEFAULTS"));
        defaults.filter_map(Block::access_type).next_back().unwrap_or(AccessType::None)
    }

    fn parsed(files: &[Read]) -> Result<Vec<Parsed>, NfsError> {
        files.iter().map(|file| config::parse(&file.path, &file.text)).collect()
    }

    pub(crate) fn plan(&self, known: &[Change], wish: &Wish<'_>) -> Result<Plan, NfsError> {
        let files = self.files()?;
        let inherited = Self::inherited(&Self::parsed(&files)?);
        Plan::of(files.into_iter().map(|file| (file.path, file.text)), known, &Blocks { inherited, wish })
    }

    /// The server reads again what was changed, and what is not changed any more.
    pub(crate) fn load(&self, known: &[Change], plan: &Plan) -> Result<(), NfsError> {
        let mut numbers = Vec::new();
        for change in known.iter().chain(&plan.changes) {
            let parsed = config::parse(&change.file, &change.original)?;
            // Without one it was never changed.
            numbers.extend(parsed.blocks.first().and_then(number));
        }
        numbers.sort_unstable();
        numbers.dedup();
        if numbers.is_empty() {
            return Ok(());
        }
        match self.0.reload {
            Reload::Sighup => self.hang_up(),
            Reload::Dbus => {
                let bus = Bus::connect(self.0.bus.as_deref())?;
                let served = bus.exports()?;
                // Read and understood by `plan`; the server would not survive another one.
                let file = self.0.config.to_string_lossy();
                let here = numbers.into_iter().filter(|number| served.contains(number));
                here.into_iter().try_for_each(|number| bus.update(&file, number))
            }
        }
    }

    fn hang_up(&self) -> Result<(), NfsError> {
        let failed = |problem: String| NfsError::Server { what: "SIGHUP to NFS-Ganesha".to_owned(), problem };
        let text = fs::read_to_string(&self.0.pid_file);
        let text = text.map_err(|error| failed(format!("{}: {error}", self.0.pid_file.display())))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| failed(format!("{} holds no number", self.0.pid_file.display())))?;
        let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero())).unwrap_or_default();
        if !name.starts_with("ganesha") {
            return Err(failed(format!(
                "process {} of {} is not the server",
                pid.as_raw_nonzero(),
                self.0.pid_file.display()
            )));
        }
        kill_process(pid, Signal::HUP).map_err(|error| failed(error.to_string()))?;
        // It says nothing; with 4.3 writes were refused 20 ms later.
        std::thread::sleep(SETTLES);
        Ok(())
    }

    pub(crate) fn table(&self) -> Result<Table, NfsError> {
        let parsed = Self::parsed(&self.files()?)?;
        let configured = configured(&parsed);
        match self.0.reload {
            Reload::Sighup => {
                let source = self.0.config.display().to_string();
                let gap = "NFS-Ganesha can't be asked what it serves: that takes D-Bus (reload = \"dbus\")";
                Ok(Table { exports: configured, source, gaps: vec![gap.to_owned()] })
            }
            Reload::Dbus => {
                let bus = Bus::connect(self.0.bus.as_deref())?;
                let mut table = Table { source: "NFS-Ganesha over D-Bus".to_owned(), ..Table::default() };
                for number in bus.exports()? {
                    let shown = bus.show(number)?;
                    // The root of the pseudo file system, when the server made it by itself.
                    let is_made = !configured.iter().any(|export| export.id.as_deref() == Some("0"));
                    if number == 0 && is_made && shown.path == "/" {
                        continue;
                    }
                    table.exports.push(export(number, shown, &configured));
                }
                Ok(table)
            }
        }
    }

    pub(crate) fn exported(&self) -> Result<Vec<(PathBuf, bool)>, NfsError> {
        let parsed = Self::parsed(&self.files()?)?;
        let mut paths: Vec<_> = configured(&parsed).into_iter().map(|export| (export.path, true)).collect();
        // A server that does not run serves nothing else.
        if let Ok(table) = self.table() {
            paths.extend(table.exports.into_iter().map(|export| (export.path, true)));
        }
        Ok(paths)
    }
}

/// Its configuration, with what is wished for.
struct Blocks<'a> {
    inherited: AccessType,
    wish: &'a Wish<'a>,
}

impl Format for Blocks<'_> {
    fn entries(&self, text: &str) -> Result<Vec<Range<usize>>, NfsError> {
        let parsed = config::parse(Path::new("the configuration of NFS-Ganesha"), text)?;
        Ok(parsed.blocks.into_iter().filter(|block| block.is("EXPORT")).map(|block| block.range).collect())
    }

    fn edits(&self, base: &str) -> Result<Vec<Edit>, NfsError> {
        let file = Path::new("the configuration of NFS-Ganesha");
        let parsed = config::parse(file, base)?;
        let mut edits = Vec::new();
        for block in parsed.blocks.iter().filter(|block| block.is("EXPORT")) {
            let Some(export) = block.value("Path").map(edit::path) else { continue };
            let Some(shut) = (self.wish)(&export) else { continue };
            if number(block).is_none() {
                let line = base[..block.range.start].matches('\n').count() + 1;
                let problem = "an export without a decimal Export_Id can't be told to the server";
                return Err(NfsError::Syntax { path: file.to_owned(), line, problem });
            }
            let text = config::shut(base, block, self.inherited, shut);
            edits.push(Edit { range: block.range.clone(), export, text });
        }
        Ok(edits)
    }
}

fn number(block: &Block) -> Option<u16> {
    block.value("Export_Id")?.parse().ok()
}

/// By the files alone.
fn configured(parsed: &[Parsed]) -> Vec<Export> {
    let inherited = Ganesha::inherited(parsed);
    let exports = parsed.iter().flat_map(|it| &it.blocks).filter(|block| block.is("EXPORT"));
    let export = |block: &Block| {
        let own = block.access_type().unwrap_or(inherited);
        let client = |it: &Block| {
            let access = it.access_type().unwrap_or(own).access();
            it.client_names().into_iter().map(move |who| Client { who, access })
        };
        let mut clients: Vec<Client> = block.clients().flat_map(client).collect();
        if own != AccessType::None && !clients.iter().any(|client| client.who == "*") {
            clients.push(Client { who: "*".to_owned(), access: own.access() });
        }
        let path = edit::path(block.value("Path")?);
        let pseudo = block.value("Pseudo").map_or_else(|| path.clone(), edit::path);
        Some(Export {
            path,
            pseudo,
            id: block.value("Export_Id").map(str::to_owned),
            crosses: true,
            clients,
            is_complete: false,
        })
    };
    exports.filter_map(export).collect()
}

/// Clients that no block names have what the export says, and the server does not show that: it is what the file says, unless a block
/// names all.
fn export(number: u16, shown: bus::Shown, configured: &[Export]) -> Export {
    let id = number.to_string();
    let mut clients = shown.clients;
    let by_file = configured.iter().find(|export| export.id.as_deref() == Some(&id));
    // Without `mount_path_pseudo` the server (4.3) shows the path in its place; clients of NFSv4 call it by its pseudo path all the same.
    let pseudo = by_file.map_or_else(|| shown.pseudo.into(), |export| export.pseudo.clone());
    let is_complete = clients.iter().any(|client| client.who == "*");
    if !is_complete {
        let rest = by_file.map(|export| export.clients.iter().find(|client| client.who == "*"));
        match rest {
            Some(Some(rest)) => clients.push(rest.clone()),
            Some(None) => {}
            None => clients.push(Client { who: "*".to_owned(), access: Access::Unknown }),
        }
    }
    Export { path: shown.path.into(), pseudo, id: Some(id), crosses: true, clients, is_complete }
}
