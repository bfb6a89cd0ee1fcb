//! What the sink got is not what the scan recorded: look again.

use std::{fs::File, io, sync::Arc};

use drover_linux::{Dir, Stat, file};

use super::{Source, open::OpenFile, whole::whole};
use crate::{
    content::{Part, part},
    control::Control,
    hash::hash_file,
    meta,
    path::Name,
    session::body::{BodyError, BodyMessage, Changed, SMALL_BYTES_MAX, Settled, Want},
    tree::{Body, Meta},
};

/// A file that changes during so many looks is sent as it was at the last one, and named.
const LOOKS_MAX: u32 = 3;

struct Look {
    meta: Meta,
    body: Body,
    content: Option<Vec<Part>>,
}

impl Source<'_> {
    pub(super) fn recheck(&self, want: &Want) -> Result<(), BodyError> {
        let answer = self.look_again(want).map_err(|error| self.fail(want, error))?;
        self.send(answer)
    }

    fn look_again(&self, want: &Want) -> io::Result<BodyMessage> {
        let gone = BodyMessage::Gone { id: want.id };
        if let Some(answer) = self.look_at_frozen(want)? {
            return Ok(answer);
        }
        let Some(file) = self.open_again(&want.path)? else {
            return Ok(gone);
        };
        let mut last = None;
        for _ in 0..LOOKS_MAX {
            let Some((dir, name)) = self.locate(&file)? else {
                return Ok(gone);
            };
            let before = file::stat(&file)?;
            let look = self.look(&file, &before, &dir, &name)?;
            let settled =
                if is_same(&before, &file::stat(&file)?) && look.is_whole() { Settled::Still } else { Settled::Moving };
            last = Some((look, settled));
            if settled == Settled::Still {
                break;
            }
        }
        let Some((look, settled)) = last else {
            return Ok(gone);
        };
        let open = OpenFile::new(file, look.body.holes)?;
        self.files.put(&want.path, Arc::new(open));
        Ok(look.into_answer(want.id, settled))
    }

    /// What is frozen does not change: the sink's own base was not what it thought. Unless the clone is damaged.
    fn look_at_frozen(&self, want: &Want) -> io::Result<Option<BodyMessage>> {
        let Some((bases, file)) = self.bases.zip(self.frozen(want)?) else { return Ok(None) };
        if file::stat(&file)?.size != want.body.size {
            return Ok(None);
        }
        if hash_file(&file, want.body.size, &self.quiet())?.digest != want.body.digest {
            tracing::warn!(path = %want.path, "a frozen content is damaged; the file is read again");
            bases.forget(&want.body.digest)?;
            self.files.forget(&want.path);
            return Ok(None);
        }
        let (settled, body, meta) = (Settled::Still, want.body, Meta::default());
        Ok(Some(BodyMessage::Changed(Box::new(Changed { id: want.id, meta, body, settled, content: None }))))
    }

    /// What is hashed here has been counted when it was sent.
    fn quiet(&self) -> Control {
        let mut control = self.control().clone();
        control.progress = Arc::default();
        control
    }

    fn look(&self, file: &File, stat: &Stat, dir: &Dir, name: &Name) -> io::Result<Look> {
        let meta = meta::read(dir, name.as_bytes(), stat)?;
        let body = hash_file(file, stat.size, &self.quiet())?;
        if body.size > SMALL_BYTES_MAX {
            return Ok(Look { meta, body, content: None });
        }
        let open = OpenFile::new(file.try_clone()?, body.holes)?;
        let content = whole(&open, body.size as usize)?;
        Ok(Look { meta, body, content: Some(content) })
    }
}

impl Look {
    /// Content is read once more than it is hashed.
    fn is_whole(&self) -> bool {
        self.content.as_ref().is_none_or(|content| part::digest(content) == self.body.digest)
    }

    fn into_answer(self, id: u32, settled: Settled) -> BodyMessage {
        let Self { meta, mut body, content } = self;
        if let Some(content) = &content {
            body.digest = part::digest(content);
        }
        BodyMessage::Changed(Box::new(Changed { id, meta, body, settled, content }))
    }
}

fn is_same(before: &Stat, after: &Stat) -> bool {
    (before.size, before.mtime, before.ctime) == (after.size, after.mtime, after.ctime)
}
