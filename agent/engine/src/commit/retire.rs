//! After the new point stands: old contents go to history, the rest of what was taken out goes away. Replayable.

use std::io;

use super::{CommitRecord, Site, apply};
use crate::{
    fault,
    plan::{Place, Retire, Retired},
    pool::Pool,
};

pub(crate) fn retire(site: &Site<'_>, pool: &Pool, record: &CommitRecord) -> io::Result<()> {
    fault::hit("retain.begin")?;
    for retired in &record.retired {
        one(site, pool, record.state.transaction, retired)?;
        fault::hit("retain.moved")?;
    }
    for digest in &record.from_pool {
        pool.drop_content(digest)?;
    }
    apply::lock(site, &record.steps)?;
    fault::hit("retain.sync")?;
    pool.sync()
}

fn one(site: &Site<'_>, pool: &Pool, transaction: u64, retired: &Retired) -> io::Result<()> {
    if let Retire::Delta(digest) = &retired.what {
        return pool.take_delta(site.staging.patches(), digest);
    }
    let (dir, name) = match site.staging.locate(&retired.place) {
        // Its directory entered the tree and took the place along: it was retired before.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    };
    let result = match retired.what {
        Retire::Body(digest) => pool.take(&dir, &name, &digest),
        Retire::Name | Retire::Delta(_) => dir.unlink(&name),
        Retire::Directory => dir.rmdir(&name),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => keep_foreign(site, transaction, retired),
        result => result,
    }
}

/// Someone created entries in a directory that the plan deleted. They are theirs: they stay, beside the volume.
fn keep_foreign(site: &Site<'_>, transaction: u64, retired: &Retired) -> io::Result<()> {
    let (dir, name) = site.staging.locate(&retired.place)?;
    let number = match &retired.place {
        Place::Out(number) => number.to_string(),
        Place::Tree(path) => crate::digest::Digest::of(path.as_bytes()).to_string(),
    };
    let kept = crate::beside::keep_foreign(site.beside, &dir, &name, &format!("{transaction}-{number}"))?;
    tracing::warn!(foreign = kept, "entries that appeared in a deleted directory were kept beside the volume");
    Ok(())
}
