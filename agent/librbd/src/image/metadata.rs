//! Keys and values that travel with an image. Those that begin with `.rbd` are not mirrored.

use std::collections::BTreeMap;

use super::Image;
use crate::{
    Error, ErrorKind,
    error::call,
    reply::{Filled, filled, filled_one},
    text::{first_of, names_of, parts_of, to_c},
};

/// Keys asked for at once.
const PAGE: u64 = 256;

impl Image {
    /// `None` where there is no such key.
    pub fn metadata(&self, key: &str) -> Result<Option<String>, Error> {
        let key = to_c("rbd_metadata_get", key)?;
        let value = filled_one::<u8>("rbd_metadata_get", 1024, |value, length| {
            // SAFETY: an open image, a C string; a buffer of that length.
            unsafe { (self.functions().rbd_metadata_get)(self.raw(), key.as_ptr(), value.cast(), length) }.into()
        });
        match value {
            Ok(value) => Ok(Some(first_of(&value))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// ReadOnly: non-primary, or opened read-only.
    pub fn set_metadata(&self, key: &str, value: &str) -> Result<(), Error> {
        let (key, value) = (to_c("rbd_metadata_set", key)?, to_c("rbd_metadata_set", value)?);
        // SAFETY: an open image, C strings.
        unsafe { call!(self.functions(), rbd_metadata_set(self.raw(), key.as_ptr(), value.as_ptr())) }.map(drop)
    }

    /// NotFound: no such key. ReadOnly: as above.
    pub fn remove_metadata(&self, key: &str) -> Result<(), Error> {
        let key = to_c("rbd_metadata_remove", key)?;
        // SAFETY: an open image, a C string.
        unsafe { call!(self.functions(), rbd_metadata_remove(self.raw(), key.as_ptr())) }.map(drop)
    }

    pub fn all_metadata(&self) -> Result<BTreeMap<String, String>, Error> {
        let mut all = BTreeMap::new();
        let mut after = String::new();
        loop {
            let page = self.metadata_page(&after)?;
            let Some((last, _)) = page.last() else { return Ok(all) };
            after.clone_from(last);
            all.extend(page);
        }
    }

    fn metadata_page(&self, after: &str) -> Result<Vec<(String, String)>, Error> {
        let after = to_c("rbd_metadata_list", after)?;
        let Filled { buffers: [keys, values], .. } =
            filled::<u8, 2>("rbd_metadata_list", 4096, |[keys, values], lengths| {
                let [keys_length, values_length] = lengths;
                // SAFETY: an open image, a C string; two buffers of those lengths.
                unsafe {
                    (self.functions().rbd_metadata_list)(
                        self.raw(),
                        after.as_ptr(),
                        PAGE,
                        keys.cast(),
                        keys_length,
                        values.cast(),
                        values_length,
                    )
                }
                .into()
            })?;
        let keys = names_of(&keys);
        let values = parts_of(&values, keys.len());
        Ok(keys.into_iter().zip(values).collect())
    }
}
