//! What Ceph-CSI keeps of an image in its pool. It deletes and expands by the image's id, which is another one after a resync, or when another image took
//! its place; rbd-mirror does not mirror it.
//!
//! ```text
//! image   <prefix>-<uuid>                 by default csi-vol-<uuid>
//! object  csi.volume.<uuid>               keys csi.imagename, csi.imageid
//! ```

use drover_librbd::{Access, Cluster, Condition, Error, ErrorKind, ImageRef, OmapChange, Written};

use super::image::pool;
use crate::view::ImagePlace;

const NAME: &str = "csi.imagename";
const ID: &str = "csi.imageid";

/// Nothing where the image is not Ceph-CSI's, or its journal is in another pool.
pub(super) fn repair(cluster: &Cluster, place: &ImagePlace) -> Result<bool, Error> {
    let Some(uuid) = uuid_of(&place.image) else { return Ok(false) };
    let pool = pool(cluster, &place.pool, &place.namespace)?;
    let object = pool.object(&format!("csi.volume.{uuid}"))?;
    let known = match object.omap_values(&[NAME, ID]) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        known => known?,
    };
    let (Some(name), Some(old)) = (known.get(NAME), known.get(ID)) else { return Ok(false) };
    let id = pool.open(ImageRef::Name(&place.image), Access::ReadOnly)?.id()?;
    if name != place.image.as_bytes() || old == id.as_bytes() {
        return Ok(false);
    }
    let change = OmapChange { set: &[(ID, id.as_bytes())], remove: &[] };
    Ok(object.change_omap(Condition::Equal(&[(ID, old)]), change)? == Written::Done)
}

/// The last 36 characters, behind a hyphen.
fn uuid_of(image: &str) -> Option<&str> {
    const LENGTH: usize = 36;
    let (prefix, uuid) = image.split_at_checked(image.len().checked_sub(LENGTH)?)?;
    let is_uuid = uuid.char_indices().all(|(at, letter)| match at {
        8 | 13 | 18 | 23 => letter == '-',
        _ => letter.is_ascii_hexdigit(),
    });
    (is_uuid && prefix.ends_with('-')).then_some(uuid)
}

#[test]
fn images_of_ceph_csi_are_known_by_their_names() {
    let uuid = "5f0b6f0e-6a51-4d0a-9f6f-0a4c2f1d7b11";
    assert_eq!(uuid_of(&format!("csi-vol-{uuid}")), Some(uuid));
    assert_eq!(uuid_of(&format!("pvc-{uuid}")), Some(uuid));
    for other in ["vm1", uuid, "csi-vol-5f0b6f0e-6a51-4d0a-9f6f-0a4c2f1d7b1", &format!("csi-vol-{uuid}.kept")] {
        assert_eq!(uuid_of(other), None, "{other}");
    }
}
