//! Fences of an NFS server's clients, between the wire and `drover-nfs`.

use drover_nfs::{Access, Cause, Export, Fence, ProbeOk, Refusal, Seen, Shut, Wanted};
use drover_proto::v1;

use super::convert::ConvertError;

pub fn shut(value: i32) -> Result<Shut, ConvertError> {
    match v1::Shut::try_from(value) {
        Ok(v1::Shut::Unspecified | v1::Shut::ReadOnly) => Ok(Shut::ReadOnly),
        Ok(v1::Shut::Refuse) => Ok(Shut::Refuse),
        Err(_) => Err(ConvertError::UnknownEnum { field: "shut", value }),
    }
}

fn before(probe: &ProbeOk) -> v1::FenceProbe {
    v1::FenceProbe {
        url: probe.url.clone(),
        uid: Some(probe.uid),
        gid: Some(probe.gid),
        said: vec![match probe.is_of_other {
            true => "written, before the export was shut for another directory in it,".to_owned(),
            false => "written".to_owned(),
        }],
        at_unix_secs: probe.at,
    }
}

fn after(refusal: &Refusal) -> v1::FenceProbe {
    let (url, said, at_unix_secs) = (refusal.url.clone(), refusal.said.clone(), refusal.at);
    v1::FenceProbe { url, uid: None, gid: None, said, at_unix_secs }
}

pub fn fence_info(fence: &Fence) -> v1::ExportFence {
    let proof = &fence.proof;
    v1::ExportFence {
        holder: fence.holder.to_string(),
        path: fence.path.display().to_string(),
        shut: match fence.shut {
            Shut::ReadOnly => v1::Shut::ReadOnly.into(),
            Shut::Refuse => v1::Shut::Refuse.into(),
        },
        cause: match fence.cause {
            Cause::Asked => v1::FenceCause::Asked.into(),
            Cause::Superseded { .. } => v1::FenceCause::Superseded.into(),
        },
        since_unix_secs: fence.since,
        proved: proof.is_proved(),
        lacking: proof.lacking.clone(),
        before: proof.before.iter().map(before).collect(),
        after: proof.after.iter().map(after).collect(),
        entries: proof.entries.clone(),
        source: proof.source.clone(),
        looked_at_unix_secs: proof.at,
        lifting: fence.is_lifting,
    }
}

pub fn unfenced(wanted: Wanted) -> v1::Unfenced {
    v1::Unfenced { edited: wanted.edited, still: wanted.still.iter().map(ToString::to_string).collect() }
}

pub fn export(seen: Seen) -> v1::Export {
    let Export { path, pseudo, id, clients, .. } = seen.export;
    let access = |access| match access {
        Access::None => v1::ExportAccess::None,
        Access::ReadOnly => v1::ExportAccess::ReadOnly,
        Access::ReadWrite => v1::ExportAccess::ReadWrite,
        Access::Unknown => v1::ExportAccess::Unknown,
    };
    let clients =
        clients.into_iter().map(|client| v1::ExportClient { client: client.who, access: access(client.access).into() });
    v1::Export {
        path: path.display().to_string(),
        pseudo: pseudo.display().to_string(),
        id: id.unwrap_or_default(),
        clients: clients.collect(),
        volume_ids: seen.owners,
        fenced_for: seen.fenced_for.iter().map(ToString::to_string).collect(),
    }
}
