//! Snapshots by commands of the configuration: LVM, ZFS, or whatever lies beneath a volume. No shell is involved: each word is
//! one argument, with what stands in braces replaced.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use drover_engine::{
    id::VolumeId,
    volume::{Freezer, Frozen},
};
use serde::Deserialize;

use crate::config::ConfigError;

/// Commands that make and remove the snapshot of a volume of one root.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotConfig {
    /// Program and arguments; the snapshot must be one instant, which nobody checks. `{path}` is the volume's file or device, `{name}` the last part of that, `{id}` the first eight
    /// characters of the volume's id: a name that begins with it is Drover's to remove.
    pub create: Vec<String>,
    /// Where the snapshot is then: a file, or a device beneath `/dev`.
    pub path: String,
    pub remove: Vec<String>,
    /// How long each command may take.
    #[serde(default = "timeout_secs")]
    pub timeout_secs: u64,
}

fn timeout_secs() -> u64 {
    60
}

impl SnapshotConfig {
    pub(crate) fn validate(&self, root: &str) -> Result<(), ConfigError> {
        let problem = |problem| ConfigError::Snapshot { root: root.to_owned(), problem };
        for command in [&self.create, &self.remove] {
            match command.first() {
                Some(program) if Path::new(program).is_absolute() => {}
                _ => return Err(problem("a command begins with the absolute path of a program")),
            }
        }
        // Two volumes may have the same name in different directories, and syncs of both run at once.
        let is_own = |text: &String| text.contains("{id}");
        if !is_own(&self.path) || !self.create.iter().any(is_own) || !self.remove.iter().any(is_own) {
            return Err(problem("create, path and remove must each have the snapshot's name, with {id} in it"));
        }
        let words = self.create.iter().chain(&self.remove).chain([&self.path]);
        for word in words {
            let rest = ["{path}", "{name}", "{id}"].iter().fold(word.clone(), |word, name| word.replace(name, ""));
            if rest.contains(['{', '}']) {
                return Err(problem("only {path}, {name} and {id} are replaced in create, path and remove"));
            }
        }
        if !(1..=3600).contains(&self.timeout_secs) {
            return Err(problem("timeout_secs is 1 to 3600"));
        }
        Ok(())
    }
}

/// Of the volumes of one root.
#[derive(Debug)]
pub struct CommandFreezer(pub SnapshotConfig);

struct Snapshot {
    path: PathBuf,
    remove: Vec<String>,
    timeout: Duration,
}

impl Freezer for CommandFreezer {
    fn freeze(&self, volume: VolumeId, path: &Path) -> Result<Box<dyn Frozen>, String> {
        let Self(config) = self;
        let fill = |words: &[String]| -> Vec<String> { words.iter().map(|word| filled(word, volume, path)).collect() };
        let timeout = Duration::from_secs(config.timeout_secs);
        let (at, remove) = (PathBuf::from(filled(&config.path, volume, path)), fill(&config.remove));
        // An agent that was killed left it: it is of another instant.
        if at.exists() {
            run(&remove, timeout).map_err(|problem| format!("an old snapshot can't be removed: {problem}"))?;
        }
        if let Err(problem) = run(&fill(&config.create), timeout) {
            // Made in part.
            if at.exists()
                && let Err(problem) = run(&remove, timeout)
            {
                tracing::error!(snapshot = %at.display(), "a part of a snapshot was not removed: {problem}");
            }
            return Err(problem);
        }
        Ok(Box::new(Snapshot { path: at, remove, timeout }))
    }
}

impl Frozen for Snapshot {
    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if let Err(problem) = run(&self.remove, self.timeout) {
            tracing::error!(snapshot = %self.path.display(), "snapshot was not removed, it fills up: {problem}");
        }
    }
}

fn filled(word: &str, volume: VolumeId, path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let id = volume.to_string();
    word.replace("{path}", &path.to_string_lossy()).replace("{name}", &name).replace("{id}", &id[..8])
}

fn run(words: &[String], timeout: Duration) -> Result<(), String> {
    const LOOK: Duration = Duration::from_millis(20);
    const SHOWN: u64 = 2000;
    let shown = words.join(" ");
    let (program, arguments) = words.split_first().ok_or("a command has no words")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("{shown}: {error}"))?;
    // Read beside, so that a talkative command does not wait for a reader.
    let stderr = child.stderr.take();
    let said = thread::spawn(move || {
        let mut text = String::new();
        let read = stderr.map(|stderr| stderr.take(SHOWN).read_to_string(&mut text));
        // What is no text, or too long, is not needed.
        drop(read);
        text
    });
    let end = Instant::now() + timeout;
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Ok(()),
            Ok(Some(status)) => {
                let said = said.join().unwrap_or_default();
                return Err(format!("{shown}: {status}: {}", said.trim()));
            }
            Ok(None) if Instant::now() < end => thread::sleep(LOOK),
            Ok(None) => {
                // It may be unkillable for a while; it is ours to wait for either way.
                let killed = child.kill().and_then(|()| child.wait());
                let fate = if killed.is_ok() { "it was killed" } else { "it could not be killed" };
                return Err(format!("{shown}: not over after {} s; {fate}", timeout.as_secs()));
            }
            Err(error) => return Err(format!("{shown}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(create: &[&str], remove: &[&str], path: &str) -> SnapshotConfig {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        SnapshotConfig { create: words(create), path: path.to_owned(), remove: words(remove), timeout_secs: 1 }
    }

    #[test]
    fn a_snapshot_is_removed_whatever_happens() {
        let dir = tempfile::tempdir().unwrap();
        let (image, at) = (dir.path().join("vm.img"), dir.path().join("snap-{id}"));
        std::fs::write(&image, "disk").unwrap();
        let (at, id) = (at.to_str().unwrap(), VolumeId::random());
        let freezer = CommandFreezer(config(&["/bin/cp", "{path}", at], &["/bin/rm", at], at));
        freezer.0.validate("r").unwrap();
        let frozen = freezer.freeze(id, &image).unwrap();
        let path = frozen.path().to_owned();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "disk");
        drop(frozen);
        assert!(!path.exists());
        // What was left behind is of another instant.
        std::fs::write(&path, "old").unwrap();
        assert_eq!(std::fs::read_to_string(freezer.freeze(id, &image).unwrap().path()).unwrap(), "disk");
        assert!(!path.exists());
        let failing = CommandFreezer(config(&["/bin/cp", "{path}/nothing", at], &["/bin/rm", at], at));
        let problem = failing.freeze(id, &image).err().unwrap();
        assert!(problem.contains("/bin/cp") && problem.contains("nothing"), "{problem}");
        let slow = CommandFreezer(config(&["/bin/sleep", "60"], &["/bin/rm", at], at));
        assert!(slow.freeze(id, &image).is_err_and(|problem| problem.contains("not over after 1 s")));
    }

    #[test]
    fn commands_that_can_not_work_are_refused() {
        for (create, remove, path) in [
            (&["cp", "{path}"][..], &["/bin/rm", "{id}"][..], "/x/{id}"),
            (&[], &["/bin/rm", "{id}"], "/x/{id}"),
            (&["/bin/cp", "{path}"], &["/bin/rm", "{id}"], "/x/same"),
            (&["/bin/cp", "{path}", "/x/{id}"], &["/bin/rm", "all"], "/x/{id}"),
            (&["/bin/cp", "{path}", "/x/{name}"], &["/bin/rm", "/x/{name}"], "/x/{name}"),
        ] {
            assert!(config(create, remove, path).validate("r").is_err());
        }
    }
}
