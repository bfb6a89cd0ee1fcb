//! What a job or a session is about: a volume beneath a root, or an image that the agents sync.

use std::sync::Arc;

use drover_engine::{
    control::{Control, Phase},
    error::Kind,
    id::VolumeId,
    point::{PointId, VolumeState},
    report::{Report, RollbackReport},
    session::{self, Failure, Hello, Intent, SessionError, Side, Wire, image},
    volume::VolumeError,
};

use crate::{
    mirror::{MirrorError, Mirrored, SharedMirrors},
    rpc::status::chain,
    volumes::{Held, Volumes, VolumesError},
};

#[derive(Clone, Debug)]
pub enum Target {
    Volume(Arc<Held>),
    Image(Image),
}

#[derive(Clone, Debug)]
pub struct Image {
    mirrors: SharedMirrors,
    pub mirrored: Mirrored,
}

#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    #[error(transparent)]
    Volume(#[from] VolumesError),
    #[error(transparent)]
    Tree(#[from] VolumeError),
    #[error(transparent)]
    Image(#[from] MirrorError),
    #[error(
        "volume {0} is mirrored by rbd-mirror: its points are taken by CreateMirrorSnapshot (`volume point`), and there is nothing to sync"
    )]
    Mirrored(VolumeId),
}

impl TargetError {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Volume(error) => error.kind(),
            Self::Tree(error) => error.kind(),
            Self::Image(error) => error.kind(),
            Self::Mirrored(_) => Kind::Precondition,
        }
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::Volume(error) => error.reason(),
            Self::Tree(error) => error.reason(),
            Self::Image(error) => error.reason(),
            Self::Mirrored(_) => "is-mirrored",
        }
    }
}

impl Target {
    /// Blocks where a cluster has to be asked.
    pub fn find(volumes: &Volumes, mirrors: &SharedMirrors, id: VolumeId) -> Result<Self, TargetError> {
        let missing = match volumes.get(id) {
            Ok(held) => return Ok(Self::Volume(held)),
            Err(error) if mirrors.is_empty() || volumes.knows(id) => return Err(error.into()),
            Err(error) => error,
        };
        match mirrors.find(id)? {
            Some(mirrored) if mirrored.is_delta => Ok(Self::Image(Image { mirrors: mirrors.clone(), mirrored })),
            Some(_) => Err(TargetError::Mirrored(id)),
            None => Err(missing.into()),
        }
    }

    /// Blocks as [`Target::find`] does.
    pub fn state(&self) -> Result<VolumeState, TargetError> {
        match self {
            Self::Volume(held) => Ok(held.volume.state()),
            Self::Image(Image { mirrors, mirrored }) => Ok(mirrors.delta_state(mirrored)?),
        }
    }

    /// Of a secondary, to an older point or forward again. Syncs pause until it is released.
    pub fn rollback(&self, to: PointId, control: &Control) -> Result<RollbackReport, TargetError> {
        match self {
            Self::Volume(held) => Ok(held.volume.rollback(to, control)?),
            Self::Image(Image { mirrors, mirrored }) => {
                control.progress.enter(Phase::Applying, 0, 0);
                let rolled = mirrors.rollback_delta(mirrored, to)?;
                control.progress.enter(Phase::Done, 0, 0);
                Ok(rolled)
            }
        }
    }

    pub fn release(&self) -> Result<(), TargetError> {
        match self {
            Self::Volume(held) => Ok(held.volume.release()?),
            Self::Image(Image { mirrors, mirrored }) => Ok(mirrors.release_delta(mirrored)?),
        }
    }

    pub fn dial(&self, wire: &Wire<'_>, side: Side, intent: Intent, request: &str) -> Result<Report, SessionError> {
        match self {
            Self::Volume(held) => session::dial(wire, &held.volume, side, intent, request),
            Self::Image(Image { mirrors, mirrored }) => {
                mirrors.sync_delta(mirrored, |copy| image::dial_image(wire, mirrored.id, copy, side, &intent, request))
            }
        }
    }

    pub fn answer(&self, wire: &Wire<'_>, hello: &Hello) -> Result<Report, SessionError> {
        match self {
            Self::Volume(held) => session::answer(wire, hello, &held.volume),
            Self::Image(Image { mirrors, mirrored }) => {
                let mut has_begun = false;
                let answered = mirrors.sync_delta(mirrored, |copy| {
                    has_begun = true;
                    image::answer_image(wire, hello, copy)
                });
                // Of another verb of the image, which has its turn.
                answered.inspect_err(|error| {
                    if !has_begun {
                        session::refuse(wire, error.to_failure());
                    }
                })
            }
        }
    }
}

impl From<&TargetError> for Failure {
    fn from(error: &TargetError) -> Self {
        Self { kind: error.kind(), reason: error.reason().to_owned(), message: chain(error) }
    }
}
