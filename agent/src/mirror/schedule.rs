//! Which images get sync points by themselves, and when the next one is due. Of all agents of a cluster one leads in each pool, and takes
//! those of the images whose primary is there.

use std::{collections::BTreeMap, num::NonZeroU64, panic::resume_unwind, thread, time::Duration};

use drover_engine::id::VolumeId;
use drover_rbd::{
    point,
    request::{Reply, Request},
};

use super::{Ceph, MirrorError, Mirrored, Mirrors, registry::Registry};

/// How long the others wait for a leader that has died.
pub const LEAD: Duration = Duration::from_secs(30);

/// What a point is taken of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    Image(VolumeId),
    Group(String),
}

impl std::fmt::Display for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Image(id) => write!(f, "volume {id}"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    pub subject: Subject,
    pub every_secs: NonZeroU64,
    pub members: Vec<Mirrored>,
}

impl Mirrors {
    /// All that this agent takes points of, and what it could not find out. A cluster that hangs keeps no other one waiting but for this call.
    pub fn scheduled(&self) -> (Vec<Scheduled>, Vec<MirrorError>) {
        let of_each: Vec<_> = thread::scope(|scope| {
            let asked: Vec<_> =
                self.clusters.iter().map(|(name, ceph)| scope.spawn(move || self.scheduled_of(name, ceph))).collect();
            asked.into_iter().map(|asked| asked.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
        });
        let (mut scheduled, mut failed) = (Vec::new(), Vec::new());
        for found in of_each {
            match found {
                Ok(found) => scheduled.extend(found),
                Err(error) => failed.push(error),
            }
        }
        (scheduled, failed)
    }

    fn scheduled_of(&self, cluster: &str, ceph: &Ceph) -> Result<Vec<Scheduled>, MirrorError> {
        // By what they are of; and whether this agent leads in the pool that decides, the first one with a schedule.
        let mut subjects: BTreeMap<Subject, (Option<bool>, Vec<Mirrored>)> = BTreeMap::new();
        for registry in &ceph.registries {
            let found = registry.mirrored(&ceph.crew, cluster)?;
            if !found.iter().any(|mirrored| mirrored.point_every_secs.is_some() || mirrored.group.is_some()) {
                continue;
            }
            let is_led =
                found.iter().any(|mirrored| mirrored.point_every_secs.is_some()) && self.leads(ceph, registry)?;
            for mirrored in found {
                let subject = mirrored.group.clone().map_or(Subject::Image(mirrored.id), Subject::Group);
                let (decides, members) = subjects.entry(subject).or_default();
                if mirrored.point_every_secs.is_some() {
                    decides.get_or_insert(is_led);
                }
                members.push(mirrored);
            }
        }
        let scheduled = subjects.into_iter().filter(|(_, (is_led, _))| *is_led == Some(true));
        let scheduled = scheduled.filter_map(|(subject, (_, mut members))| {
            members.sort_by(|one, other| one.place.cmp(&other.place));
            let every_secs = members.iter().filter_map(|mirrored| mirrored.point_every_secs).min()?;
            Some(Scheduled { subject, every_secs, members })
        });
        Ok(scheduled.collect())
    }

    fn leads(&self, ceph: &Ceph, registry: &Registry) -> Result<bool, MirrorError> {
        let (pool, namespace) = registry.pool();
        let (pool, namespace, name) = (pool.to_owned(), namespace.to_owned(), self.incarnation.clone());
        Ok(ceph.crew.call(&Request::Lead { pool, namespace, name, time: LEAD })? == Reply::Leads(true))
    }

    /// Seconds until the next point is due, negative when it is late. `None`: not all of it is primary here.
    pub fn due_in_secs(&self, scheduled: &Scheduled, now_unix_secs: i64) -> Result<Option<i64>, MirrorError> {
        let mut views = Vec::with_capacity(scheduled.members.len());
        for mirrored in &scheduled.members {
            match self.look(mirrored)? {
                Some(view) if view.is_primary => views.push(view),
                Some(_) | None => return Ok(None),
            }
        }
        let taken_at = point::newest_common(&views).map(|name| name.taken_at_unix_secs);
        // One of the future is of another site's clock, and says nothing.
        let Some(taken_at) = taken_at.filter(|taken_at| *taken_at <= now_unix_secs) else { return Ok(Some(0)) };
        Ok(Some(taken_at.saturating_add_unsigned(scheduled.every_secs.get()) - now_unix_secs))
    }
}
