//! Ctrl-C, counted. Jobs run on agents, so it must never simply end this process: the first one cancels, the next
//! leaves the job alone.

use tokio::{signal, sync::watch};

#[derive(Clone, Debug)]
pub(crate) struct Interrupts(watch::Receiver<u8>);

impl Interrupts {
    pub(crate) fn listen() -> Self {
        let (count, receiver) = watch::channel(0_u8);
        tokio::spawn(async move {
            while signal::ctrl_c().await.is_ok() {
                count.send_modify(|count| *count = count.saturating_add(1));
            }
        });
        Self(receiver)
    }

    /// Waits until there were more than `seen`; returns how many there were.
    pub(crate) async fn more_than(&mut self, seen: u8) -> u8 {
        match self.0.wait_for(|count| *count > seen).await {
            Ok(count) => *count,
            Err(_) => std::future::pending().await,
        }
    }
}
