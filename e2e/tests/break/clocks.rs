//! Wall clocks that jump while reports come: an event is decided when it fails, and no other. An aggregator's by an hour,
//! forwards and back; the database's, by which all judge, forwards by less than a verdict lives (one that jumps further
//! has outlived them, and says so).

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::DateTime;
use kaeru_e2e::clock;
use kaeru_e2e::config::Attack;
use kaeru_e2e::wait::{self, Seen};

use crate::rig::{Load, Plan, Rig, attack};

const HOUR_S: i64 = 3_600;
/// So little that two jumps together are less than a verdict lives.
const JUMP_S: i64 = 200;

/// A clock is asked for by whole seconds, on a busy machine.
const SLACK_S: u64 = 30;

fn now_s() -> Result<i64> {
    Ok(i64::try_from(clock::now_ms() / 1_000)?)
}

/// Failures are decided and told, from now on.
async fn decides(load: &Load) -> Result<()> {
    let before = load.told.events().len();
    wait::within(Duration::from_mins(1), "verdicts", || async {
        let now = load.told.events().len();
        Ok(Seen::when(now >= before + 5, now))
    })
    .await
    .map(drop)
}

#[test]
fn a_jump_of_an_aggregators_clock_changes_nothing() -> Result<()> {
    attack(async {
        let plan = Plan {
            name: "clock",
            own_clock: true,
            ..Plan::default()
        };
        let rig = Rig::start(plan).await?;
        let load = rig.load(2)?;
        let rounds = usize::try_from(Attack::find(1, 10).rounds)?;
        for ahead_s in [0, HOUR_S, -HOUR_S, 0].repeat(rounds) {
            rig.set_clock(ahead_s)?;
            let page = format!("http://{}/readyz", rig.aggregators[0].settings.ops_listen);
            // A page is dated once a second, by a date that never goes back: only the jump forwards is seen in it.
            wait::until("the jump", || async {
                let answer = reqwest::get(&page).await?;
                let date = answer.headers().get("date").context("a page has a date")?;
                let date = DateTime::parse_from_rfc2822(date.to_str()?)?;
                let seen_s = date.timestamp() - now_s()?;
                let has_jumped = ahead_s <= 0 || seen_s.abs_diff(ahead_s) < SLACK_S;
                Ok(Seen::when(has_jumped, seen_s))
            })
            .await?;
            decides(&load).await?;
        }
        let of_now = rig.postgres.query(
            "SELECT count(*) FROM reports WHERE abs(extract(epoch FROM received - clock_timestamp())) > 1800",
        )?;
        ensure!(of_now == "0", "{of_now} reports are dated by a jump");
        println!("an aggregator's clock: {}", rig.balance(load).await?);
        Ok(())
    })
}

#[test]
fn a_jump_of_the_databases_clock_dooms_nobody() -> Result<()> {
    attack(async {
        let plan = Plan {
            name: "database-clock",
            own_database_clock: true,
            ..Plan::default()
        };
        let rig = Rig::start(plan).await?;
        let load = rig.load(2)?;
        for ahead_s in [0, JUMP_S, 2 * JUMP_S] {
            rig.set_clock(ahead_s)?;
            let at = "SELECT extract(epoch FROM clock_timestamp())::bigint";
            let seen_s = rig.postgres.query(at)?.parse::<i64>()? - now_s()?;
            ensure!(seen_s.abs_diff(ahead_s) < SLACK_S, "ahead by {seen_s} s");
            decides(&load).await?;
        }
        println!("the database's clock: {}", rig.balance(load).await?);
        Ok(())
    })
}
