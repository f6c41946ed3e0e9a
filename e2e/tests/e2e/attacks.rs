//! Attacks on real Envoys with the compiled filter, on the stage of the scenarios: hostile requests, and a network between
//! proxies and aggregator that misbehaves. They run after the other tests (docs/TORTURE.md).

mod faults;
mod hostile;
#[path = "../fuzz/mutate.rs"]
mod mutate;
#[expect(
    dead_code,
    reason = "the stage is the scenarios', and has more than attacks need"
)]
mod stage;
