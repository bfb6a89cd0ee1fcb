//! Where the data of a PersistentVolume lie on an NFS server: the directory that is a volume here.
//!
//! | provisioner | shape |
//! |---|---|
//! | in-tree nfs, nfs-subdir-external-provisioner | `spec.nfs{server,path}` |
//! | csi-driver-nfs | `spec.csi{driver: nfs.csi.k8s.io, volumeAttributes{server,share,subdir}}`, or a handle `server#share#subdir#uuid#onDelete` |
//! | its snapshots | a VolumeSnapshotContent with a handle `server#share#uuid#uuid#source`: the directory of that name |
//!
//! Sources: csi-driver-nfs `pkg/nfs/controllerserver.go` and `nodeserver.go`, nfs-subdir-external-provisioner `README.md`.

use std::{
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use drover_engine::path::RelPath;
use serde::Deserialize;

use crate::config::RootConfig;

const CSI_NFS: &str = "nfs.csi.k8s.io";

/// A directory of an NFS server, by the name that a PV has for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NfsPlace {
    pub server: String,
    /// Absolute, without `.` and `..`.
    pub path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum PvError {
    #[error("it is no object of Kubernetes as JSON")]
    Json(#[from] serde_json::Error),
    #[error("it is a {kind:?}, and a PersistentVolume or a VolumeSnapshotContent is wanted")]
    Kind { kind: String },
    #[error("the data of {name} are not on an NFS server: {what}")]
    NotNfs { name: String, what: String },
    #[error("{what} of {name} is no directory of an NFS server: {text:?}")]
    Malformed { name: String, what: &'static str, text: String },
    #[error("{name} is all that root {root} exports, and a root can't be a volume: give it a directory of its own")]
    Root { name: String, root: String },
    #[error("{name} may lie beneath the roots {roots}: their exports say the same")]
    Ambiguous { name: String, roots: String },
    #[error(
        "{name} lies at {server}:{}, which is beneath no root: say in the configuration of its root how PVs call that, as exports = [\"{server}:{}\"]",
        path.display(),
        path.parent().unwrap_or(path).display()
    )]
    NoRoot { name: String, server: String, path: PathBuf },
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Object {
    kind: String,
    metadata: Metadata,
    spec: Spec,
    status: ContentStatus,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    nfs: Option<Nfs>,
    csi: Option<Csi>,
    claim_ref: Option<ClaimRef>,
    /// Of a VolumeSnapshotContent.
    driver: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ContentStatus {
    snapshot_handle: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Nfs {
    server: String,
    path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Csi {
    driver: String,
    volume_handle: String,
    volume_attributes: std::collections::BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ClaimRef {
    namespace: String,
    name: String,
}

/// Its name, and where it lies.
pub fn place_of(text: &str) -> Result<(String, NfsPlace), PvError> {
    let object: Object = serde_json::from_str(text)?;
    let name = object.metadata.name.clone();
    let place = match object.kind.as_str() {
        "PersistentVolume" => of_volume(&object)?,
        "VolumeSnapshotContent" => of_snapshot(&object)?,
        _ => return Err(PvError::Kind { kind: object.kind }),
    };
    Ok((name, place))
}

fn of_volume(object: &Object) -> Result<NfsPlace, PvError> {
    let name = &object.metadata.name;
    if let Some(Nfs { server, path }) = &object.spec.nfs {
        return place(name, server, &[path.as_str()]);
    }
    let not_nfs = |what: String| PvError::NotNfs { name: name.clone(), what };
    let csi = object.spec.csi.as_ref().ok_or_else(|| not_nfs("it has neither nfs nor csi".to_owned()))?;
    if csi.driver != CSI_NFS {
        return Err(not_nfs(format!("its CSI driver is {}", csi.driver)));
    }
    // As the driver does, without regard to case.
    let attribute = |wanted: &str| {
        let found = csi.volume_attributes.iter().find(|(key, _)| key.eq_ignore_ascii_case(wanted));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    };
    let (server, share) = (attribute("server"), attribute("share"));
    let (Some(server), Some(share)) = (server, share) else {
        let [server, share, subdir, ..] = handle(name, &csi.volume_handle)?;
        return place(name, server, &[share, subdir]);
    };
    let subdir = attribute("subdir").unwrap_or("");
    place(name, server, &[share, &named(subdir, name, csi, object.spec.claim_ref.as_ref())])
}

/// What a template in a subdir stands for.
fn named(subdir: &str, volume: &str, csi: &Csi, claim: Option<&ClaimRef>) -> String {
    let attribute = |key: &str| csi.volume_attributes.get(key).map(String::as_str);
    let claim_name = attribute("csi.storage.k8s.io/pvc/name").or(claim.map(|claim| claim.name.as_str()));
    let namespace = attribute("csi.storage.k8s.io/pvc/namespace").or(claim.map(|claim| claim.namespace.as_str()));
    let values = [
        ("${pvc.metadata.name}", claim_name),
        ("${pvc.metadata.namespace}", namespace),
        ("${pv.metadata.name}", Some(volume)),
    ];
    let known = values.into_iter().filter_map(|(template, value)| Some((template, value?)));
    known.fold(subdir.to_owned(), |subdir, (template, value)| subdir.replace(template, value))
}

fn of_snapshot(object: &Object) -> Result<NfsPlace, PvError> {
    let name = &object.metadata.name;
    let driver = object.spec.driver.as_deref().unwrap_or("");
    if driver != CSI_NFS {
        return Err(PvError::NotNfs { name: name.clone(), what: format!("its CSI driver is {driver:?}") });
    }
    let text = object.status.snapshot_handle.as_deref().unwrap_or("");
    let [server, share, snapshot, ..] = handle(name, text)?;
    if snapshot.is_empty() {
        return Err(malformed(name, "the handle", text));
    }
    place(name, server, &[share, snapshot])
}

/// `server#share#subdir…`, or of old ones `server/share/subdir`.
fn handle<'a>(name: &str, text: &'a str) -> Result<[&'a str; 3], PvError> {
    let mut parts = text.split('#');
    if let (Some(server), Some(share), Some(subdir)) = (parts.next(), parts.next(), parts.next()) {
        // `server/share##` of a static volume.
        return Ok(match server.split_once('/') {
            Some((server, path)) if share.is_empty() && subdir.is_empty() => [server, path, ""],
            _ => [server, share, subdir],
        });
    }
    let (server, rest) = text.split_once('/').ok_or_else(|| malformed(name, "the handle", text))?;
    let (share, subdir) = rest.rsplit_once('/').ok_or_else(|| malformed(name, "the handle", text))?;
    Ok([server, share, subdir])
}

fn malformed(name: &str, what: &'static str, text: &str) -> PvError {
    PvError::Malformed { name: name.to_owned(), what, text: text.to_owned() }
}

fn place(name: &str, server: &str, parts: &[&str]) -> Result<NfsPlace, PvError> {
    let whole = parts.join("/");
    let path = clean(&whole).ok_or_else(|| malformed(name, "the path", &whole))?;
    if path == Path::new("/") {
        return Err(malformed(name, "the path", &whole));
    }
    let is_name = !server.is_empty() && !server.contains(|c: char| c.is_control() || c == '/' || c == ' ');
    if !is_name {
        return Err(malformed(name, "the server", server));
    }
    // `[2001:db8::1]`
    let server = server.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    Ok(NfsPlace { server, path })
}

/// Absolute. `None`: it goes up, or is a template.
fn clean(text: &str) -> Option<PathBuf> {
    if text.contains(['\0', '$']) {
        return None;
    }
    let mut path = PathBuf::from("/");
    for part in Path::new(text).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

/// How PVs call a root: `SERVER:/PATH`, or `/PATH` on whatever server. `None`: it is neither.
pub fn export_of(text: &str) -> Option<(Option<String>, PathBuf)> {
    if text.starts_with('/') {
        return Some((None, clean(text)?));
    }
    let (server, path) = text.rsplit_once(":/")?;
    let server = server.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    Some((Some(server).filter(|server| !server.is_empty()), clean(path)?))
}

/// The root that a place lies beneath, and where. Of several the one with the longest path.
pub fn beneath(roots: &[RootConfig], name: &str, place: &NfsPlace) -> Result<(String, String), PvError> {
    let exports = roots.iter().flat_map(|root| root.exports.iter().map(move |export| (root, export)));
    let found = exports.filter_map(|(root, export)| {
        let (server, base) = export_of(export)?;
        // With escapes, as a spec has them.
        let rest = RelPath::new(place.path.strip_prefix(&base).ok()?.as_os_str().as_bytes()).ok()?;
        let is_meant = server.as_ref().is_none_or(|server| *server == place.server) && !rest.is_root();
        is_meant.then(|| ((base.components().count(), server.is_some()), root.name.clone(), rest.to_string()))
    });
    let mut found: Vec<_> = found.collect();
    found.sort();
    found.dedup();
    let is_whole = |root: &&RootConfig| {
        let exports = root.exports.iter().filter_map(|export| export_of(export));
        let is_server = |server: &Option<String>| server.as_ref().is_none_or(|server| *server == place.server);
        exports.into_iter().any(|(server, base)| base == place.path && is_server(&server))
    };
    if let Some(root) = roots.iter().find(is_whole) {
        return Err(PvError::Root { name: name.to_owned(), root: root.name.clone() });
    }
    let Some((rank, root, path)) = found.pop() else {
        return Err(PvError::NoRoot { name: name.to_owned(), server: place.server.clone(), path: place.path.clone() });
    };
    match found.pop() {
        Some((other, also, _)) if other == rank => {
            Err(PvError::Ambiguous { name: name.to_owned(), roots: format!("{also} and {root}") })
        }
        _ => Ok((root, path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> String {
        let (_, NfsPlace { server, path }) = place_of(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        format!("{server}:{}", path.display())
    }

    fn csi(handle: &str, attributes: &str) -> String {
        format!(
            r#"{{"kind":"PersistentVolume","metadata":{{"name":"pvc-1"}},"spec":{{"claimRef":{{"namespace":"shop","name":"data"}},
            "csi":{{"driver":"nfs.csi.k8s.io","volumeHandle":"{handle}","volumeAttributes":{attributes}}}}}}}"#
        )
    }

    #[test]
    fn each_shape_of_a_volume_is_understood() {
        let in_tree = r#"{"kind":"PersistentVolume","metadata":{"name":"pvc-1"},"spec":{"nfs":{"server":"NFS.example","path":"/srv//nfs/./shop-data-pvc-1/"}}}"#;
        assert_eq!(at(in_tree), "nfs.example:/srv/nfs/shop-data-pvc-1");
        for (handle, attributes, place) in [
            ("s#srv/nfs#pvc-1##", r#"{"server":"s","share":"/srv/nfs","subdir":"pvc-1"}"#, "s:/srv/nfs/pvc-1"),
            ("any", r#"{"server":"s","share":"/srv/nfs","subDir":"a/b"}"#, "s:/srv/nfs/a/b"),
            ("any", r#"{"server":"s","share":"/srv/nfs/whole"}"#, "s:/srv/nfs/whole"),
            ("s#srv/nfs#pvc-1#uuid#archive", "{}", "s:/srv/nfs/pvc-1"),
            ("s/srv/nfs/pvc-1", "{}", "s:/srv/nfs/pvc-1"),
            ("s/share##", "{}", "s:/share"),
            (
                "any",
                r#"{"server":"s","share":"/n","subdir":"${pvc.metadata.namespace}-${pvc.metadata.name}-${pv.metadata.name}"}"#,
                "s:/n/shop-data-pvc-1",
            ),
            ("any", r#"{"server":"[2001:DB8::1]","share":"/n","subdir":"x"}"#, "2001:db8::1:/n/x"),
        ] {
            assert_eq!(at(&csi(handle, attributes)), place, "{handle} {attributes}");
        }
        let snapshot = r#"{"kind":"VolumeSnapshotContent","metadata":{"name":"c"},"spec":{"driver":"nfs.csi.k8s.io","source":{}},
            "status":{"snapshotHandle":"s#srv/nfs#snapshot-7#snapshot-7#pvc-1"}}"#;
        assert_eq!(at(snapshot), "s:/srv/nfs/snapshot-7");
    }

    #[test]
    fn what_is_none_is_refused_by_name() {
        for (text, why) in [
            (csi("s#a#../../etc#u#", "{}"), "no directory"),
            (csi("any", r#"{"server":"s","share":"/n","subdir":"${unknown}"}"#), "no directory"),
            (csi("any", r#"{"server":"s","share":"/"}"#), "no directory"),
            (csi("nothing", "{}"), "no directory"),
            (csi("any", r#"{"server":"a b","share":"/n"}"#), "no directory"),
            (csi("h", "{}").replace("nfs.csi.k8s.io", "rbd.csi.ceph.com"), "rbd.csi.ceph.com"),
            (
                r#"{"kind":"PersistentVolume","metadata":{"name":"p"},"spec":{"local":{"path":"/x"}}}"#.to_owned(),
                "neither nfs nor csi",
            ),
            (r#"{"kind":"Pod"}"#.to_owned(), "Pod"),
            ("{".to_owned(), "JSON"),
        ] {
            let error = place_of(&text).expect_err(&text);
            assert!(error.to_string().contains(why), "{error}");
        }
    }

    #[test]
    fn a_place_is_beneath_the_root_that_is_called_so() {
        let root = |name: &str, exports: &[&str]| -> RootConfig {
            let exports: Vec<_> = exports.iter().map(|export| format!("{export:?}")).collect();
            toml::from_str(&format!("name = {name:?}\npath = \"/r\"\nexports = [{}]", exports.join(", "))).unwrap()
        };
        // The replica's roots know how the primary's PVs call them.
        let roots = [
            root("nfs", &["nfs-1.example:/srv/nfs/openshift-01", "nfs-2.example:/srv/nfs/openshift-02"]),
            root("fast", &["nfs-1.example:/srv/nfs/openshift-01/fast", "/any"]),
        ];
        let found = |server: &str, path: &str| {
            let place = NfsPlace { server: server.to_owned(), path: path.into() };
            beneath(&roots, "pv", &place).map(|(root, path)| format!("{root}/{path}"))
        };
        assert_eq!(found("nfs-1.example", "/srv/nfs/openshift-01/a/b").unwrap(), "nfs/a/b");
        assert_eq!(found("nfs-2.example", "/srv/nfs/openshift-02/a").unwrap(), "nfs/a");
        assert_eq!(found("nfs-1.example", "/srv/nfs/openshift-01/fast/c").unwrap(), "fast/c");
        assert_eq!(found("other", "/any/c").unwrap(), "fast/c");
        // What the agent would take for an escape is one.
        assert_eq!(found("other", r"/any/\x6fther").unwrap(), r"fast/\x5cx6fther");
        for (server, path) in [("other", "/srv/nfs/openshift-01/a"), ("nfs-1.example", "/srv/nfs/openshift-010/a")] {
            let error = found(server, path).expect_err(path);
            assert!(error.to_string().contains("exports = ["), "{error}");
        }
        assert!(matches!(
            beneath(&roots, "pv", &NfsPlace { server: "x".to_owned(), path: "/any".into() }),
            Err(PvError::Root { .. })
        ));
    }
}
