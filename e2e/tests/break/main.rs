//! Kaeru is broken on purpose: what it runs on is killed, hangs, fills up, or goes back in time, under load, and what it
//! acknowledged is counted afterwards. `docs/TORTURE.md` says what holds.
//!
//! | file | what it attacks |
//! | --- | --- |
//! | `kills.rs` | aggregators, the postmaster and its backends: `kill -9` at random moments |
//! | `envoys.rs` | sidecars beside them |
//! | `vms.rs` | VMs of the filter, under each failure policy |
//! | `pushes.rs` | configurations pushed anew |
//! | `database.rs` | a database that hangs, refuses, is full, is replaced, is put back |
//! | `clocks.rs` | clocks that jump |
//! | `overload.rs` | more than can be taken |
//! | `names.rs` | more names than there can be: ids, types, paths, proxies, services |
//!
//! `KAERU_TORTURE` makes each attack long, `KAERU_BREAK_ROUNDS` as long as it says, `KAERU_BREAK_SEED` makes it another one.

mod books;
mod clocks;
mod database;
mod envoys;
mod kills;
mod names;
mod overload;
mod poller;
mod proxies;
mod pushes;
mod rig;
mod sender;
mod vms;
