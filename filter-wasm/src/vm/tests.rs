//! Whole VMs, driven through the callbacks that Envoy makes.

mod aggregator;
mod hostile;
mod price;
mod requests;
mod rig;
mod verdicts;
