//! What a job or a session is about: a volume beneath a root, or an image that the agents sync.

use std::sync::Arc;

use drover_engine::{
    control::{Control, Phase},
    error::Kind,
    id::VolumeId,
    image::verbs,
    point::{PointId, VolumeState},
    report::{Report, RollbackReport},
    session::{self, Failure, Hello, Intent, SessionError, Side, Wire, image},
    volume::VolumeError,
};

use crate::{
    mirror::{MirrorError, Mirrored, SharedMirrors},
    rpc::status::chain,
    volumes::{Held, ImageFile, Volumes, VolumesError},
};

#[derive(Clone, Debug)]
pub enum Target {
    Volume(Arc<Held>),
    Image(Image),
    /// The copy of an image in a file.
    ImageFile(ImageFile),
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
    #[error("{}", .0.message)]
    ImageFile(Failure),
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
            Self::ImageFile(failure) => failure.kind,
            Self::Mirrored(_) => Kind::Precondition,
        }
    }

    pub fn reason(&self) -> &str {
        match self {
            Self::Volume(error) => error.reason(),
            Self::Tree(error) => error.reason(),
            Self::Image(error) => error.reason(),
            Self::ImageFile(failure) => &failure.reason,
            Self::Mirrored(_) => "is-mirrored",
        }
    }
}

impl Target {
    /// Blocks where a cluster has to be asked.
    pub fn find(volumes: &Volumes, mirrors: &SharedMirrors, id: VolumeId) -> Result<Self, TargetError> {
        let missing = match volumes.get(id) {
            Ok(held) => return Ok(Self::Volume(held)),
            Err(error) => match volumes.image_file(id)? {
                Some(image) => return Ok(Self::ImageFile(image)),
                None => error,
            },
        };
        if mirrors.is_empty() || volumes.knows(id) {
            return Err(missing.into());
        }
        match mirrors.find(id)? {
            Some(mirrored) if mirrored.is_delta => Ok(Self::Image(Image { mirrors: mirrors.clone(), mirrored })),
            Some(_) => Err(TargetError::Mirrored(id)),
            None => Err(missing.into()),
        }
    }

    /// Also where rbd-mirror mirrors it. Blocks as [`Target::find`] does.
    pub fn exists(volumes: &Volumes, mirrors: &SharedMirrors, id: VolumeId) -> Result<(), TargetError> {
        match Self::find(volumes, mirrors, id) {
            Ok(_) | Err(TargetError::Mirrored(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Blocks as [`Target::find`] does.
    pub fn state(&self) -> Result<VolumeState, TargetError> {
        match self {
            Self::Volume(held) => Ok(held.volume.state()),
            Self::Image(Image { mirrors, mirrored }) => Ok(mirrors.delta_state(mirrored)?),
            Self::ImageFile(image) => Ok(image.state()?),
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
            Self::ImageFile(image) => {
                control.progress.enter(Phase::Applying, 0, 0);
                let rolled = image.with(|copy| verbs::rollback(copy, to))?;
                control.progress.enter(Phase::Done, 0, 0);
                Ok(rolled)
            }
        }
    }

    pub fn release(&self) -> Result<(), TargetError> {
        match self {
            Self::Volume(held) => Ok(held.volume.release()?),
            Self::Image(Image { mirrors, mirrored }) => Ok(mirrors.release_delta(mirrored)?),
            Self::ImageFile(image) => Ok(image.with(|copy| verbs::release(copy))?),
        }
    }

    pub fn dial(&self, wire: &Wire<'_>, side: Side, intent: Intent, request: &str) -> Result<Report, SessionError> {
        match self {
            Self::Volume(held) => session::dial(wire, &held.volume, side, intent, request),
            Self::Image(Image { mirrors, mirrored }) => {
                mirrors.sync_delta(mirrored, |copy| image::dial_image(wire, mirrored.id, copy, side, &intent, request))
            }
            Self::ImageFile(file) => file.with(|copy| image::dial_image(wire, file.id, copy, side, &intent, request)),
        }
    }

    pub fn answer(&self, wire: &Wire<'_>, hello: &Hello) -> Result<Report, SessionError> {
        match self {
            Self::Volume(held) => session::answer(wire, hello, &held.volume),
            Self::Image(Image { mirrors, mirrored }) => {
                let answer = |begun: &mut bool| {
                    mirrors.sync_delta(mirrored, |copy| {
                        *begun = true;
                        image::answer_image(wire, hello, copy)
                    })
                };
                refusing(wire, answer)
            }
            Self::ImageFile(file) => {
                let answer = |begun: &mut bool| {
                    file.with(|copy| {
                        *begun = true;
                        image::answer_image(wire, hello, copy)
                    })
                };
                refusing(wire, answer)
            }
        }
    }
}

/// What can't begin is told to the other side: another verb of the image has its turn.
fn refusing(
    wire: &Wire<'_>,
    answer: impl FnOnce(&mut bool) -> Result<Report, SessionError>,
) -> Result<Report, SessionError> {
    let mut has_begun = false;
    answer(&mut has_begun).inspect_err(|error| {
        if !has_begun {
            session::refuse(wire, error.to_failure());
        }
    })
}

impl From<Failure> for TargetError {
    fn from(failure: Failure) -> Self {
        Self::ImageFile(failure)
    }
}

impl From<&TargetError> for Failure {
    fn from(error: &TargetError) -> Self {
        Self { kind: error.kind(), reason: error.reason().to_owned(), message: chain(error) }
    }
}
