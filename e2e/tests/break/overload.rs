//! Far more than can be taken: what is accepted is kept, the rest hears 429 soon, memory stays bounded, verdicts flow
//! meanwhile, and afterwards all is as before.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use kaeru_e2e::config::Attack;
use kaeru_e2e::wait::{self, Seen};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::books::Books;
use crate::rig::{Plan, Rig, attack};
use crate::sender::Sender;

/// More senders than batches of theirs are admitted: about 400 KiB each of 16 MiB.
const SENDERS: u32 = 100;
/// Reports in a batch of theirs.
const SIZE: u64 = 4_000;
/// What an aggregator may hold above its rest, MiB: 16 of bodies, fifteen times as much as reports with their texts (100
/// bytes on the wire are 1.5 KB), and 128 for the rows of a transaction, the decider's looks and what an allocator keeps.
const MEMORY_MIB_MAX: u64 = 16 * (1 + 15) + 128;

#[test]
fn what_is_too_much_is_refused_and_what_is_taken_is_kept() -> Result<()> {
    attack(async {
        let rounds = Attack::find(1, 10).rounds;
        let rig = Rig::start(Plan {
            name: "overload",
            ..Plan::default()
        })
        .await?;
        let load = rig.load(1)?;
        let rest_mib = rig.aggregators[0].memory_peak_kib()? / 1024;
        let flood = Arc::new(Books::default());
        let (stop, stopping) = watch::channel(false);
        let mut senders = JoinSet::new();
        for number in 0..SENDERS {
            let mut sender = Sender::new(1_000 + number, rig.listening(), flood.clone())?;
            sender.size = SIZE;
            sender.fails = false;
            senders.spawn(sender.work(stopping.clone()));
        }
        for _ in 0..rounds {
            let (refused, told) = (flood.answers(429) + 100, load.told.events().len() + 1);
            wait::within(
                Duration::from_mins(2),
                "429, and verdicts meanwhile",
                || async {
                    let (now, verdicts) = (flood.answers(429), load.told.events().len());
                    Ok(Seen::when(
                        now >= refused && verdicts >= told,
                        (now, verdicts),
                    ))
                },
            )
            .await?;
        }
        senders.abort_all();
        stop.send_replace(true);
        while senders.join_next().await.is_some() {}
        let begun = tokio::time::Instant::now();
        let before = load.books.answers(200);
        wait::until("work as before", || async {
            let now = load.books.answers(200);
            Ok(Seen::when(now > before + 5, now))
        })
        .await?;
        let recovered = begun.elapsed();
        let peak_mib = rig.aggregators[0].memory_peak_kib()? / 1024;
        ensure!(
            peak_mib - rest_mib < MEMORY_MIB_MAX,
            "{rest_mib} MiB at rest, {peak_mib} MiB at most"
        );
        let account = flood.account()?;
        let kept = "SELECT count(*) FROM reports r JOIN reporters p ON p.id = r.reporter
            WHERE p.service LIKE 'break/s1___'";
        let kept: u64 = rig.postgres.query(kept)?.parse()?;
        ensure!(
            kept >= account.reports,
            "{kept} kept of {}",
            account.reports
        );
        let slowest = account.slowest;
        ensure!(
            slowest < Duration::from_secs(30),
            "an answer took {slowest:?}"
        );
        println!(
            "overload: {account}; {rest_mib} MiB at rest, {peak_mib} MiB at most; as before after {recovered:.1?}"
        );
        println!("meanwhile: {}", load.told);
        load.books.account()?;
        load.told.check()
    })
}
