//! `drover-agent exports`: the NFS server of the agent's own host and its clients, over the agent's Unix socket.

use std::{fmt, process::ExitCode};

use clap::{Args, Subcommand};
use drover_proto::v1::{
    self, Export, ExportAccess, ExportFence, FenceCause, FenceExportRequest, ListExportsRequest, ListExportsResponse,
    Shut, UnfenceExportRequest, fence_client::FenceClient,
};
use drover_report::Exit;
use jiff::Timestamp;

use crate::{
    cli::ConfigArgs,
    config::Config,
    volume_cli::{VolumeCliError, connect, failed, runtime},
};

#[derive(Clone, Debug, Args)]
pub struct ExportsArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Print what the NFS server says that it serves to whom, and for what its clients are shut out
    List,
    /// Shut the clients of a directory out: they may read from then on. Of a volume: drover-agent volume fence
    #[command(after_help = "\
Example:
  drover-agent exports fence /srv/nfs/pvc-1

What is printed says whether it is proved that nobody writes, and how. Exit code 4 when it is not proved. Again, it looks again. The fence outlives
restarts of the server, the agent and the host; what others change about it is changed back.")]
    Fence {
        /// Absolute; exported, or in an export
        path: String,
        /// Clients may do nothing at all, not even read
        #[arg(long)]
        refuse: bool,
        /// Also where an export leads to more than the directory: its clients can't write to the rest either
        #[arg(long)]
        whole_export: bool,
    },
    /// Let them in again, with exactly the options that they had
    Unfence {
        /// As `exports list` prints it
        path: String,
    },
}

pub fn run(args: &ExportsArgs) -> ExitCode {
    match act(args) {
        Ok((text, exit)) => {
            print!("{text}");
            exit.into()
        }
        Err(error) => failed(&error),
    }
}

pub(crate) fn shut(refuse: bool) -> Shut {
    if refuse { Shut::Refuse } else { Shut::ReadOnly }
}

fn act(args: &ExportsArgs) -> Result<(String, Exit), VolumeCliError> {
    let config = Config::load(&args.config.config)?;
    runtime()?.block_on(async {
        let mut agent = FenceClient::new(connect(&config).await?);
        match args.verb.clone() {
            Verb::List => {
                let listed = agent.list_exports(ListExportsRequest {}).await?.into_inner();
                Ok((Listed(listed).to_string(), Exit::Ok))
            }
            Verb::Fence { path, refuse, whole_export } => {
                let request = FenceExportRequest { path, shut: shut(refuse).into(), whole_export };
                let fence = agent.fence_export(request).await?.into_inner().fence.unwrap_or_default();
                let exit = if fence.proved { Exit::Ok } else { Exit::Discrepancy };
                Ok((Fenced(fence).to_string(), exit))
            }
            Verb::Unfence { path } => {
                let request = UnfenceExportRequest { path: path.clone() };
                let unfenced = agent.unfence_export(request).await?.into_inner().exports.unwrap_or_default();
                warn(&unfenced);
                let exit = if unfenced.edited.is_empty() { Exit::Ok } else { Exit::Discrepancy };
                let still = match unfenced.still.as_slice() {
                    [] => "none".to_owned(),
                    still => format!("none of its own; its export is shut still for {}", still.join(", ")),
                };
                Ok((format!("path   {path}\nfence  {still}\n"), exit))
            }
        }
    })
}

/// What does not stand as it stood before.
pub(crate) fn warn(unfenced: &v1::Unfenced) {
    for entry in &unfenced.edited {
        eprintln!(
            "warning: an entry was edited while its clients were shut out. It stays as it is now, SHUT STILL in part perhaps: put it right by hand. It was: {entry}"
        );
    }
    for holder in &unfenced.still {
        eprintln!("warning: clients that share the export are shut out still, for {holder}");
    }
}

struct Fenced(ExportFence);

impl fmt::Display for Fenced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_fence(&self.0, f)
    }
}

fn time(secs: i64) -> String {
    Timestamp::from_second(secs).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}

/// One fact a line.
pub(crate) fn show_fence(fence: &ExportFence, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let how = match (fence.lifting, fence.shut()) {
        (true, _) => "being lifted",
        (false, Shut::Refuse) => "clients are refused",
        (false, Shut::ReadOnly | Shut::Unspecified) => "clients may read",
    };
    let cause = match fence.cause() {
        FenceCause::Superseded => ", because this copy is superseded",
        FenceCause::Asked | FenceCause::Unspecified => "",
    };
    // Nothing was read back: the server could not be told, or asked.
    let is_known = !fence.source.is_empty() && !fence.lacking.iter().any(|why| why.starts_with("still open"));
    let since = time(fence.since_unix_secs);
    match (fence.proved, is_known) {
        (true, _) => writeln!(f, "fence  FENCED, proved: {how} since {since}{cause}")?,
        (false, true) => writeln!(f, "fence  NOT PROVED: {how} since {since}{cause}, by what the server says")?,
        (false, false) => {
            writeln!(
                f,
                "fence  MAYBE NOT SHUT: meant since {since}{cause}; the server was not told, or says otherwise"
            )?;
        }
    }
    writeln!(f, "       {}", fence.path)?;
    for probe in &fence.before {
        let (uid, gid) = (probe.uid.unwrap_or_default(), probe.gid.unwrap_or_default());
        let said = probe.said.join("; ");
        writeln!(f, "before {}: {said} as {uid}:{gid} at {}", probe.url, time(probe.at_unix_secs))?;
    }
    for probe in &fence.after {
        writeln!(f, "after  {}: {} at {}", probe.url, probe.said.join("; "), time(probe.at_unix_secs))?;
    }
    if !fence.entries.is_empty() {
        writeln!(f, "read back from {}:", fence.source)?;
        fence.entries.iter().try_for_each(|entry| writeln!(f, "entry  {entry}"))?;
    }
    fence.lacking.iter().try_for_each(|why| writeln!(f, "not proved: {why}"))
}

struct Listed(ListExportsResponse);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(listed) = self;
        for Export { path, pseudo, id, clients, volume_ids, fenced_for } in &listed.exports {
            let pseudo = if pseudo == path { String::new() } else { format!("  as {pseudo}") };
            let id = if id.is_empty() { String::new() } else { format!("  id {id}") };
            writeln!(f, "export {path}{pseudo}{id}")?;
            for client in clients {
                let access = match client.access() {
                    ExportAccess::None => "none",
                    ExportAccess::ReadOnly => "read-only",
                    ExportAccess::ReadWrite => "read-write",
                    ExportAccess::Unknown | ExportAccess::Unspecified => "unknown",
                };
                writeln!(f, "  client {}  {access}", client.client)?;
            }
            volume_ids.iter().try_for_each(|id| writeln!(f, "  volume {id}"))?;
            fenced_for.iter().try_for_each(|holder| writeln!(f, "  fenced for {holder}"))?;
        }
        writeln!(f, "read from {}", listed.source)?;
        listed.gaps.iter().try_for_each(|gap| writeln!(f, "gap    {gap}"))?;
        for fence in &listed.fences {
            writeln!(f)?;
            writeln!(f, "for    {}", fence.holder)?;
            show_fence(fence, f)?;
        }
        Ok(())
    }
}
