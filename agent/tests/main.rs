//! Real agents on loopback, in this process's children. One binary, so that it is linked once.

mod access;
mod agent;
mod jobs;
mod process;
mod volumes;
