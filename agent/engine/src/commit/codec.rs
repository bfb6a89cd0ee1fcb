//! Bytes of steps.
//!
//! ```text
//! step    = 1 unlock:   path id flags:uint          | 2 out:  path id place onward:u8
//!         | 3 in:       path place id?              | 4 exchange: path place id? id
//!         | 5 link:     path path place id? id?     | 6 meta: path id entry meta
//!         | 7 times:    path time? time?            | 8 lock: path flags:uint
//!         | 9 patch:    path id
//! place   = 1 path | 2 number:uint     retired = place (1 | 2 digest[32] | 3 | 4 digest[32])     x? = 0 | 1 x
//! id      = ino:uint born:time         time    = secs:int nanos:uint
//! ```

use drover_linux::{FileId, Time};

use crate::{
    codec::{DecodeError, Reader, Writer},
    plan::{Place, Retire, Retired, Step},
    tree::{Entry, Flags, Meta},
};

fn time(w: &mut Writer, time: &Time) {
    w.int(time.secs).uint(time.nanos.into());
}

fn read_time(r: &mut Reader<'_>) -> Result<Time, DecodeError> {
    Ok(Time { secs: r.int()?, nanos: r.u32()? })
}

fn id(w: &mut Writer, id: &FileId) {
    w.uint(id.ino);
    time(w, &id.born);
}

fn read_id(r: &mut Reader<'_>) -> Result<FileId, DecodeError> {
    Ok(FileId { ino: r.uint()?, born: read_time(r)? })
}

fn option<T>(w: &mut Writer, value: Option<&T>, write: impl Fn(&mut Writer, &T)) {
    w.u8(value.is_some().into());
    if let Some(value) = value {
        write(w, value);
    }
}

fn read_option<T>(
    r: &mut Reader<'_>,
    read: impl Fn(&mut Reader<'_>) -> Result<T, DecodeError>,
) -> Result<Option<T>, DecodeError> {
    if r.u8()? == 0 { Ok(None) } else { read(r).map(Some) }
}

fn place(w: &mut Writer, place: &Place) {
    match place {
        Place::Tree(path) => w.u8(1).path(path),
        Place::Out(number) => w.u8(2).uint((*number).into()),
    };
}

fn read_place(r: &mut Reader<'_>) -> Result<Place, DecodeError> {
    match r.u8()? {
        1 => Ok(Place::Tree(r.path()?)),
        2 => Ok(Place::Out(r.u32()?)),
        value => Err(DecodeError::Unknown { what: "place", value: value.into() }),
    }
}

pub(super) fn retired(w: &mut Writer, retired: &Retired) {
    place(w, &retired.place);
    match &retired.what {
        Retire::Directory => w.u8(1),
        Retire::Body(digest) => w.u8(2).digest(digest),
        Retire::Name => w.u8(3),
        Retire::Delta(digest) => w.u8(4).digest(digest),
    };
}

pub(super) fn read_retired(r: &mut Reader<'_>) -> Result<Retired, DecodeError> {
    let place = read_place(r)?;
    let what = match r.u8()? {
        1 => Retire::Directory,
        2 => Retire::Body(r.digest()?),
        3 => Retire::Name,
        4 => Retire::Delta(r.digest()?),
        value => {
            return Err(DecodeError::Unknown { what: "retirement", value: value.into() });
        }
    };
    Ok(Retired { place, what })
}

pub(super) fn step(w: &mut Writer, step: &Step) {
    let kind = match step {
        Step::Unlock { .. } => 1,
        Step::Out { .. } => 2,
        Step::In { .. } => 3,
        Step::Exchange { .. } => 4,
        Step::Link { .. } => 5,
        Step::Meta { .. } => 6,
        Step::Times { .. } => 7,
        Step::Lock { .. } => 8,
        Step::Patch { .. } => 9,
    };
    w.u8(kind).path(step.path());
    match step {
        Step::Unlock { id: of, flags, .. } => {
            id(w, of);
            w.uint(flags.bits().into());
        }
        Step::Out { id: of, place: to, onward, .. } => {
            id(w, of);
            place(w, to);
            w.u8((*onward).into());
        }
        Step::In { place: from, id: of, .. } => {
            place(w, from);
            option(w, of.as_ref(), id);
        }
        Step::Exchange { place: from, id: of, old, .. } => {
            place(w, from);
            option(w, of.as_ref(), id);
            id(w, old);
        }
        Step::Link { from, place: via, id: of, replaced, .. } => {
            w.path(from);
            place(w, via);
            option(w, of.as_ref(), id);
            option(w, replaced.as_ref(), id);
        }
        Step::Patch { id: of, .. } => id(w, of),
        Step::Meta { id: of, old, new, .. } => {
            id(w, of);
            old.encode(w);
            new.encode(w);
        }
        Step::Times { old, new, .. } => {
            option(w, old.as_ref(), time);
            option(w, new.as_ref(), time);
        }
        Step::Lock { flags, .. } => {
            w.uint(flags.bits().into());
        }
    }
}

pub(super) fn read_step(r: &mut Reader<'_>) -> Result<Step, DecodeError> {
    let kind = r.u8()?;
    let path = r.path()?;
    Ok(match kind {
        1 => Step::Unlock { path, id: read_id(r)?, flags: Flags::carried(r.u32()?) },
        2 => Step::Out { path, id: read_id(r)?, place: read_place(r)?, onward: r.u8()? != 0 },
        3 => Step::In { path, place: read_place(r)?, id: read_option(r, read_id)? },
        4 => Step::Exchange { path, place: read_place(r)?, id: read_option(r, read_id)?, old: read_id(r)? },
        5 => Step::Link {
            path,
            from: r.path()?,
            place: read_place(r)?,
            id: read_option(r, read_id)?,
            replaced: read_option(r, read_id)?,
        },
        6 => Step::Meta { path, id: read_id(r)?, old: Box::new(Entry::decode(r)?), new: Box::new(Meta::decode(r)?) },
        7 => Step::Times { path, old: read_option(r, read_time)?, new: read_option(r, read_time)? },
        8 => Step::Lock { path, flags: Flags::carried(r.u32()?) },
        9 => Step::Patch { path, id: read_id(r)? },
        value => {
            return Err(DecodeError::Unknown { what: "step", value: value.into() });
        }
    })
}
