//! Small files, whole.

use std::io;

use super::{Source, open::OpenFile};
use crate::{
    content::{Part, part},
    fault,
    hash::read_padded,
    session::body::{BodyError, BodyMessage, SmallBatch, Want, small::SmallBatchBuilder},
};

/// Of a body's head in a batch, generously.
const HEAD_BYTES: usize = 32;

impl Source<'_> {
    pub(super) fn send_whole(&self, wants: &[Want]) -> Result<(), BodyError> {
        let bytes = wants.iter().map(|want| want.body.size as usize + HEAD_BYTES).sum();
        let mut batch = SmallBatch::builder(bytes);
        for want in wants {
            self.add_whole(&mut batch, want).map_err(|error| self.fail(want, error))?;
        }
        if let Some(first) = wants.first() {
            fault::hit("send.small").map_err(|error| self.fail(first, error))?;
        }
        self.send(BodyMessage::Small(batch.finish()))
    }

    fn add_whole(&self, batch: &mut SmallBatchBuilder, want: &Want) -> io::Result<()> {
        let size = want.body.size as usize;
        let Some(file) = self.open(&want.path)? else {
            batch.gone(want.id);
            return Ok(());
        };
        if want.body.holes == 0 {
            return batch.data(want.id, size, |buffer| read_padded(&file, buffer, 0));
        }
        let file = OpenFile::new(file, want.body.holes)?;
        batch.parts(want.id, &whole(&file, size)?);
        Ok(())
    }
}

/// All of a small file, with its holes.
pub(super) fn whole(file: &OpenFile, size: usize) -> io::Result<Vec<Part>> {
    let mut content = vec![0; size];
    read_padded(&file.file, &mut content, 0)?;
    Ok(part::compose(&content.into(), &file.allocation.holes_within(0, size), &[]))
}
