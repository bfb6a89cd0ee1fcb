//! The catalogue's file: one redb database in the state directory, which only one process can open. What is acknowledged is durable.

use std::{
    cell::Cell,
    fs, io,
    path::{Path, PathBuf},
};

use drover_engine::id::VolumeId;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata as _, TableDefinition, WriteTransaction};
use serde::{Deserialize, Serialize};

use super::{Entry, Record, RecordError, key};
use crate::job::unix_now;

type Bytes = &'static [u8];

/// Entries by volume, namespace and name; those that were deleted, too, for as long as a peer may have to hear of it.
const ENTRIES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("entries");
/// Keys of entries that are there, in the order of their time: of a volume, and of all.
const OF_VOLUME: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("of-volume");
const BY_TIME: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("by-time");
const BY_NAME: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("by-name");
/// By volume and number: the last change of each entry.
const CHANGES: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("changes");
/// The number in there, by the entry's key.
const NUMBERS: TableDefinition<'_, Bytes, u64> = TableDefinition::new("numbers");
/// Keys of entries that were deleted, by when.
const DELETED: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("deleted");
const PEERS: TableDefinition<'_, Bytes, Bytes> = TableDefinition::new("peers");
const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");

const VERSION: &str = "1";
const CACHE_BYTES: usize = 16 << 20;
/// That an entry was deleted is known for so long; a peer that is not heard of meanwhile may bring it back.
const DELETED_MILLIS: i64 = 90 * 24 * 3600 * 1000;
/// Of these, so many are forgotten with each change.
const FORGOTTEN_AT_ONCE: usize = 64;
/// Disk space of `state_dir` is the journal's, too.
const ENTRIES_MAX: u64 = 1_000_000;
/// What is said again so soon is not written again; later it is, since somebody may have said otherwise meanwhile.
const FRESH_MILLIS: i64 = 600 * 1000;
/// Of one answer.
const PAGE_BYTES_MAX: usize = 2 << 20;

#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    #[error("the catalogue {path} is open in another process; is an agent running?")]
    InUse { path: PathBuf },
    #[error(
        "the catalogue {path} is damaged: move it away; the peer's agent brings what it knows with the next sync of each volume"
    )]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("the catalogue has version {found}, this release knows {VERSION}")]
    Newer { found: String },
    #[error("an entry of the catalogue is malformed")]
    Malformed(#[source] serde_json::Error),
    #[error("the catalogue is full: it has {ENTRIES_MAX} records")]
    Full,
    #[error("the page token is none of this catalogue's")]
    Token,
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error("access the catalogue")]
    Store(#[source] Box<redb::Error>),
}

fn store<E: Into<redb::Error>>(source: E) -> CatalogueError {
    CatalogueError::Store(Box::new(source.into()))
}

/// And not a disk that can't be read or is full now.
fn is_damage(error: &redb::Error) -> bool {
    match error {
        redb::Error::Io(error) => error.kind() == io::ErrorKind::InvalidData,
        _ => true,
    }
}

/// Which entries, in the order of their time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    pub volume: Option<VolumeId>,
    pub namespace: Option<String>,
    /// Seconds since 1970, the first one included, the last one not.
    pub since: Option<i64>,
    pub until: Option<i64>,
    /// Of the page before.
    pub after: Option<Vec<u8>>,
    /// Not 0.
    pub limit: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// `None`: there are no more.
    pub next: Option<Vec<u8>>,
}

/// What has changed in a volume since a number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub incarnation: String,
    pub entries: Vec<Entry>,
    /// To ask for what comes after these.
    pub next: u64,
    pub has_more: bool,
    /// The newest number of all volumes: a caller that knows a higher one knows it from before this store went back to a backup.
    pub last: u64,
}

/// What a peer and this agent have told each other of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    /// Of the peer's catalogue: in another life its numbers are others, and it may lack what it was told.
    pub incarnation: String,
    /// The peer's number up to which its changes are here.
    pub pulled: u64,
    /// The number here up to which the peer has the changes.
    pub pushed: u64,
}

#[derive(Debug)]
pub struct Catalogue {
    database: Database,
    incarnation: String,
}

impl Catalogue {
    /// One that is damaged is set aside: the peers bring what they know.
    pub fn open(state_dir: &Path) -> Result<Self, CatalogueError> {
        let path = state_dir.join("catalogue.redb");
        match Self::open_file(&path) {
            Err(CatalogueError::Damaged { source, .. }) if is_damage(&source) => {
                let aside = state_dir.join(format!("catalogue.redb.damaged-{}", unix_now()));
                tracing::error!(aside = %aside.display(), "the catalogue of snapshots is damaged, and set aside: {source}");
                let failed =
                    |error: io::Error| CatalogueError::Damaged { path: path.clone(), source: Box::new(error.into()) };
                fs::rename(&path, &aside).map_err(failed)?;
                Self::open_file(&path)
            }
            opened => opened,
        }
    }

    fn open_file(path: &Path) -> Result<Self, CatalogueError> {
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => CatalogueError::InUse { path: path.to_owned() },
            other => CatalogueError::Damaged { path: path.to_owned(), source: Box::new(other.into()) },
        })?;
        let write = database.begin_write().map_err(store)?;
        let incarnation = {
            for table in [ENTRIES, OF_VOLUME, BY_TIME, BY_NAME, CHANGES, DELETED, PEERS] {
                write.open_table(table).map_err(store)?;
            }
            write.open_table(NUMBERS).map_err(store)?;
            let mut meta = write.open_table(META).map_err(store)?;
            let version = meta.get("version").map_err(store)?.map(|found| found.value().to_owned());
            match version {
                None => drop(meta.insert("version", VERSION).map_err(store)?),
                Some(found) if found == VERSION => {}
                Some(found) => return Err(CatalogueError::Newer { found }),
            }
            let known = meta.get("incarnation").map_err(store)?.map(|found| found.value().to_owned());
            match known {
                Some(known) => known,
                None => {
                    let new = key::incarnation();
                    meta.insert("incarnation", new.as_str()).map_err(store)?;
                    new
                }
            }
        };
        write.commit().map_err(store)?;
        Ok(Self { database, incarnation })
    }

    /// All of them or none; one that says what is known already changes nothing, and what it leaves out of the same object stays. Returns how many
    /// changed something.
    pub fn put(&self, records: &[Record], now_millis: i64) -> Result<usize, CatalogueError> {
        records.iter().try_for_each(Record::check)?;
        self.change(now_millis, |write| {
            let mut changed = 0;
            for record in records {
                let known = write.get(&key::of_record(record))?;
                let record =
                    &record.clone().or(known.as_ref().filter(|known| !known.is_deleted).map(|known| &known.record));
                let is_same = known.as_ref().is_some_and(|known| !known.is_deleted && known.record == *record);
                let is_fresh =
                    known.as_ref().is_some_and(|it| now_millis < it.changed_at_millis.saturating_add(FRESH_MILLIS));
                if is_same && is_fresh {
                    continue;
                }
                let changed_at_millis = later(now_millis, known.as_ref());
                write.set(&Entry { record: record.clone(), changed_at_millis, is_deleted: false })?;
                changed += usize::from(!is_same);
            }
            Ok(changed)
        })
    }

    /// Of all volumes, or of one; with a `uid` only that object's. What is not there is deleted. Returns how many went.
    pub fn delete(
        &self,
        volume: Option<VolumeId>,
        namespace: &str,
        name: &str,
        uid: Option<&str>,
        now_millis: i64,
    ) -> Result<usize, CatalogueError> {
        self.change(now_millis, |write| {
            let mut gone = 0;
            if let Some(volume) = volume.filter(|_| uid.is_none())
                && write.get(&key::of(volume, namespace, name))?.is_none()
            {
                // It may be on its way here.
                let record = Record { namespace: namespace.to_owned(), name: name.to_owned(), ..Record::none(volume) };
                record.check()?;
                write.set(&Entry { record, changed_at_millis: now_millis, is_deleted: true })?;
            }
            for entry in write.named(namespace, name)? {
                let is_meant = volume.is_none_or(|volume| volume == entry.record.volume)
                    && uid.is_none_or(|uid| uid == entry.record.uid);
                if is_meant {
                    let changed_at_millis = later(now_millis, Some(&entry));
                    write.set(&Entry { changed_at_millis, is_deleted: true, ..entry })?;
                    gone += 1;
                }
            }
            Ok(gone)
        })
    }

    /// What a peer tells: of each entry the newer one stands. Returns how many were news.
    pub fn merge(&self, entries: &[Entry], now_millis: i64) -> Result<usize, CatalogueError> {
        entries.iter().try_for_each(|entry| entry.check(now_millis))?;
        self.change(now_millis, |write| {
            let mut news = 0;
            for entry in entries {
                let known = write.get(&key::of_record(&entry.record))?;
                if known.is_none_or(|known| entry.is_newer(&known)) {
                    write.set(entry)?;
                    news += 1;
                }
            }
            Ok(news)
        })
    }

    pub fn get(&self, volume: VolumeId, namespace: &str, name: &str) -> Result<Option<Entry>, CatalogueError> {
        let read = self.database.begin_read().map_err(store)?;
        let entries = read.open_table(ENTRIES).map_err(store)?;
        let found = entries.get(key::of(volume, namespace, name).as_slice()).map_err(store)?;
        let entry = found.map(|found| parse(found.value())).transpose()?;
        Ok(entry.filter(|entry| !entry.is_deleted))
    }

    pub fn list(&self, query: &Query) -> Result<Page, CatalogueError> {
        let read = self.database.begin_read().map_err(store)?;
        let entries = read.open_table(ENTRIES).map_err(store)?;
        // The index that leaves out most.
        let (table, prefix, is_timed) = match (query.volume, &query.namespace) {
            (Some(volume), _) => (OF_VOLUME, volume.as_bytes().to_vec(), true),
            (None, Some(namespace)) => (BY_NAME, key::by_name(namespace, None, &[]), false),
            (None, None) => (BY_TIME, Vec::new(), true),
        };
        let index = read.open_table(table).map_err(store)?;
        let first = match query.since.filter(|_| is_timed) {
            Some(since) => key::by_time(query.volume, since, &[]),
            None => prefix.clone(),
        };
        let end = match query.until.filter(|_| is_timed) {
            Some(until) => Some(key::by_time(query.volume, until, &[])),
            None => key::after(&prefix),
        };
        let from = match &query.after {
            Some(after) if after.starts_with(&prefix) => std::ops::Bound::Excluded(after.clone().max(first)),
            Some(_) => return Err(CatalogueError::Token),
            None => std::ops::Bound::Included(first),
        };
        let is_in_order = |end: &Vec<u8>| match &from {
            std::ops::Bound::Included(first) | std::ops::Bound::Excluded(first) => first < end,
            std::ops::Bound::Unbounded => true,
        };
        if !end.as_ref().is_none_or(is_in_order) {
            return Ok(Page::default());
        }
        let from = from.as_ref().map(Vec::as_slice);
        let to = end.as_deref().map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let (mut page, mut bytes) = (Page::default(), 0);
        for row in index.range::<&[u8]>((from, to)).map_err(store)? {
            let (place, key) = row.map_err(store)?;
            let Some(found) = entries.get(key.value()).map_err(store)? else { continue };
            let length = found.value().len();
            let entry = parse(found.value())?;
            let time = entry.record.created_at;
            let is_wanted = query.namespace.as_ref().is_none_or(|namespace| *namespace == entry.record.namespace)
                && query.since.is_none_or(|since| time >= since)
                && query.until.is_none_or(|until| time < until);
            if !is_wanted {
                continue;
            }
            if page.entries.len() >= query.limit || (bytes + length > PAGE_BYTES_MAX && !page.entries.is_empty()) {
                return Ok(page);
            }
            bytes += length;
            page.entries.push(entry);
            page.next = Some(place.value().to_vec());
        }
        page.next = None;
        Ok(page)
    }

    /// Of a volume, those with a higher number than `since`, in the order in which they changed.
    pub fn changes(&self, volume: VolumeId, since: u64) -> Result<Changes, CatalogueError> {
        let read = self.database.begin_read().map_err(store)?;
        let (entries, changes) = (read.open_table(ENTRIES).map_err(store)?, read.open_table(CHANGES).map_err(store)?);
        let mut told = Changes { incarnation: self.incarnation.clone(), next: since, ..Changes::default() };
        let meta = read.open_table(META).map_err(store)?;
        told.last = meta.get("number").map_err(store)?.and_then(|it| it.value().parse().ok()).unwrap_or(0);
        let Some(since) = since.checked_add(1) else { return Ok(told) };
        let (from, to) = (key::by_change(volume, since), key::by_change(volume, u64::MAX));
        let mut bytes = 0;
        for row in changes.range::<&[u8]>(from.as_slice()..to.as_slice()).map_err(store)? {
            let (place, key) = row.map_err(store)?;
            let Some(found) = entries.get(key.value()).map_err(store)? else { continue };
            let length = found.value().len();
            if bytes + length > PAGE_BYTES_MAX && !told.entries.is_empty() {
                told.has_more = true;
                break;
            }
            bytes += length;
            told.entries.push(parse(found.value())?);
            told.next = key::number(place.value()).unwrap_or(told.next);
        }
        Ok(told)
    }

    pub fn watermark(&self, peer: &str, volume: VolumeId) -> Result<Watermark, CatalogueError> {
        let read = self.database.begin_read().map_err(store)?;
        let peers = read.open_table(PEERS).map_err(store)?;
        let found = peers.get(key::of_peer(peer, volume).as_slice()).map_err(store)?;
        let parsed = found.map(|found| serde_json::from_slice(found.value()).map_err(CatalogueError::Malformed));
        Ok(parsed.transpose()?.unwrap_or_default())
    }

    pub fn set_watermark(&self, peer: &str, volume: VolumeId, watermark: &Watermark) -> Result<(), CatalogueError> {
        let write = self.database.begin_write().map_err(store)?;
        {
            let mut peers = write.open_table(PEERS).map_err(store)?;
            let value = serde_json::to_vec(watermark).expect("a watermark is plain data");
            peers.insert(key::of_peer(peer, volume).as_slice(), value.as_slice()).map_err(store)?;
        }
        write.commit().map_err(store)
    }

    /// One commit, durable when it returns; none where nothing changes.
    fn change(
        &self,
        now_millis: i64,
        what: impl FnOnce(&Write<'_>) -> Result<usize, CatalogueError>,
    ) -> Result<usize, CatalogueError> {
        let write = self.database.begin_write().map_err(store)?;
        let table = Write { tables: &write, is_changed: Cell::new(false) };
        let changed = what(&table)?;
        if !table.is_changed.get() {
            write.abort().map_err(store)?;
            return Ok(changed);
        }
        table.forget(now_millis.saturating_sub(DELETED_MILLIS))?;
        write.commit().map_err(store)?;
        Ok(changed)
    }
}

fn parse(bytes: &[u8]) -> Result<Entry, CatalogueError> {
    serde_json::from_slice(bytes).map_err(CatalogueError::Malformed)
}

/// A transaction; all tables change together.
struct Write<'t> {
    tables: &'t WriteTransaction,
    is_changed: Cell<bool>,
}

/// Now, and in any case after what is replaced.
fn later(now_millis: i64, than: Option<&Entry>) -> i64 {
    than.map_or(now_millis, |than| now_millis.max(than.changed_at_millis.saturating_add(1)))
}

impl Write<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Entry>, CatalogueError> {
        let entries = self.tables.open_table(ENTRIES).map_err(store)?;
        let found = entries.get(key).map_err(store)?;
        found.map(|found| parse(found.value())).transpose()
    }

    /// That are there, of all volumes.
    fn named(&self, namespace: &str, name: &str) -> Result<Vec<Entry>, CatalogueError> {
        let index = self.tables.open_table(BY_NAME).map_err(store)?;
        let prefix = key::by_name(namespace, Some(name), &[]);
        let end = key::after(&prefix).unwrap_or_default();
        let mut keys = Vec::new();
        for row in index.range::<&[u8]>(prefix.as_slice()..end.as_slice()).map_err(store)? {
            keys.push(row.map_err(store)?.1.value().to_vec());
        }
        drop(index);
        let found = keys.iter().map(|key| self.get(key)).collect::<Result<Vec<_>, _>>()?;
        Ok(found.into_iter().flatten().collect())
    }

    fn set(&self, entry: &Entry) -> Result<(), CatalogueError> {
        self.is_changed.set(true);
        let record = &entry.record;
        let key = key::of_record(record);
        match self.get(&key)? {
            Some(known) => self.index(&known, &key, false)?,
            None if self.tables.open_table(ENTRIES).map_err(store)?.len().map_err(store)? >= ENTRIES_MAX => {
                return Err(CatalogueError::Full);
            }
            None => {}
        }
        self.index(entry, &key, true)?;
        let value = entry.to_bytes();
        self.tables.open_table(ENTRIES).map_err(store)?.insert(key.as_slice(), value.as_slice()).map_err(store)?;
        let mut numbers = self.tables.open_table(NUMBERS).map_err(store)?;
        let mut changes = self.tables.open_table(CHANGES).map_err(store)?;
        let before = numbers.get(key.as_slice()).map_err(store)?.map(|number| number.value());
        if let Some(before) = before {
            changes.remove(key::by_change(record.volume, before).as_slice()).map_err(store)?;
        }
        let number = self.next_number()?;
        numbers.insert(key.as_slice(), number).map_err(store)?;
        changes.insert(key::by_change(record.volume, number).as_slice(), key.as_slice()).map_err(store)?;
        Ok(())
    }

    /// Of the whole store; it goes on where the last change was, also where that was forgotten.
    fn next_number(&self) -> Result<u64, CatalogueError> {
        let mut meta = self.tables.open_table(META).map_err(store)?;
        let last = meta.get("number").map_err(store)?.and_then(|number| number.value().parse::<u64>().ok());
        let next = last.unwrap_or(0) + 1;
        meta.insert("number", next.to_string().as_str()).map_err(store)?;
        Ok(next)
    }

    fn index(&self, entry: &Entry, key: &[u8], is_there: bool) -> Result<(), CatalogueError> {
        let Entry { record, changed_at_millis, is_deleted } = entry;
        let places = match is_deleted {
            true => vec![(DELETED, key::by_time(None, *changed_at_millis, key))],
            false => vec![
                (OF_VOLUME, key::by_time(Some(record.volume), record.created_at, key)),
                (BY_TIME, key::by_time(None, record.created_at, key)),
                (BY_NAME, key::by_name(&record.namespace, Some(&record.name), key)),
            ],
        };
        for (table, place) in places {
            let mut table = self.tables.open_table(table).map_err(store)?;
            match is_there {
                true => drop(table.insert(place.as_slice(), key).map_err(store)?),
                false => drop(table.remove(place.as_slice()).map_err(store)?),
            }
        }
        Ok(())
    }

    /// What was deleted before that time, some of it.
    fn forget(&self, before_millis: i64) -> Result<(), CatalogueError> {
        let end = key::by_time(None, before_millis, &[]);
        let mut old = Vec::new();
        {
            let deleted = self.tables.open_table(DELETED).map_err(store)?;
            for row in deleted.range::<&[u8]>(..end.as_slice()).map_err(store)?.take(FORGOTTEN_AT_ONCE) {
                old.push(row.map_err(store)?.1.value().to_vec());
            }
        }
        for key in old {
            let Some(entry) = self.get(&key)? else { continue };
            self.index(&entry, &key, false)?;
            self.tables.open_table(ENTRIES).map_err(store)?.remove(key.as_slice()).map_err(store)?;
            let number = {
                let mut numbers = self.tables.open_table(NUMBERS).map_err(store)?;
                numbers.remove(key.as_slice()).map_err(store)?.map(|number| number.value())
            };
            if let Some(number) = number {
                let place = key::by_change(entry.record.volume, number);
                self.tables.open_table(CHANGES).map_err(store)?.remove(place.as_slice()).map_err(store)?;
            }
        }
        Ok(())
    }
}
