//! The kernel's NFS server: its files (exports(5)), the table of `exportfs` and the kernel's own.
//!
//! The files decide after a reboot, `etab` for clients that come now, the kernel's cache for those that are there: all three are changed, one
//! entry at a time, so that entries which others put into the table (a cluster manager's, say) stay, and edits of the files that
//! nobody has applied yet are not applied by us.
//!
//! Sources: exports(5), exportfs(8), nfs-utils `utils/exportfs/exportfs.c`.

mod exports;

use std::{
    ffi::OsString,
    fs,
    io::Read as _,
    ops::Range,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::{
    edit::{self, Change, Edit, Format},
    error::NfsError,
    place::unescape,
    server::{Load, Plan, Wish},
    table::{Access, Client, Export, Shut, Table},
};

/// Where the server's parts are. The defaults are those of nfs-utils.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KernelConfig {
    pub exportfs: PathBuf,
    pub exports: PathBuf,
    pub exports_d: PathBuf,
    pub etab: PathBuf,
    /// The kernel's table; there is none while nfsd is not loaded.
    pub kernel_table: PathBuf,
}

impl Default for KernelConfig {
    fn default() -> Self {
        Self {
            exportfs: "/usr/sbin/exportfs".into(),
            exports: "/etc/exports".into(),
            exports_d: "/etc/exports.d".into(),
            etab: "/var/lib/nfs/etab".into(),
            kernel_table: "/proc/fs/nfsd/exports".into(),
        }
    }
}

/// An entry of the table as it was before it was changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub path: PathBuf,
    pub who: String,
    /// As `etab` has them, all of them.
    pub options: String,
    /// It is Drover that took it out of the table.
    #[serde(default)]
    pub is_refused: bool,
}

/// exports(5), with what is wished for.
struct Lines<'a> {
    wish: &'a Wish<'a>,
}

impl Format for Lines<'_> {
    fn entries(&self, text: &str) -> Result<Vec<Range<usize>>, NfsError> {
        Ok(exports::entries(text))
    }

    fn edits(&self, base: &str) -> Result<Vec<Edit>, NfsError> {
        let edit = |line: exports::Line| {
            let text = exports::shut(base, &line, (self.wish)(&line.path)?);
            Some(Edit { range: line.range, export: line.path, text })
        };
        Ok(exports::lines(base).into_iter().filter_map(edit).collect())
    }
}

#[derive(Debug)]
pub(crate) struct Kernel(pub(crate) KernelConfig);

impl Kernel {
    /// In the order in which `exportfs` reads them.
    fn files(&self) -> Result<Vec<PathBuf>, NfsError> {
        let Self(config) = self;
        let mut files = Vec::new();
        if config.exports.exists() {
            files.push(config.exports.clone());
        }
        let mut more = Vec::new();
        match fs::read_dir(&config.exports_d) {
            Ok(entries) => more.extend(entries.flatten().map(|entry| entry.path()).filter(|path| is_exports(path))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(NfsError::File { what: "list", path: config.exports_d.clone(), source }),
        }
        more.sort();
        files.extend(more);
        Ok(files)
    }

    pub(crate) fn plan(&self, known: &[Change], former: &[Entry], wish: &Wish<'_>) -> Result<Plan, NfsError> {
        let files = self.files()?.into_iter().map(|file| Ok((file.clone(), edit::read(&file)?)));
        let mut plan = Plan::of(files.collect::<Result<Vec<_>, NfsError>>()?, known, &Lines { wish })?;
        // What was changed stays known while it is wished for; what is new is added.
        plan.former.extend(former.iter().filter(|entry| wish(&entry.path).is_some()).cloned());
        for entry in self.etab()? {
            let is_known = plan.former.iter().any(|it| it.is(&entry));
            if !is_known
                && let Some(shut) = wish(&entry.path)
                && !shut.allows(exports::access(&entry.options))
            {
                plan.former.push(entry);
            }
        }
        Ok(plan)
    }

    /// The table and the kernel follow the files. An entry that can't be set keeps no other from it.
    pub(crate) fn load(&self, former: &[Entry], plan: &mut Plan, wish: &Wish<'_>, load: Load) -> Result<(), NfsError> {
        let now = self.etab()?;
        // What was carried out, and the first that failed.
        let (mut count, mut failed) = (0, None);
        let mut carry_out = |result: Result<(), NfsError>| {
            count += 1;
            let is_done = result.is_ok();
            failed = failed.take().or(result.err());
            is_done
        };
        for entry in &mut plan.former {
            let Some(shut) = wish(&entry.path) else { continue };
            let standing = now.iter().find(|it| it.is(entry));
            match (shut, standing) {
                (Shut::ReadOnly, Some(standing)) if exports::access(&standing.options) == Access::ReadWrite => {
                    carry_out(self.set(entry, &exports::read_only(&standing.options)));
                }
                // It was refused before, and may read now. One that others removed stays removed.
                (Shut::ReadOnly, None) if entry.is_refused => {
                    let is_set = carry_out(self.set(entry, &exports::read_only(&entry.options)));
                    entry.is_refused = !is_set;
                }
                (Shut::Refuse, Some(_)) => {
                    entry.is_refused |= carry_out(self.run(&["-u".into(), place_of(entry)]));
                }
                (Shut::ReadOnly, _) | (Shut::Refuse, None) => {}
            }
        }
        for entry in former {
            let is_kept = plan.former.iter().any(|kept| kept.is(entry));
            let standing = now.iter().find(|it| it.is(entry));
            let is_ours = standing.map_or(entry.is_refused, |it| exports::access(&it.options) == Access::ReadOnly);
            if !is_kept && is_ours {
                carry_out(self.set(entry, &entry.options));
            }
        }
        // So that clients that are there are judged anew.
        if (count > 0 || load == Load::Always) && self.0.kernel_table.exists() {
            failed = failed.or(self.run(&["-f".into()]).err());
        }
        failed.map_or(Ok(()), Err)
    }

    fn set(&self, entry: &Entry, options: &str) -> Result<(), NfsError> {
        self.run(&["-i".into(), "-o".into(), options.into(), place_of(entry)])
    }

    /// It waits for a lock that other calls of it hold.
    fn run(&self, arguments: &[OsString]) -> Result<(), NfsError> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let shown: Vec<_> = arguments.iter().map(|argument| argument.to_string_lossy()).collect();
        let shown = format!("{} {}", self.0.exportfs.display(), shown.join(" "));
        let failed = |problem: String| NfsError::Server { what: shown.clone(), problem };
        let mut command = Command::new(&self.0.exportfs);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let end = Instant::now() + PATIENCE;
        let status = loop {
            match child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < end => thread::sleep(Duration::from_millis(5)),
                Ok(None) => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Err(failed(format!("not over after {} s, it was killed", PATIENCE.as_secs())));
                }
                Err(error) => return Err(failed(error.to_string())),
            }
        };
        if status.success() {
            return Ok(());
        }
        let mut said = String::new();
        // What is no text is not needed.
        let _ = child.stderr.take().map(|stderr| stderr.take(4096).read_to_string(&mut said));
        Err(failed(format!("{status}: {}", said.trim())))
    }

    fn etab(&self) -> Result<Vec<Entry>, NfsError> {
        match fs::read_to_string(&self.0.etab) {
            Ok(text) => Ok(entries(&text)),
            // Nothing was ever exported.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(source) => Err(NfsError::File { what: "read", path: self.0.etab.clone(), source }),
        }
    }

    pub(crate) fn table(&self) -> Result<Table, NfsError> {
        let mut table = Table { source: self.0.etab.display().to_string(), ..Table::default() };
        for entry in self.etab()? {
            add(&mut table.exports, &entry, "");
        }
        // Clients of NFSv4 call exports by their paths beneath the one that is their root.
        let is_root = |export: &&Export| matches!(export.id.as_deref(), Some("0" | "root"));
        if let Some(root) = table.exports.iter().find(is_root).map(|root| root.path.clone()) {
            for export in &mut table.exports {
                if let Ok(beneath) = export.path.strip_prefix(&root) {
                    export.pseudo = Path::new("/").join(beneath);
                }
            }
        }
        match fs::read_to_string(&self.0.kernel_table) {
            Ok(text) => {
                table.source = format!("{} and {}", table.source, self.0.kernel_table.display());
                // What the kernel has not been asked for since the last flush is not in it, and comes from etab.
                for entry in entries(&text) {
                    add(&mut table.exports, &entry, " (in the kernel)");
                }
            }
            Err(error) => table.gaps.push(format!(
                "the kernel's own table {} can't be read ({error}): is nfsd loaded?",
                self.0.kernel_table.display()
            )),
        }
        Ok(table)
    }

    /// Paths of all exports that the files name, whether they are in force or not.
    pub(crate) fn exported(&self) -> Result<Vec<(PathBuf, bool)>, NfsError> {
        let mut exported: Vec<_> = self.etab()?.into_iter().map(|it| (it.path, crosses(&it.options))).collect();
        for file in self.files()? {
            let text = edit::read(&file)?;
            exported.extend(exports::lines(&text).into_iter().map(|line| {
                let crosses = crosses(&text[line.range]);
                (line.path, crosses)
            }));
        }
        Ok(exported)
    }
}

impl Entry {
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.path == other.path && self.who.eq_ignore_ascii_case(&other.who)
    }
}

fn is_exports(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".exports") && !name.starts_with('.')
}

/// Clients reach what is mounted beneath it through it.
fn crosses(options: &str) -> bool {
    let mut words = options.split(|c: char| matches!(c, ',' | '(' | ')') || c.is_whitespace());
    words.any(|word| matches!(word, "crossmnt" | "nohide"))
}

fn place_of(entry: &Entry) -> OsString {
    let who = entry.who.trim_matches(['[', ']']);
    let mut place = OsString::from(match who.split_once('/') {
        Some((address, prefix)) if address.contains(':') => format!("[{}]/{prefix}:", address.trim_end_matches(']')),
        None if who.contains(':') => format!("[{who}]:"),
        _ => format!("{}:", entry.who),
    });
    place.push(&entry.path);
    place
}

/// `PATH<tab>CLIENT(OPTIONS)`, several clients behind one path in the kernel's table.
fn entries(text: &str) -> Vec<Entry> {
    let line = |line: &str| {
        let (path, clients) = line.split_once('\t')?;
        let path = unescape(path.as_bytes());
        let clients = clients.split_whitespace().filter_map(move |client| {
            let (who, options) = client.split_once('(')?;
            let options = options.strip_suffix(')').unwrap_or(options).to_owned();
            Some(Entry { path: path.clone(), who: who.to_owned(), options, is_refused: false })
        });
        Some(clients.collect::<Vec<_>>())
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(line).flatten().collect()
}

fn add(exports: &mut Vec<Export>, entry: &Entry, suffix: &str) {
    let client = Client { who: format!("{}{suffix}", entry.who), access: exports::access(&entry.options) };
    let fsid = entry.options.split(',').find_map(|word| word.strip_prefix("fsid=")).map(str::to_owned);
    if let Some(export) = exports.iter_mut().find(|export| export.path == entry.path) {
        export.clients.push(client);
        export.crosses |= crosses(&entry.options);
        return;
    }
    let (path, crosses) = (entry.path.clone(), crosses(&entry.options));
    exports.push(Export { pseudo: path.clone(), path, id: fsid, crosses, clients: vec![client], is_complete: true });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read() {
        let etab =
            "/srv/e\t2001:db8::/32(ro,sync,sec=sys,ro)\n/srv/with\\040space\t127.0.0.1(rw,sync,fsid=5,sec=sys,rw)\n";
        let entries = entries(etab);
        assert_eq!(entries[1].path, Path::new("/srv/with space"));
        assert_eq!(place_of(&entries[0]), "[2001:db8::]/32:/srv/e");
        assert_eq!(place_of(&entries[1]), "127.0.0.1:/srv/with space");
        assert_eq!(exports::access(&entries[0].options), Access::ReadOnly);
        assert_eq!(exports::access(&entries[1].options), Access::ReadWrite);
        let kernel = "# Version 1.1\n# Path Client(Flags) # IPs\n/srv/a\t*(rw,root_squash,sync,wdelay,uuid=1:2)\n";
        assert_eq!(super::entries(kernel).len(), 1);
        let fe80 = Entry { path: "/x".into(), who: "[fe80::1]".into(), options: String::new(), is_refused: false };
        assert_eq!(place_of(&fe80), "[fe80::1]:/x");
    }
}
