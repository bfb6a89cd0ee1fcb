//! Both sides of a copy, and one session between them.

use std::thread;

use drover_engine::{
    control::Control,
    report::Report,
    session::{self, Intent, LocalLink, Side, Wire},
};

use super::{
    CopyArgs, CopyError,
    local::{End, Spot},
    place::{self, Place},
    remote::Remote,
};

#[derive(Debug)]
pub(super) enum Pair {
    Local {
        source: Box<End>,
        sink: Box<End>,
    },
    /// From here to an agent, or from an agent to here.
    Remote {
        here: Box<End>,
        side: Side,
        there: Remote,
    },
}

/// How a session is watched and stopped.
#[derive(Clone, Debug)]
pub(super) struct Controls {
    /// Whose progress is shown: the sink's where it is here, because it does the work.
    pub(super) shown: Control,
    /// Of the other side in this process.
    other: Control,
}

impl Controls {
    /// The side that sends most keeps to the bandwidth.
    pub(super) fn new(sending: Control) -> Self {
        Self { shown: Control::default(), other: sending }
    }

    pub(super) fn cancel(&self) {
        self.shown.cancel();
        self.other.cancel();
    }
}

impl Pair {
    pub(super) fn open(args: &CopyArgs, runtime: &tokio::runtime::Handle) -> Result<Self, CopyError> {
        match (&args.src, &args.dst) {
            (Place::Remote(_), Place::Remote(_)) => Err(CopyError::BothRemote),
            (Place::Local(src), Place::Local(dst)) => {
                let (src, dst) = (Spot::source(src)?, Spot::destination(dst)?);
                src.check_apart(&dst)?;
                let id = place::local_volume_id(&dst.path);
                let source = Box::new(End::source(&src, id, args)?);
                match End::destination(&dst, id, args) {
                    Ok(sink) => Ok(Self::Local { source, sink: Box::new(sink) }),
                    Err(error) => {
                        source.close();
                        Err(error)
                    }
                }
            }
            (Place::Local(src), Place::Remote(dst)) => {
                let spot = Spot::source(src)?;
                let there = Remote::open(dst, Side::Sink, args, runtime)?;
                let here = Box::new(End::source(&spot, there.volume, args)?);
                Ok(Self::Remote { here, side: Side::Source, there })
            }
            (Place::Remote(src), Place::Local(dst)) => {
                let spot = Spot::destination(dst)?;
                let there = Remote::open(src, Side::Source, args, runtime)?;
                let here = Box::new(End::destination(&spot, there.volume, args)?);
                Ok(Self::Remote { here, side: Side::Sink, there })
            }
        }
    }

    fn ends(&self) -> impl Iterator<Item = &End> {
        let (first, second) = match self {
            Self::Local { source, sink } => (source, Some(sink)),
            Self::Remote { here, .. } => (here, None),
        };
        std::iter::once(first.as_ref()).chain(second.map(Box::as_ref))
    }

    pub(super) fn notes(&self) -> impl Iterator<Item = &str> {
        self.ends().flat_map(|end| end.notes.iter().map(String::as_str))
    }

    pub(super) fn needs_adoption(&self) -> bool {
        self.ends().any(|end| end.needs_adoption)
    }

    /// Blocks until both sides are done.
    pub(super) fn session(&self, intent: Intent, controls: &Controls, request: &str) -> Result<Report, CopyError> {
        match self {
            Self::Local { source, sink } => between(source, sink, intent, controls, request),
            Self::Remote { here, side, there } => {
                let control = if *side == Side::Sink { &controls.shown } else { &controls.other };
                there.session(&here.volume, *side, intent, control, request)
            }
        }
    }

    /// Whose counters say how far it is.
    pub(super) fn watched<'a>(&self, controls: &'a Controls) -> &'a Control {
        match self {
            Self::Remote { side: Side::Source, .. } => &controls.other,
            Self::Local { .. } | Self::Remote { .. } => &controls.shown,
        }
    }

    pub(super) fn close(self) {
        match self {
            Self::Local { source, sink } => {
                sink.close();
                source.close();
            }
            Self::Remote { here, .. } => here.close(),
        }
    }
}

fn between(source: &End, sink: &End, intent: Intent, controls: &Controls, request: &str) -> Result<Report, CopyError> {
    let (near, far) = LocalLink::pair();
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            // Each side owns its end of the link, so that one that stops ends the other.
            let near = near;
            session::dial(&Wire::new(&near, &controls.other), &source.volume, Side::Source, intent, request)
        });
        let received = {
            let far = far;
            let wire = Wire::new(&far, &controls.shown);
            session::greet(&wire).and_then(|hello| session::answer(&wire, &hello, &sink.volume))
        };
        let sent = sending.join().map_err(|_| CopyError::Panicked)?;
        match (received, sent) {
            (Ok(report), _) => Ok(report),
            // The side where it went wrong says it best; the other only heard of it.
            (Err(heard), Err(first)) if is_second_hand(&heard) => Err(first.into()),
            (Err(error), _) => Err(error.into()),
        }
    })
}

fn is_second_hand(error: &session::SessionError) -> bool {
    matches!(error, session::SessionError::Peer(_) | session::SessionError::Wire(session::WireError::Closed(_)))
}
