//! Whether the clients of a directory are shut out: what the server says of each entry, and what it says to a client.

use drover_engine::error::chain as told;

use super::{Fences, mounts, now};
use crate::{
    book::{Fence, Holder, ProbeOk, Proof, Refusal},
    place::Mounts,
    probe::{Attempt, ProbeError, Session, Target},
    table::{Shut, Table},
};

/// What the server says of the entries that lead to a directory.
#[derive(Debug, Default)]
pub(super) struct Entries {
    /// Those whose clients may do more than the fence lets them.
    pub(super) open: Vec<String>,
    proof: Proof,
}

impl Entries {
    pub(super) fn into_proof(mut self) -> Proof {
        self.proof.lacking.extend(self.open.into_iter().map(|entry| format!("still open: {entry}")));
        self.proof
    }
}

impl Fences {
    /// Each entry that leads to the directory, as the server has it now.
    pub(super) fn entries(&self, table: &Table, fence: &Fence, mounts: &Mounts) -> Entries {
        let mut proof = Proof { at: now(), ..Proof::default() };
        let mut open = Vec::new();
        let place = match mounts.place(&fence.path) {
            Ok(place) => place,
            Err(error) => {
                proof.lacking.push(format!("{} can't be found: {error}", fence.path.display()));
                return Entries { open, proof };
            }
        };
        proof.source.clone_from(&table.source);
        proof.lacking.extend(table.gaps.iter().cloned());
        for export in &table.exports {
            let at = match mounts.place(&export.path) {
                Ok(at) => at,
                // A server may serve on what was renamed since; where nobody may write it does not matter.
                Err(_) if export.clients.iter().all(|client| fence.shut.allows(client.access)) => continue,
                Err(error) => {
                    proof.lacking.push(format!("export {} can't be found: {error}", export.path.display()));
                    continue;
                }
            };
            if mounts.reach(&at, &place, export.crosses).is_none() {
                continue;
            }
            let name = match export.pseudo == export.path {
                true => export.path.display().to_string(),
                false => format!("{} ({})", export.path.display(), export.pseudo.display()),
            };
            if !export.is_complete {
                proof
                    .lacking
                    .push(format!("the server does not say what clients may do with {name} that it does not name"));
            }
            for client in &export.clients {
                let entry = format!("{name} {}: {}", client.who, client.access);
                if !fence.shut.allows(client.access) {
                    open.push(entry.clone());
                }
                proof.entries.push(entry);
            }
        }
        Entries { open, proof }
    }

    /// The entries, and the same probes as before.
    pub(super) fn look(&self, table: &Table, fence: &Fence, mounts: &Mounts, sessions: &mut [Session]) -> Proof {
        let mut proof = self.entries(table, fence, mounts).into_proof();
        if fence.shut == Shut::Refuse {
            self.refused(table, fence, mounts, &mut proof);
            return proof;
        }
        let names: Vec<String> = sessions.iter().map(|session| session.target.url()).collect();
        for session in sessions.iter_mut() {
            let url = session.target.url();
            match session.again(&format!("{}-again", fence.probe_name)) {
                Ok(attempts) => judge(&mut proof, url, &attempts),
                Err(error) => proof.lacking.push(format!("after, {url}: {error}")),
            }
        }
        // What wrote before and has no open file any more writes anew.
        for before in fence.before.iter().filter(|before| !names.contains(&before.url)) {
            match self.anew(table, fence, mounts, before) {
                Some((url, attempts)) => judge(&mut proof, url, &attempts),
                None => proof.lacking.push(format!("{}: no export of the server is called that any more", before.url)),
            }
        }
        proof
    }

    /// A new client's try, and where; a file that it makes goes at once.
    fn anew(&self, table: &Table, fence: &Fence, mounts: &Mounts, before: &ProbeOk) -> Option<(String, Vec<Attempt>)> {
        let place = mounts.place(&fence.path).ok()?;
        let targets = table.exports.iter().filter_map(|export| self.target(export, &place, mounts, &fence.path));
        let is_same = |target: &Target| match before.is_of_other {
            true => target.export == before.export,
            false => target.url() == before.url,
        };
        let target = targets.filter_map(Result::ok).find(is_same)?;
        let target = Target { uid: before.uid, gid: before.gid, ..target };
        let url = target.url();
        let attempts = match Session::begin(&self.program, target, &format!("{}-anew", fence.probe_name)) {
            Ok(mut session) => {
                let _ = session.remove();
                let said = format!("{} was written", session.name);
                vec![Attempt { step: "make a file".to_owned(), errno: 0, said }]
            }
            Err(ProbeError::Refused(attempts)) => attempts.into_iter().filter(|attempt| !attempt.is_done()).collect(),
            Err(error) => vec![Attempt { step: "probe".to_owned(), errno: -1, said: told(&error) }],
        };
        Some((url, attempts))
    }

    /// Clients that are refused altogether are told so in several ways, once EROFS was seen.
    fn refused(&self, table: &Table, fence: &Fence, mounts: &Mounts, proof: &mut Proof) {
        for before in &fence.before {
            // The kernel's server does not know the export any more.
            let Some((url, attempts)) = self.anew(table, fence, mounts, before) else { continue };
            if attempts.is_empty() || !attempts.iter().all(Attempt::is_refused) {
                let said: Vec<String> = attempts.iter().map(Attempt::shown).collect();
                proof.lacking.push(format!("after, {url}: {}", said.join("; ")));
            }
        }
    }

    /// Proved, and still so: a number that is another one for each fence. Takes a probe, so some milliseconds.
    pub fn is_shut(&self, holder: &Holder) -> Option<u64> {
        let fence = self.of(holder).filter(|fence| !fence.is_lifting && fence.proof.is_proved())?;
        let (table, mounts) = (self.server().ok()?.table().ok()?, mounts().ok()?);
        let proof = self.look(&table, &fence, &mounts, &mut []);
        match proof.lacking.is_empty() {
            true => Some(fence.generation),
            false => {
                tracing::warn!(fence = %holder, "clients were shut out, and are not any more: {}", proof.lacking.join("; "));
                None
            }
        }
    }
}

/// Every write must be refused because the export is read-only.
fn judge(proof: &mut Proof, url: String, attempts: &[Attempt]) {
    let is_refused = !attempts.is_empty() && attempts.iter().all(Attempt::is_read_only);
    let said: Vec<String> = attempts.iter().map(Attempt::shown).collect();
    match is_refused {
        true => proof.after.push(Refusal { url, said, at: now() }),
        false => proof.lacking.push(format!("after, {url}: {}", said.join("; "))),
    }
}
