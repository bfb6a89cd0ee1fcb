//! What the head holds that a snapshot does not.

use drover_engine::image::{Range, narrow::Coarse};
use drover_librbd::Cluster;

use super::{super::image::pool, Agent, changed, lost, open, windows};
use crate::{request::Failure, view::ImagePlace};

pub(super) fn head(
    cluster: &Cluster,
    place: &ImagePlace,
    since: Option<&str>,
    agent: &mut dyn Agent,
) -> Result<Vec<Range>, Failure> {
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    let head = open(&pool, place, None)?;
    let size = head.size_bytes()?;
    let mut ranges = Coarse::default();
    for window in windows(size) {
        for extent in changed(&head, since, window)? {
            ranges.push(Range { offset: extent.offset, length: extent.length });
        }
        agent.send(Vec::new()).map_err(lost)?;
    }
    if let Some(since) = since {
        // What somebody has cut off is zeros once the image is as large as before.
        let before = open(&pool, place, Some(since))?.size_bytes()?;
        if before > size {
            ranges.push(Range { offset: size, length: before - size });
        }
    }
    Ok(ranges.into_ranges())
}
