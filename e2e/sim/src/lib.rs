//! The simulation: many reporters, proxies, aggregators, services and one database in one thread, under a seeded clock, with
//! the real rules (`kaeru_flow`), the real filter VMs and the real feed; and an oracle that knows what the services really
//! did. The same seed, the same run, bit for bit. How to read and extend it: `docs/SIMULATION.md`.

mod agenda;
mod chance;
mod database;
mod oracle;
mod shape;
mod story;
mod tally;
mod truth;
mod world;

pub use oracle::{Condition, Failure};
pub use shape::Topology;
pub use tally::Tally;

/// What became of one schedule.
#[derive(Debug)]
pub struct Outcome {
    /// What may not be, and was.
    pub failure: Option<Failure>,
    /// What was exercised.
    pub tally: Tally,
    /// What happened, where it was to be told.
    pub story: String,
}

/// Runs the schedule of a seed.
pub fn run(seed: u64, tells: bool) -> Outcome {
    let ran = std::panic::catch_unwind(|| {
        let mut world = world::World::new(seed, tells);
        world.run();
        world.conclude_run()
    });
    ran.unwrap_or_else(|_| Outcome {
        failure: Some(Failure {
            condition: Condition::Panicked,
            words: "see the backtrace".to_owned(),
        }),
        tally: Tally::default(),
        story: String::new(),
    })
}
