//! Verify: is the replica its point, and is the source still that point?

use super::{Offer, SessionError, Wire, compare::compare, descend::descend};
use crate::{
    control::Phase,
    index::Index,
    report::{Report, VerifyReport},
    transaction::load_manifest,
    volume::{Volume, VolumeError},
};

pub(super) fn run(
    wire: &Wire<'_>,
    volume: &Volume,
    actual: &Index,
    offer: &Offer,
    deep: bool,
) -> Result<Report, SessionError> {
    wire.control().progress.enter(Phase::Verifying, 0, 0);
    let state = volume.state();
    let source = descend(wire, &actual.manifest, offer)?;
    let replica = &actual.manifest;
    let point = state.current_point();
    let at_point = match point {
        Some(point) => load_manifest(volume, point).map_err(VolumeError::from)?,
        None => replica.clone(),
    };
    let replica_differs = compare(&at_point, replica);
    let source_differs = compare(&source, replica);
    let totals = replica.totals();
    let report = VerifyReport {
        deep,
        replica_is_point: point.is_some_and(|point| point.root == replica.root_digest()),
        source_is_point: point.is_some_and(|point| point.root == source.root_digest()),
        replica_differs: replica_differs.shown,
        replica_differs_total: replica_differs.total,
        differs_at: Vec::new(),
        source_differs: source_differs.shown,
        source_differs_total: source_differs.total,
        source_rotten: offer.rotten.clone(),
        point: point.map(|point| point.id),
        replica_root: replica.root_digest().to_string(),
        source_root: source.root_digest().to_string(),
        entries: totals.entries,
        bytes: totals.bytes,
    };
    let report = Report::Verify(report);
    super::sink::finish(wire, &report)?;
    Ok(report)
}
