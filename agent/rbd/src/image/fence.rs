//! Fencing of an image's clients: whoever writes to it is shut out of the cluster, for good.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

use super::{Image, VerbError};
use crate::{
    request::{Reply, Request},
    turn::Turn,
    view::{ImagePlace, UserView},
};

/// Of a pool or namespace. Keys are names of images, values the addresses that were shut out because of it, one in a line.
const OBJECT: &str = "drover.fences";
/// A client has a new address after a restart; entries that are older are worth nothing.
const TIME: Duration = Duration::from_secs(365 * 24 * 3600);
/// An entry that ends sooner is none of these: the cluster keeps the time of one that is there.
const TIME_LEAST: Duration = Duration::from_secs(300 * 24 * 3600);
/// The cluster forgets a client that it hears nothing of after 30 s.
const GONE: Duration = Duration::from_secs(90);
const BETWEEN_LOOKS: Duration = Duration::from_millis(500);
/// Others may come to write while one is shut out.
const ROUNDS: usize = 5;

/// Other images that a client has open and that may not be taken from it.
pub type Bystanders<'a> = &'a (dyn Fn(&str) -> Result<Vec<ImagePlace>, VerbError> + Sync);

impl Image<'_> {
    /// Addresses that were shut out because of this image.
    pub fn fenced(&self) -> Result<Vec<String>, VerbError> {
        Ok(self.fences()?.remove(&self.place.image).unwrap_or_default())
    }

    /// By the images of its pool and namespace.
    fn fences(&self) -> Result<BTreeMap<String, Vec<String>>, VerbError> {
        let ImagePlace { pool, namespace, .. } = self.place.clone();
        match self.crew.call(&Request::ReadRecord { pool, namespace, object: OBJECT.to_owned() })? {
            Reply::Record(record) => {
                let addresses = |value: String| value.lines().map(str::to_owned).collect();
                Ok(record.into_iter().map(|(image, value)| (image, addresses(value))).collect())
            }
            _ => Err(VerbError::Confused),
        }
    }

    /// Addresses that are shut out of the cluster, and until when.
    fn blocklisted(&self) -> Result<Vec<(String, String)>, VerbError> {
        match self.crew.call(&Request::Blocklisted)? {
            Reply::Record(listed) => Ok(listed),
            _ => Err(VerbError::Confused),
        }
    }

    fn note_fenced(&self, addresses: &[String]) -> Result<(), VerbError> {
        let ImagePlace { pool, namespace, image: key } = self.place.clone();
        let value = (!addresses.is_empty()).then(|| addresses.join("\n"));
        self.crew.call(&Request::WriteRecord { pool, namespace, object: OBJECT.to_owned(), key, value })?;
        Ok(())
    }
}

impl Turn<'_> {
    /// Returns the addresses of the clients that it has shut out, once no client writes to the image, and none that was shut out has it open: the next client that wants to write can, so what
    /// would start one must be kept from that by other means.
    ///
    /// A client that the cluster does not hear of is shut out, too, while it has the lock: it may come back and write on.
    pub fn fence(&mut self, bystanders: Bystanders<'_>) -> Result<Vec<String>, VerbError> {
        self.image.primary()?;
        let mut fenced = Vec::new();
        for _ in 0..ROUNDS {
            let writers: Vec<_> = self.image.users()?.into_iter().filter(|user| user.is_lock_owner).collect();
            if writers.is_empty() {
                return Ok(fenced);
            }
            for UserView { address, .. } in writers {
                let others = bystanders(&address)?;
                if !others.is_empty() {
                    return Err(VerbError::SharedClient { place: self.image.place.clone(), address, others });
                }
                self.note(&address)?;
                let place = self.image.place.clone();
                self.change(&Request::ShutOut { place: place.clone(), address: address.clone(), time: TIME })?;
                // Before the lock is broken, so that a repeated call meets the same client.
                self.is_shut_out(&address)?;
                // librbd blocklists the owner as well, for an hour: of an entry that is there the time stays.
                self.change(&Request::BreakLock { place, address: address.clone() })?;
                self.gone(&address)?;
                fenced.push(address);
            }
        }
        Err(VerbError::StillWritten { place: self.image.place.clone(), users: self.image.users()? })
    }

    /// What is to be let in again: not who was on the list before, for a reason of somebody else's.
    fn note(&self, address: &String) -> Result<(), VerbError> {
        let mut fences = self.image.fences()?;
        let is_ours = fences.values().flatten().any(|known| known == address);
        if !is_ours && self.image.blocklisted()?.iter().any(|(listed, _)| listed == address) {
            return Ok(());
        }
        let mut known = fences.remove(&self.image.place.image).unwrap_or_default();
        if !known.contains(address) {
            known.push(address.clone());
            self.image.note_fenced(&known)?;
        }
        Ok(())
    }

    fn gone(&self, address: &str) -> Result<(), VerbError> {
        let begun = Instant::now();
        loop {
            let mut users = self.image.users()?;
            users.retain(|user| user.address == address);
            if users.is_empty() {
                return Ok(());
            }
            if begun.elapsed() > GONE {
                return Err(VerbError::StillWritten { place: self.image.place.clone(), users });
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    fn is_shut_out(&self, address: &str) -> Result<(), VerbError> {
        let listed = self.image.blocklisted()?;
        let Some((_, until)) = listed.into_iter().find(|(listed, _)| listed == address) else {
            return Err(VerbError::NotSeen(self.image.place.clone()));
        };
        let is_long = |until: Timestamp| {
            until.duration_since(Timestamp::now()) > SignedDuration::from_secs(TIME_LEAST.as_secs().cast_signed())
        };
        match until.parse() {
            Ok(time) if is_long(time) => Ok(()),
            Ok(_) | Err(_) => Err(VerbError::FencedBriefly { address: address.to_owned(), until }),
        }
    }

    /// Lets those clients in again that were shut out because of this image, and of no other one of its pool and namespace. They have to open it
    /// anew. Returns their addresses.
    pub fn unfence(&mut self) -> Result<Vec<String>, VerbError> {
        let mut fences = self.image.fences()?;
        let noted = fences.remove(&self.image.place.image).unwrap_or_default();
        let is_of_others = |address: &String| fences.values().flatten().any(|other| other == address);
        let fenced: Vec<_> = noted.iter().filter(|address| !is_of_others(address)).cloned().collect();
        for address in &fenced {
            self.change(&Request::Unblocklist { address: address.clone() })?;
        }
        if self.image.blocklisted()?.iter().any(|(address, _)| fenced.contains(address)) {
            return Err(VerbError::NotSeen(self.image.place.clone()));
        }
        if !noted.is_empty() {
            self.image.note_fenced(&[])?;
        }
        Ok(fenced)
    }
}
