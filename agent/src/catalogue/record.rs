//! What is known of one snapshot.

use drover_engine::id::VolumeId;
use serde::{Deserialize, Serialize};

/// Of names of Kubernetes (RFC 1123 subdomains), and of what drivers call a snapshot.
pub const NAME_BYTES_MAX: usize = 253;
const HANDLE_BYTES_MAX: usize = 1024;
pub const MANIFEST_BYTES_MAX: usize = 64 << 10;

/// A snapshot of a volume, by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub volume: VolumeId,
    pub namespace: String,
    pub name: String,
    /// Of the VolumeSnapshot object, which may have been made anew under the same name.
    pub uid: String,
    /// When the snapshot was taken, seconds since 1970.
    pub created_at: i64,
    /// By which the CSI driver knows it.
    pub handle: String,
    /// Name of the VolumeSnapshotContent.
    pub content: String,
    /// Name of the PersistentVolumeClaim.
    pub claim: String,
    /// The volume that the snapshot's data are, where they are a directory of their own.
    pub data: Option<VolumeId>,
    /// The object as JSON, kept as it came.
    pub manifest: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{field} of a snapshot is missing")]
    Missing { field: &'static str },
    #[error("{field} of snapshot {name:?} has {bytes} bytes, and may have {max}")]
    Long { field: &'static str, name: String, bytes: usize, max: usize },
    #[error("{field} of a snapshot is no name of Kubernetes: {text:?}")]
    Name { field: &'static str, text: String },
    #[error(
        "snapshot {name:?} was changed in the future, at {at_millis} ms since 1970: look at the clocks of both agents"
    )]
    Future { name: String, at_millis: i64 },
    #[error("the manifest of snapshot {name:?} is not JSON: {source}")]
    Manifest {
        name: String,
        #[source]
        source: serde_json::Error,
    },
}

/// Lower case letters, digits, `-` and `.`, as RFC 1123 has them.
fn check_name(field: &'static str, text: &str) -> Result<(), RecordError> {
    let is_end = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = text.bytes().all(|byte| is_end(byte) || matches!(byte, b'-' | b'.'))
        && text.bytes().next().is_some_and(is_end)
        && text.bytes().last().is_some_and(is_end);
    match text.len() {
        0 => Err(RecordError::Missing { field }),
        1..=NAME_BYTES_MAX if is_name => Ok(()),
        _ => Err(RecordError::Name { field, text: text.chars().take(NAME_BYTES_MAX).collect() }),
    }
}

impl Record {
    /// Of a volume, and of no snapshot.
    pub fn none(volume: VolumeId) -> Self {
        Self {
            volume,
            namespace: String::new(),
            name: String::new(),
            uid: String::new(),
            created_at: 0,
            handle: String::new(),
            content: String::new(),
            claim: String::new(),
            data: None,
            manifest: String::new(),
        }
    }

    /// Handle and content come from another object than the rest, and the data's volume from nobody's: who does not say them knows nothing of them.
    pub(super) fn or(mut self, known: Option<&Self>) -> Self {
        let Some(known) = known.filter(|known| known.uid == self.uid) else { return self };
        let fields =
            [(&mut self.handle, &known.handle), (&mut self.content, &known.content), (&mut self.claim, &known.claim)];
        for (field, known) in fields {
            if field.is_empty() {
                field.clone_from(known);
            }
        }
        self.data = self.data.or(known.data);
        self
    }

    pub fn check(&self) -> Result<(), RecordError> {
        check_name("namespace", &self.namespace)?;
        check_name("name", &self.name)?;
        let fields = [
            ("uid", &self.uid, NAME_BYTES_MAX),
            ("content", &self.content, NAME_BYTES_MAX),
            ("claim", &self.claim, NAME_BYTES_MAX),
            ("handle", &self.handle, HANDLE_BYTES_MAX),
            ("manifest", &self.manifest, MANIFEST_BYTES_MAX),
        ];
        for (field, text, max) in fields {
            if field != "manifest" && text.contains(char::is_control) {
                return Err(RecordError::Name { field, text: text.escape_debug().take(NAME_BYTES_MAX).collect() });
            }
            if text.len() > max {
                return Err(RecordError::Long { field, name: self.name.clone(), bytes: text.len(), max });
            }
        }
        if !self.manifest.is_empty() {
            serde_json::from_str::<serde::de::IgnoredAny>(&self.manifest)
                .map_err(|source| RecordError::Manifest { name: self.name.clone(), source })?;
        }
        Ok(())
    }
}

/// A record as it is kept, and as agents tell it to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub record: Record,
    /// By which the newer of two records is told: milliseconds since 1970, by the clock of the agent that was told, and never below that of what it replaced.
    pub changed_at_millis: i64,
    #[serde(default)]
    pub is_deleted: bool,
}

/// By so much clocks of agents may be apart.
const SKEW_MILLIS: i64 = 3600 * 1000;

impl Entry {
    /// Of a peer: one that is of the future would stand for ever.
    pub fn check(&self, now_millis: i64) -> Result<(), RecordError> {
        self.record.check()?;
        if self.changed_at_millis > now_millis.saturating_add(SKEW_MILLIS) {
            return Err(RecordError::Future { name: self.record.name.clone(), at_millis: self.changed_at_millis });
        }
        Ok(())
    }

    /// Of two with the same time every agent takes the same one.
    pub fn is_newer(&self, than: &Self) -> bool {
        let rank = |entry: &Self| (entry.changed_at_millis, entry.is_deleted, entry.to_bytes());
        rank(self) > rank(than)
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("an entry is plain data")
    }
}
