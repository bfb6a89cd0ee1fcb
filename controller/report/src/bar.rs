//! Progress of a job on stderr: a bar on a terminal, plain lines elsewhere (a log wants few of them), or nothing.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use drover_engine::control::Phase;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::units::{Bytes, Count, Rate, Time};

/// What a job says of itself at one moment. Totals are 0 until they are known.
#[derive(Clone, Debug)]
pub struct Sample {
    pub phase: Phase,
    pub entries_done: u64,
    pub entries_total: u64,
    pub bytes_done: u64,
    pub bytes_total: u64,
    pub bytes_per_second: u64,
    pub eta: Option<Duration>,
    /// Said instead of the numbers: why the job waits.
    pub note: Option<String>,
}

impl Sample {
    fn line(&self) -> String {
        let phase = format!("{:<12}", self.phase.as_str());
        if let Some(note) = &self.note {
            return format!("{phase}  {note}");
        }
        let mut parts = vec![phase];
        if let Some(entries) = done_of(self.entries_done, self.entries_total, |n| Count(n).to_string()) {
            parts.push(format!("{entries} entries"));
        }
        if let Some(bytes) = done_of(self.bytes_done, self.bytes_total, |n| Bytes(n).to_string()) {
            parts.push(bytes);
        }
        if self.bytes_per_second > 0 {
            parts.push(Rate(self.bytes_per_second).to_string());
        }
        if let Some(eta) = self.eta {
            parts.push(format!("ETA {}", Time(eta)));
        }
        parts.join("  ").trim_end().to_owned()
    }

    /// Of the current phase, in thousandths; bytes say more than entries where there are any.
    fn thousandths(&self) -> u64 {
        let (done, total) = match self.bytes_total {
            0 => (self.entries_done, self.entries_total),
            total => (self.bytes_done, total),
        };
        if total == 0 { 0 } else { (u128::from(done.min(total)) * 1000 / u128::from(total)) as u64 }
    }
}

fn done_of(done: u64, total: u64, show: impl Fn(u64) -> String) -> Option<String> {
    match (done, total) {
        (0, 0) => None,
        (_, 0) => Some(show(done)),
        _ => Some(format!("{} of {}", show(done), show(total))),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    Bar,
    Lines,
    Nothing,
}

impl Show {
    /// By what stderr is.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() { Self::Bar } else { Self::Lines }
    }
}

/// Where bars live together, so that several jobs and what is said meanwhile don't overwrite each other.
#[derive(Debug)]
pub struct Screen {
    show: Show,
    bars: MultiProgress,
}

impl Screen {
    pub fn new(show: Show) -> Self {
        Self { show, bars: MultiProgress::new() }
    }

    /// A line of talk on stderr, above the bars.
    pub fn say(&self, line: &str) {
        self.bars.suspend(|| eprintln!("{line}"));
    }

    pub fn bar(&self, label: &str) -> Bar {
        let shown = match self.show {
            Show::Nothing => Shown::Nothing,
            Show::Lines => Shown::Lines { last: None },
            Show::Bar => {
                let bar = self.bars.add(ProgressBar::new(1000));
                let style = ProgressStyle::with_template("{spinner} {prefix}  [{bar:24}]  {msg}");
                bar.set_style(style.expect("the template is well formed").progress_chars("=> "));
                bar.set_prefix(label.to_owned());
                bar.enable_steady_tick(Duration::from_millis(120));
                Shown::Bar(bar)
            }
        };
        Bar { label: label.to_owned(), shown }
    }
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { last: Option<(Instant, Phase)> },
    Nothing,
}

/// The progress of one job; it goes when dropped.
#[derive(Debug)]
pub struct Bar {
    label: String,
    shown: Shown,
}

impl Bar {
    /// Between two lines of one phase.
    const QUIET: Duration = Duration::from_secs(10);

    pub fn update(&mut self, sample: &Sample) {
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                bar.set_position(sample.thousandths());
                bar.set_message(sample.line());
            }
            Shown::Lines { last } => {
                if last.is_none_or(|(at, phase)| phase != sample.phase || at.elapsed() >= Self::QUIET) {
                    eprintln!("{}  {}", self.label, sample.line());
                    *last = Some((Instant::now(), sample.phase));
                }
            }
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        Sample {
            phase: Phase::Transferring,
            entries_done: 1_200,
            entries_total: 5_000,
            bytes_done: 1 << 20,
            bytes_total: 4 << 20,
            bytes_per_second: 1 << 20,
            eta: Some(Duration::from_secs(3)),
            note: None,
        }
    }

    #[test]
    fn a_line_has_phase_entries_bytes_rate_and_eta() {
        let line = sample().line();
        assert_eq!(line, "transferring  1,200 of 5,000 entries  1.0 MiB of 4.0 MiB  1.0 MiB/s  ETA 3.0 s");
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let sample = Sample {
            phase: Phase::Scanning,
            entries_done: 17,
            entries_total: 0,
            bytes_done: 0,
            bytes_total: 0,
            bytes_per_second: 0,
            eta: None,
            note: None,
        };
        assert_eq!(sample.line(), "scanning      17 entries");
        assert_eq!(sample.thousandths(), 0);
    }

    #[test]
    fn the_bar_follows_bytes_and_never_passes_its_end() {
        assert_eq!(sample().thousandths(), 250);
        assert_eq!(Sample { bytes_done: u64::MAX, bytes_total: 7, ..sample() }.thousandths(), 1000);
        assert_eq!(Sample { bytes_total: 0, ..sample() }.thousandths(), 240);
    }

    #[test]
    fn a_note_replaces_the_numbers() {
        let sample = Sample { phase: Phase::Connecting, note: Some("peer is away; trying again".into()), ..sample() };
        assert_eq!(sample.line(), "connecting    peer is away; trying again");
    }
}
