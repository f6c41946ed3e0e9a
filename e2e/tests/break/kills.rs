//! `kill -9` at random moments under load: two aggregators, Postgres' postmaster, a backend of it.

use anyhow::Result;
use kaeru_e2e::config::Attack;
use kaeru_e2e::wait::{self, Seen};

use crate::rig::{Plan, Rig, attack};

/// Steele's splitmix64: the same chances for the same seed.
pub(crate) fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn what_is_killed_loses_and_doubles_nothing() -> Result<()> {
    attack(async {
        let Attack { rounds, seed } = Attack::find(4, 100);
        let plan = Plan {
            name: "kills",
            aggregators: 2,
            ..Plan::default()
        };
        let mut rig = Rig::start(plan).await?;
        let load = rig.load(3)?;
        let mut chance = seed;
        let mut killed = [0_u32; 4];
        for round in 0..rounds {
            // A moment somewhere in the work: after so many more acknowledged batches.
            let until = load.books.answers(200) + next(&mut chance) % 50;
            wait::until("work between two kills", || async {
                let done = load.books.answers(200);
                Ok(Seen::when(done >= until, done))
            })
            .await?;
            // The first rounds take each in turn, so that a short attack has all.
            let victim = if round < 4 {
                u64::from(round)
            } else {
                next(&mut chance) % 4
            };
            match victim {
                0 | 1 => {
                    let aggregator = &mut rig.aggregators[usize::try_from(victim)?];
                    aggregator.kill()?;
                    aggregator.start_again().await?;
                }
                2 => {
                    rig.postgres.kill()?;
                    rig.postgres.supervise().await?;
                }
                _ => {
                    rig.postgres.kill_backend(next(&mut chance))?;
                    rig.postgres.supervise().await?;
                }
            }
            killed[usize::try_from(victim)?] += 1;
        }
        rig.ready(true).await?;
        let books = rig.balance(load).await?;
        println!(
            "kills, seed {seed}: {rounds} rounds, first and second aggregator, postmaster, backend {killed:?}: {books}"
        );
        Ok(())
    })
}
