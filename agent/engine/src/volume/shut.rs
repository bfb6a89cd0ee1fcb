//! Who may write to a copy from outside: clients that are shut out, and a primary that another one has superseded (R8).

use std::{
    fmt,
    sync::{Arc, PoisonError},
};

use super::{Volume, VolumeError, unix_now};
use crate::{
    id::VolumeId,
    point::{Role, Superseded},
};

/// Knows whether the users of a volume are shut out.
pub trait Shutter: fmt::Debug + Send + Sync {
    /// Provably, now: a number that is another one each time that they are shut out anew.
    fn shut(&self, volume: VolumeId) -> Option<u64>;
}

impl Volume {
    pub fn set_shutter(&self, shutter: Option<Arc<dyn Shutter>>) {
        *self.shutter.write().unwrap_or_else(PoisonError::into_inner) = shutter;
    }

    pub(crate) fn shut(&self) -> Option<u64> {
        let shutter = self.shutter.read().unwrap_or_else(PoisonError::into_inner).clone();
        shutter.and_then(|shutter| shutter.shut(self.id()))
    }

    /// R8: a copy that is primary elsewhere under a higher epoch is no source any more. Whether that was news.
    pub fn supersede(&self, by: &str, epoch: u64) -> Result<bool, VolumeError> {
        let mut is_news = false;
        self.update_state(|state| {
            state.see_epoch(epoch);
            is_news = state.role == Role::Primary
                && epoch > state.epoch
                && state.superseded.as_ref().is_none_or(|known| known.epoch < epoch);
            if is_news {
                state.superseded = Some(Superseded { by: by.to_owned(), epoch, at: unix_now() });
            }
        })?;
        Ok(is_news)
    }

    /// What epoch another copy is in: a promotion here raises it further, whoever is primary by then.
    pub fn see_epoch(&self, epoch: u64) -> Result<(), VolumeError> {
        if epoch <= self.state().seen_epoch {
            return Ok(());
        }
        self.update_state(|state| state.see_epoch(epoch))
    }

    pub(crate) fn check_source(&self) -> Result<(), VolumeError> {
        match self.state().superseded {
            Some(by) => Err(VolumeError::Superseded { volume: self.id(), by }),
            None => Ok(()),
        }
    }
}
