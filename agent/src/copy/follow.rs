//! Runs one session in a thread and shows how far it is. The first Ctrl-C stops it, the second ends the process: DST is
//! a whole state either way.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use drover_engine::{
    control::{Control, Phase, Progress, Throttle},
    report::Report,
    session::Intent,
};
use drover_report::{Exit, Sample, Screen};
use tokio::{runtime::Runtime, signal, sync::oneshot};

use super::{
    CopyError,
    bandwidth::Bandwidth,
    pair::{Controls, Pair},
};

const TICK: Duration = Duration::from_millis(200);

pub(super) fn run(
    pair: &Pair,
    intent: Intent,
    bandwidth: Bandwidth,
    label: &str,
    screen: &Screen,
    runtime: &Runtime,
) -> Result<Report, CopyError> {
    let controls = Controls::new(Control::new(Arc::new(Throttle::new(bandwidth.0))));
    let request = format!("copy-{}", uuid::Uuid::new_v4().simple());
    let (done, ended) = oneshot::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Only this process's own end stops waiting for it.
            let _ = done.send(pair.session(intent, &controls, &request));
        });
        runtime.block_on(show(pair, &controls, label, screen, ended))
    })
}

async fn show(
    pair: &Pair,
    controls: &Controls,
    label: &str,
    screen: &Screen,
    mut ended: oneshot::Receiver<Result<Report, CopyError>>,
) -> Result<Report, CopyError> {
    let mut bar = screen.bar(label);
    let mut speed = Speed::default();
    let mut interrupts = 0;
    loop {
        tokio::select! {
            result = &mut ended => return result.unwrap_or(Err(CopyError::Panicked)),
            _ = signal::ctrl_c() => {
                interrupts += 1;
                if interrupts > 1 {
                    std::process::exit(Exit::Cancelled as i32);
                }
                screen.say("cancelling; DST stays as it was, what was received is kept for the next run");
                controls.cancel();
            }
            () = tokio::time::sleep(TICK) => bar.update(&speed.sample(&pair.watched(controls).progress)),
        }
    }
}

/// Rate over the last seconds of the current phase.
#[derive(Debug, Default)]
struct Speed {
    phase: Option<Phase>,
    seen: VecDeque<(Instant, u64)>,
}

impl Speed {
    const WINDOW: Duration = Duration::from_secs(5);

    fn sample(&mut self, progress: &Progress) -> Sample {
        let (phase, now) = (progress.phase(), Instant::now());
        if self.phase.replace(phase) != Some(phase) {
            self.seen.clear();
        }
        let (bytes_done, bytes_total) = (progress.bytes_done.get(), progress.bytes_total.get());
        self.seen.push_back((now, bytes_done));
        while self.seen.front().is_some_and(|(at, _)| now.duration_since(*at) > Self::WINDOW) {
            self.seen.pop_front();
        }
        let bytes_per_second = self.bytes_per_second(now, bytes_done);
        let left = bytes_total.saturating_sub(bytes_done);
        Sample {
            phase,
            entries_done: progress.entries_done.get(),
            entries_total: progress.entries_total.get(),
            bytes_done,
            bytes_total,
            bytes_per_second,
            eta: (left > 0).then(|| left.checked_div(bytes_per_second)).flatten().map(Duration::from_secs),
            note: None,
        }
    }

    fn bytes_per_second(&self, now: Instant, bytes_done: u64) -> u64 {
        let Some((at, bytes)) = self.seen.front() else {
            return 0;
        };
        let seconds = now.duration_since(*at).as_secs_f64();
        if seconds < TICK.as_secs_f64() { 0 } else { (bytes_done.saturating_sub(*bytes) as f64 / seconds) as u64 }
    }
}
