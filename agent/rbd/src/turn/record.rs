//! What a turn's record says.

use serde::{Deserialize, Serialize};

use crate::{
    point::{Point, PointName},
    view::{TurnView, Verb},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) agent: String,
    /// Of the agent's process.
    pub(super) incarnation: String,
    pub(super) verb: Verb,
    pub(super) since_unix_secs: i64,
    /// Makes each record another one.
    pub(super) step: u64,
    /// The address that the change under way comes from, if there is one.
    pub(super) worker: Option<String>,
    /// The verb has ended, and this is what is left to do.
    pub(super) has_ended: bool,
    pub(super) left: Left,
}

/// What a verb that was interrupted has still to do, or must be known to the next one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Ids of snapshots that look whole once the image is primary, and are not.
    pub unwhole: Vec<u64>,
    pub forced: Option<ForcedFrom>,
    pub aside: Option<Aside>,
    #[serde(default)]
    pub half: Option<Half>,
    /// Names of clones that were begun to take its place, and did not.
    #[serde(default)]
    pub clones: Vec<String>,
    /// The point that a promotion by force of its whole group ends on, until all of that is done.
    #[serde(default)]
    pub group: Option<PointName>,
    /// Its mirroring is being ended: librbd changes what role it shows on the way.
    #[serde(default)]
    pub disabling: Option<Disabling>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Disabling {
    /// Its points go.
    Primary,
    /// It becomes an image of its own, with its points.
    Copy,
}

/// A promotion by force that was begun, and has not been seen to end where it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForcedFrom {
    /// Of the newest mirror snapshot before it.
    pub newest: u64,
    pub point: Option<Point>,
    /// It must not end beyond the point either.
    #[serde(default)]
    pub exactly: bool,
}

/// A copy that is given up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aside {
    /// The name under which it is kept.
    pub name: String,
    /// Its own: another image of its old name is the new copy.
    pub image_id: String,
}

/// A copy that a sync has left half way, and whose place a clone of its newest whole point takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Half {
    /// The name that it gets.
    pub name: String,
    /// Of the clone, until it takes the place.
    pub new: String,
    /// Once it is whole and marked.
    pub clone_id: Option<String>,
    pub image_id: String,
    pub global_id: String,
    pub point: Point,
}

/// A record of another release may be of any verb.
pub(crate) fn view(record: &str) -> TurnView {
    match serde_json::from_str(record) {
        Ok(Record { agent, verb, since_unix_secs, has_ended, left, .. }) => {
            TurnView { agent, verb, since_unix_secs, has_ended, unwhole: left.unwhole }
        }
        Err(_) => TurnView {
            agent: "of another release".to_owned(),
            verb: Verb::Promote,
            since_unix_secs: 0,
            has_ended: false,
            unwhole: Vec::new(),
        },
    }
}

pub(super) fn text(record: &Record) -> String {
    serde_json::to_string(record).expect("a record is JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_tells_who_does_what() {
        let record = Record {
            agent: "site-a".to_owned(),
            incarnation: "1".to_owned(),
            verb: Verb::Promote,
            since_unix_secs: 7,
            step: 3,
            worker: Some("127.0.0.1:0/1".to_owned()),
            has_ended: false,
            left: Left { unwhole: vec![7], ..Left::default() },
        };
        assert_eq!(serde_json::from_str::<Record>(&text(&record)).unwrap(), record);
        let seen = view(&text(&record));
        assert_eq!((seen.to_string().as_str(), seen.unwhole), ("a promotion by agent site-a", vec![7]));
        assert!(!view("{}").has_ended, "it may be anything");
    }
}
