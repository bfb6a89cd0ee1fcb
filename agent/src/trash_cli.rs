//! `drover-agent trash`: what was deleted and waits, for root on the agent's own host, over its Unix socket.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use drover_proto::v1::{ListTrashRequest, RestoreTrashRequest, TrashEntry, VolumeRole, trash_client::TrashClient};
use drover_report::Exit;
use jiff::Timestamp;

use crate::{
    cli::ConfigArgs,
    config::Config,
    volume_cli::{VolumeCliError, connect, failed, path, runtime},
};

#[derive(Clone, Debug, Args)]
pub struct TrashArgs {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Clone, Debug, Subcommand)]
enum Verb {
    /// Print what is in the trash, oldest first: name, when it goes for good, role, place
    List {
        /// Of this root alone
        #[arg(long)]
        root: Option<String>,
    },
    /// Put a volume back where it was, with its restore points
    #[command(after_help = "\
Nothing may be at its place, and no volume with its id. It comes back with the role that it had: a secondary is synced again by its primary, if that
names it still.")]
    Restore {
        /// As `trash list` prints it
        name: String,
    },
}

pub fn run(args: &TrashArgs) -> ExitCode {
    match act(args) {
        Ok(done) => {
            print!("{done}");
            Exit::Ok.into()
        }
        Err(error) => failed(&error),
    }
}

fn act(args: &TrashArgs) -> Result<String, VolumeCliError> {
    let config = Config::load(&args.config.config)?;
    runtime()?.block_on(async {
        let mut agent = TrashClient::new(connect(&config).await?);
        match args.verb.clone() {
            Verb::List { root } => {
                let request = ListTrashRequest { root: root.unwrap_or_default() };
                let entries = agent.list(request).await?.into_inner().entries;
                Ok(entries.iter().map(line).collect())
            }
            Verb::Restore { name } => {
                let volume = agent.restore(RestoreTrashRequest { name }).await?.into_inner().volume;
                let volume = volume.unwrap_or_default();
                Ok(format!("volume {}\nplace  {}\n", volume.volume_id, path(&volume).unwrap_or_default()))
            }
        }
    })
}

fn line(entry: &TrashEntry) -> String {
    let time = Timestamp::from_second(entry.purged_at_unix_secs).map_or_else(|_| "?".to_owned(), |it| it.to_string());
    let TrashEntry { name, root, path, points, .. } = entry;
    match entry.role() {
        _ if !entry.restorable => format!("{name}  until {time}  what others had written, on root {root}\n"),
        VolumeRole::Primary => format!("{name}  until {time}  primary  {root}/{path}  {points} points\n"),
        VolumeRole::Secondary | VolumeRole::Unspecified => {
            format!("{name}  until {time}  secondary  {root}/{path}  {points} points\n")
        }
    }
}
