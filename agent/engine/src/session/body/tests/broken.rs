//! Links and peers that fail.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::{
    content::Part,
    error::Kind,
    session::body::{BodyMessage, SmallBatch},
};

/// Does something to each received frame.
struct Meddling<F> {
    link: LocalLink,
    frames: AtomicU32,
    meddle: F,
}

impl<F: Fn(u32, Bytes) -> Result<Bytes, LinkClosed> + Send + Sync> Link for Meddling<F> {
    fn send(&self, frame: Bytes) -> Result<(), LinkClosed> {
        self.link.send(frame)
    }

    fn receive(&self) -> Result<Bytes, LinkClosed> {
        let frame = self.link.receive()?;
        (self.meddle)(self.frames.fetch_add(1, Ordering::Relaxed), frame)
    }
}

fn run(rig: &mut Rig, meddle: impl Fn(u32, Bytes) -> Result<Bytes, LinkClosed> + Send + Sync + 'static) -> BodyError {
    rig.write("source", "big", &noise(30 * MIB, 1));
    let fetches = [rig.want("big")];
    let wrap = |link| Box::new(Meddling { link, frames: AtomicU32::new(0), meddle }) as Box<dyn Link>;
    rig.run_over(&fetches, wrap).unwrap_err()
}

#[test]
fn a_damaged_frame_ends_it() {
    let mut rig = Rig::new();
    let error = run(&mut rig, |n, frame| {
        let mut bytes = frame.to_vec();
        if n == 5 {
            bytes[1000] ^= 4;
        }
        Ok(bytes.into())
    });
    assert_eq!((error.kind(), error.reason()), (Kind::DataLoss, "frame-damaged"));
}

#[test]
fn a_cut_link_ends_it_and_the_next_run_goes_on() {
    let mut rig = Rig::new();
    let error = run(&mut rig, |n, frame| if n < 24 { Ok(frame) } else { Err(LinkClosed { cause: None }) });
    assert_eq!((error.kind(), error.reason()), (Kind::Unavailable, "link-lost"));
    rig.leftovers = Leftovers::Possible;
    let fetches = [rig.want("big")];
    assert_eq!(rig.run(&fetches).unwrap(), [Fetched::AsWanted]);
    assert!(rig.moved < 15 * MIB as u64, "{}", rig.moved);
    rig.is_staged("big");
}

#[test]
fn cancelling_ends_it() {
    let mut rig = Rig::new();
    let control = rig.control.clone();
    let error = run(&mut rig, move |n, frame| {
        if n == 3 {
            control.cancel();
        }
        Ok(frame)
    });
    assert_eq!((error.kind(), error.reason()), (Kind::Cancelled, "cancelled"));
}

#[test]
fn a_full_or_missing_staging_directory_ends_it() {
    let mut rig = Rig::new();
    rig.write("source", "a", &noise(10, 1));
    let mut fetches = [rig.want("a")];
    fetches[0].dest.dir = rel("missing");
    let error = rig.run(&fetches).unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Storage, "staging-failed"));
}

/// Answers every request with what `answer` makes of it.
fn forged(answer: impl Fn(BodyMessage) -> BodyMessage + Send) -> BodyError {
    let rig = Rig::new();
    rig.write("source", "small", &noise(1000, 1));
    rig.write("source", "big", &noise(2 * MIB, 2));
    rig.write("live", "big", &noise(2 * MIB, 3));
    let fetches = [rig.want("small"), rig.want("big")];
    let (near, far) = LocalLink::pair();
    thread::scope(|scope| {
        scope.spawn(move || {
            let control = Control::default();
            let wire = Wire::new(&far, &control);
            while let Ok(Message::Body(request)) = wire.receive() {
                if wire.send(&Message::Body(answer(request))).is_err() {
                    break;
                }
            }
        });
        let result =
            fetch(&Wire::new(&near, &rig.control), &fetches, rig.replica(), Leftovers::None, &Limits::default());
        drop(near);
        result.unwrap_err()
    })
}

#[test]
fn answers_that_were_not_asked_for_are_refused() {
    let unasked = |_| BodyMessage::Gone { id: 7 };
    assert_eq!(forged(unasked).reason(), "protocol-violated");
    assert_eq!(forged(|request| request).reason(), "protocol-violated");
    let empty = |_| BodyMessage::Small(SmallBatch::default());
    assert_eq!(forged(empty).reason(), "protocol-violated");
    let endless = |request| match request {
        BodyMessage::WantRange(range) => {
            BodyMessage::Differs { id: range.want.id, offset: range.offset, leaves: u64::MAX }
        }
        _ => {
            let mut batch = SmallBatch::builder(0);
            batch.gone(0);
            BodyMessage::Small(batch.finish())
        }
    };
    assert_eq!(forged(endless).reason(), "protocol-violated");
    let short = |request| match request {
        BodyMessage::WantRange(range) => {
            BodyMessage::Range { id: range.want.id, offset: range.offset, parts: vec![Part::Hole(1)] }
        }
        _ => {
            let mut batch = SmallBatch::builder(0);
            batch.gone(0);
            BodyMessage::Small(batch.finish())
        }
    };
    assert_eq!(forged(short).reason(), "protocol-violated");
    let failed = |_| BodyMessage::Failed { id: 1, message: "Input/output error".to_owned() };
    let error = forged(failed);
    assert_eq!((error.kind(), error.reason()), (Kind::Storage, "source-read-failed"));
    assert_eq!(error.to_string(), "source can't read big: Input/output error");
}

#[test]
fn wrong_content_is_never_kept() {
    let error = forged(|request| match request {
        BodyMessage::WantSmall(wants) => {
            let mut batch = SmallBatch::builder(0);
            batch.parts(wants[0].id, &[Part::Data(noise(1000, 77).into())]);
            BodyMessage::Small(batch.finish())
        }
        BodyMessage::WantRange(range) => {
            let parts = vec![Part::Data(noise(range.length, 5).into())];
            BodyMessage::Range { id: range.want.id, offset: range.offset, parts }
        }
        BodyMessage::Recheck(want) => BodyMessage::Changed(Box::new(crate::session::body::Changed {
            id: want.id,
            meta: crate::tree::Meta::default(),
            content: (want.id == 0).then(|| vec![Part::Data(noise(1000, 1).into())]),
            body: want.body,
            settled: crate::session::body::Settled::Still,
        })),
        other => other,
    });
    assert_eq!((error.kind(), error.reason()), (Kind::DataLoss, "content-mismatch"));
}
