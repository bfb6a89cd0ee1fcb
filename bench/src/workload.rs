//! The shapes of data that are measured. All are made from a seed, so that two runs copy the same bytes.

pub mod files;
pub mod image;
pub mod tree;

use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// A tree of 50,000 small files, first copy
    #[value(name = "W1")]
    FirstCopy,
    /// The same tree, nothing changed
    #[value(name = "W2")]
    Unchanged,
    /// The same tree, 1 % of the files modified, appended, deleted, renamed, added
    #[value(name = "W3")]
    Changed,
    /// The same tree, nothing changed, compared by content
    #[value(name = "deep")]
    Deep,
    /// A 4 GiB image of a disk (40 % zeros and holes, 30 % noise, 30 % text), first copy
    #[value(name = "W4")]
    Image,
    /// The same image, 1 % of its 4 KiB blocks overwritten at random and 1 % in runs of 64 KiB to 1 MiB
    #[value(name = "W5")]
    ImageChanged,
    /// The same image with another time and nothing changed
    #[value(name = "W6")]
    ImageTouched,
    /// The same image, nothing changed, compared by content
    #[value(name = "image-deep")]
    ImageDeep,
    /// A 1 GiB file with 37 bytes inserted near its start
    #[value(name = "W7")]
    Inserted,
    /// 200 files of 8 MiB, each 1 % appended and 0.1 % modified
    #[value(name = "W8")]
    Appended,
}

impl Workload {
    pub const ALL: [Self; 10] = [
        Self::FirstCopy,
        Self::Unchanged,
        Self::Changed,
        Self::Deep,
        Self::Image,
        Self::ImageChanged,
        Self::ImageTouched,
        Self::ImageDeep,
        Self::Inserted,
        Self::Appended,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::FirstCopy => "W1",
            Self::Unchanged => "W2",
            Self::Changed => "W3",
            Self::Deep => "deep",
            Self::Image => "W4",
            Self::ImageChanged => "W5",
            Self::ImageTouched => "W6",
            Self::ImageDeep => "image-deep",
            Self::Inserted => "W7",
            Self::Appended => "W8",
        }
    }

    /// Directory of the source; workloads on the same tree share it.
    pub fn source(self) -> &'static str {
        match self {
            Self::FirstCopy | Self::Unchanged | Self::Changed | Self::Deep => "tree",
            Self::Image | Self::ImageChanged | Self::ImageTouched | Self::ImageDeep => "image",
            Self::Inserted => "inserted",
            Self::Appended => "appended",
        }
    }

    /// Each round copies to an empty destination.
    pub fn is_first_copy(self) -> bool {
        matches!(self, Self::FirstCopy | Self::Image)
    }

    /// Drover verifies, and syncs nothing.
    pub fn is_verification(self) -> bool {
        matches!(self, Self::Deep | Self::ImageDeep)
    }

    /// The one file that Drover protects as a block file.
    pub fn image(self) -> Option<&'static str> {
        (self.source() == "image").then_some(image::NAME)
    }

    pub fn create(self, source: &Path, size: Size) -> anyhow::Result<()> {
        match self.source() {
            "tree" => tree::create(source, size),
            "image" => image::create(source, image::bytes(size)),
            "inserted" => files::create_one(source, size),
            _ => files::create_many(source, size),
        }
    }

    /// What happens to the source before round `round`; returns the bytes of content that are new.
    pub fn change(self, source: &Path, round: u64, size: Size) -> anyhow::Result<u64> {
        match self {
            Self::FirstCopy | Self::Unchanged | Self::Deep | Self::Image | Self::ImageDeep => Ok(0),
            Self::ImageChanged => image::overwrite(source, round),
            Self::ImageTouched => image::touch(source),
            Self::Changed => tree::change(source, round),
            Self::Inserted => files::insert(source, round),
            Self::Appended => files::append_and_modify(source, round, size),
        }
    }
}

/// `Small` is a 50th, for trying things out: its ratios mean nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Size {
    Full,
    Small,
}

impl Size {
    pub fn of(self, full: u64) -> u64 {
        match self {
            Self::Full => full,
            Self::Small => full / 50,
        }
    }
}

/// Changes with each change of a generator: numbers of different generators are not comparable.
pub const SEED: u64 = 202_601;
