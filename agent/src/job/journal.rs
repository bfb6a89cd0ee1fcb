//! The durable copy of the job book: one redb file in the state directory, which only one process can open. A job is
//! kept as JSON; the file says the version of all of them, so that a newer release's journal is refused by name.

use std::path::{Path, PathBuf};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Job, JobId};

const JOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("jobs");
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const VERSION: u64 = 1;
/// Some thousand jobs of about 1 KiB; the default of redb is 1 GiB.
const CACHE_BYTES: usize = 4 << 20;

#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("job journal {path} is open in another process; is an agent running?")]
    InUse { path: PathBuf },
    #[error("job journal {path} is damaged; move it away to start with no jobs (no volume needs it)")]
    Damaged {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("job journal has version {found}, this release knows {VERSION}")]
    Newer { found: u64 },
    #[error("job {id} in the journal is malformed")]
    Malformed {
        id: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("access the job journal")]
    Store(#[source] Box<redb::Error>),
}

fn store<E: Into<redb::Error>>(source: E) -> JournalError {
    JournalError::Store(Box::new(source.into()))
}

pub struct Journal {
    database: Database,
}

impl Journal {
    pub fn open(state_dir: &Path) -> Result<Self, JournalError> {
        let path = state_dir.join("jobs.redb");
        let database = Database::builder().set_cache_size(CACHE_BYTES).create(&path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => JournalError::InUse { path: path.clone() },
            other => JournalError::Damaged { path: path.clone(), source: Box::new(other.into()) },
        })?;
        let journal = Self { database };
        journal.check_version()?;
        Ok(journal)
    }

    fn check_version(&self) -> Result<(), JournalError> {
        let write = self.database.begin_write().map_err(store)?;
        {
            let mut meta = write.open_table(META).map_err(store)?;
            let found = meta.get("version").map_err(store)?.map(|version| version.value());
            match found {
                None => drop(meta.insert("version", VERSION).map_err(store)?),
                Some(VERSION) => {}
                Some(found) => return Err(JournalError::Newer { found }),
            }
            write.open_table(JOBS).map_err(store)?;
        }
        write.commit().map_err(store)
    }

    pub fn load(&self) -> Result<Vec<Job>, JournalError> {
        let read = self.database.begin_read().map_err(store)?;
        let table = read.open_table(JOBS).map_err(store)?;
        let mut jobs = Vec::new();
        for row in table.iter().map_err(store)? {
            let (id, record) = row.map_err(store)?;
            let malformed = |source| JournalError::Malformed { id: id.value().to_owned(), source };
            jobs.push(serde_json::from_slice(record.value()).map_err(malformed)?);
        }
        Ok(jobs)
    }

    /// Durable when it returns.
    pub(super) fn put(&self, job: &Job) -> Result<(), JournalError> {
        let record = serde_json::to_vec(job).expect("a job is plain data");
        let write = self.database.begin_write().map_err(store)?;
        {
            let mut table = write.open_table(JOBS).map_err(store)?;
            table.insert(job.id.as_str(), record.as_slice()).map_err(store)?;
        }
        write.commit().map_err(store)
    }

    pub(super) fn forget(&self, ids: &[JobId]) -> Result<(), JournalError> {
        let write = self.database.begin_write().map_err(store)?;
        {
            let mut table = write.open_table(JOBS).map_err(store)?;
            for id in ids {
                table.remove(id.as_str()).map_err(store)?;
            }
        }
        write.commit().map_err(store)
    }
}
