//! Snapshots of an image as `rbd snap ls --all` lists them.

use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    pub id: u64,
    pub name: String,
    pub bytes: u64,
    pub namespace: Namespace,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespace {
    User,
    Mirror(Mirror),
    /// `group` or `trash`.
    Other(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// `primary`, `demoted`, `non-primary` or `non-primary-demoted`… as the tool writes it.
    pub state: String,
    pub is_complete: bool,
    /// Of a copy: which snapshot of which pool it is.
    pub primary_mirror_uuid: Option<String>,
    pub primary_snap_id: Option<u64>,
}

impl Snapshot {
    pub(super) fn list(json: &Value) -> Vec<Self> {
        let mut all: Vec<Self> = json.as_array().expect("a list of snapshots").iter().map(Self::of).collect();
        all.sort_by_key(|snapshot| snapshot.id);
        all
    }

    fn of(json: &Value) -> Self {
        let number = |name: &str| json[name].as_u64().unwrap_or_else(|| panic!("no {name} in {json}"));
        let name = json["name"].as_str().expect("the name of a snapshot").to_owned();
        Self { id: number("id"), name, bytes: number("size"), namespace: Namespace::of(&json["namespace"]) }
    }

    pub fn mirror(&self) -> Option<&Mirror> {
        match &self.namespace {
            Namespace::Mirror(mirror) => Some(mirror),
            Namespace::User | Namespace::Other(_) => None,
        }
    }
}

impl Namespace {
    fn of(json: &Value) -> Self {
        match json["type"].as_str().expect("the kind of a snapshot") {
            "user" => Self::User,
            "mirror" => Self::Mirror(Mirror {
                state: json["state"].as_str().expect("the state of a mirror snapshot").to_owned(),
                is_complete: json["complete"].as_bool().expect("whether a mirror snapshot is complete"),
                primary_mirror_uuid: json["primary_mirror_uuid"].as_str().map(str::to_owned),
                primary_snap_id: json["primary_snap_id"].as_u64(),
            }),
            other => Self::Other(other.to_owned()),
        }
    }
}
