//! Where a run lives: one directory with the sources, every contestant's replicas, and the agents' own files, and what
//! joins the two ends.

use std::{
    cell::RefCell,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{
    device::Device,
    network::Network,
    workload::{Size, Workload, image},
};

#[derive(Debug)]
pub struct Site {
    pub base: PathBuf,
    pub size: Size,
    pub network: Network,
    /// Of images that are bare devices; `None` where they are files.
    devices: Option<RefCell<Vec<Device>>>,
}

impl Site {
    pub fn create(base: &Path, size: Size, network: Network, on_devices: bool) -> Result<Self> {
        for name in ["source", "replica", "rsync", "blocksync", "agents", "devices"] {
            fs::create_dir_all(base.join(name)).with_context(|| format!("create {}", base.join(name).display()))?;
        }
        Ok(Self { base: base.canonicalize()?, size, network, devices: on_devices.then(RefCell::default) })
    }

    pub fn is_on_devices(&self) -> bool {
        self.devices.is_some()
    }

    /// Root of one agent: every source is a volume beneath it.
    pub fn sources(&self) -> PathBuf {
        self.base.join("source")
    }

    /// Root of the other agent.
    pub fn replicas(&self) -> PathBuf {
        self.base.join("replica")
    }

    /// The rsync daemon's module.
    pub fn rsync_replicas(&self) -> PathBuf {
        self.base.join("rsync")
    }

    pub fn blocksync_replicas(&self) -> PathBuf {
        self.base.join("blocksync")
    }

    pub fn agents(&self) -> PathBuf {
        self.base.join("agents")
    }

    pub fn source(&self, workload: Workload) -> PathBuf {
        self.sources().join(workload.source())
    }

    /// Makes the workload's source unless an earlier workload of this run did.
    pub fn source_ready(&self, workload: Workload) -> Result<PathBuf> {
        let source = self.source(workload);
        if !source.exists() {
            eprintln!("{}: making the source", workload.name());
            self.make_room(&source)?;
            workload.create(&source, self.size)?;
        }
        Ok(source)
    }

    /// A directory for a copy; on devices with a blank one in it, unless there is one.
    pub fn make_room(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("create {}", directory.display()))?;
        let node = directory.join(image::NAME);
        if let Some(devices) = &self.devices
            && !node.exists()
        {
            let name = directory.strip_prefix(&self.base)?.display().to_string().replace('/', "-");
            let device = Device::attach(&node, &self.base.join("devices").join(name), image::bytes(self.size))?;
            devices.borrow_mut().push(device);
        }
        Ok(())
    }

    /// Name beneath `/dev` of the device in a directory.
    pub fn device_name(&self, directory: &Path) -> Option<String> {
        let node = directory.join(image::NAME);
        let devices = self.devices.as_ref()?.borrow();
        devices.iter().find(|device| device.node == node).map(|device| device.name.clone())
    }

    /// What has to be flushed for a copy in this directory to be on the disk.
    pub fn written(&self, directory: &Path) -> PathBuf {
        if self.is_on_devices() { directory.join(image::NAME) } else { directory.to_owned() }
    }

    /// Deletes a copy, with its device.
    pub fn forget(&self, directory: &Path) -> Result<()> {
        if let Some(devices) = &self.devices {
            let node = directory.join(image::NAME);
            let forgotten: Vec<_> = devices.borrow_mut().extract_if(.., |device| device.node == node).collect();
            forgotten.into_iter().try_for_each(Device::forget)?;
        }
        fs::remove_dir_all(directory).with_context(|| format!("remove {}", directory.display()))
    }
}
