//! A database that hangs, refuses, has no connection left, is full, is replaced by another server, is put back to an older
//! copy: nothing acknowledged is lost, senders hear 503, readiness turns false, and all comes back by itself.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use kaeru_e2e::config::Attack;
use kaeru_e2e::wait::{self, Seen};

use crate::rig::{Load, Plan, Rig, attack};

/// How often it happens in the long form, one after the other.
const TORTURE_ROUNDS: u32 = 5;

fn rounds() -> u32 {
    Attack::find(1, TORTURE_ROUNDS).rounds
}

/// Work is acknowledged, from now on.
async fn works(load: &Load) -> Result<()> {
    let (before, told) = (load.books.answers(200), load.told.events().len());
    wait::within(Duration::from_mins(1), "work and verdicts", || async {
        let (now, more) = (load.books.answers(200), load.told.events().len());
        Ok(Seen::when(now > before + 5 && more > told, (now, more)))
    })
    .await
    .map(drop)
}

/// Senders hear 503.
async fn is_refused(load: &Load) -> Result<()> {
    let before = load.books.answers(503);
    wait::within(Duration::from_mins(1), "a 503", || async {
        let now = load.books.answers(503);
        Ok(Seen::when(now > before, now))
    })
    .await
    .map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(copied.success(), "cp -a {}", from.display());
    Ok(())
}

#[test]
fn a_database_that_hangs_is_survived() -> Result<()> {
    attack(async {
        let rig = Rig::start(Plan {
            name: "hangs",
            ..Plan::default()
        })
        .await?;
        let load = rig.load(2)?;
        works(&load).await?;
        for _ in 0..rounds() {
            rig.postgres.hang()?;
            rig.ready(false).await?;
            is_refused(&load).await?;
            rig.postgres.go_on()?;
            rig.ready(true).await?;
            works(&load).await?;
        }
        println!(
            "hanging database, {} times: {}",
            rounds(),
            rig.balance(load).await?
        );
        Ok(())
    })
}

#[test]
fn a_database_that_refuses_or_has_no_connection_left_is_survived() -> Result<()> {
    attack(async {
        let plan = Plan {
            name: "refuses",
            settings: &["max_connections=40", "superuser_reserved_connections=0"],
            ..Plan::default()
        };
        let mut rig = Rig::start(plan).await?;
        let load = rig.load(2)?;
        works(&load).await?;
        for _ in 0..rounds() {
            rig.postgres.stop_at_once()?;
            rig.ready(false).await?;
            is_refused(&load).await?;
            rig.postgres.supervise().await?;
            rig.ready(true).await?;
            works(&load).await?;
            // All connections are somebody else's: Kaeru's are cut off, and taken before it can have them again.
            let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'kaeru';";
            let mut session = rig.postgres.session()?;
            let mut taken = rig.postgres.use_up()?;
            let before = load.books.answers(503);
            wait::until("no connection left for Kaeru", || {
                let outcome = session.play(cut).and_then(|()| rig.postgres.use_up());
                taken.extend(outcome.into_iter().flatten());
                let ready = rig.aggregators[0].api().map(|api| api.is_ready());
                let refused = load.books.answers(503) > before;
                async move { Ok(Seen::when(refused && !ready?.await?, refused)) }
            })
            .await?;
            drop((session, taken));
            rig.ready(true).await?;
            works(&load).await?;
        }
        println!(
            "refusing database, {} times: {}",
            rounds(),
            rig.balance(load).await?
        );
        Ok(())
    })
}

#[test]
fn a_full_disk_is_survived() -> Result<()> {
    attack(async {
        let plan = Plan {
            name: "full",
            disk_mib: Some(160),
            settings: &[
                "max_wal_size=32MB",
                "min_wal_size=8MB",
                "shared_buffers=16MB",
            ],
            ..Plan::default()
        };
        let mut rig = Rig::start(plan).await?;
        let load = rig.load(2)?;
        works(&load).await?;
        let ballast = rig.folder.join("postgres/ballast");
        for _ in 0..rounds() {
            // `dd` ends with the disk.
            Command::new("dd")
                .args(["if=/dev/zero", "bs=64k", "status=none"])
                .arg(format!("of={}", ballast.display()))
                .output()?;
            rig.ready(false).await?;
            is_refused(&load).await?;
            fs::remove_file(&ballast)?;
            // Postgres gives up where it cannot write its log; whoever runs it starts it again.
            rig.postgres.supervise().await?;
            rig.ready(true).await?;
            works(&load).await?;
        }
        println!(
            "full disk, {} times: {}",
            rounds(),
            rig.balance(load).await?
        );
        Ok(())
    })
}

/// The cluster is stopped, and a copy of it goes on as a standby that was promoted: another timeline, so another epoch.
#[test]
fn a_failover_begins_a_new_epoch_and_loses_nothing() -> Result<()> {
    attack(async {
        let plan = Plan {
            name: "failover",
            aggregators: 2,
            ..Plan::default()
        };
        let mut rig = Rig::start(plan).await?;
        let load = rig.load(2)?;
        works(&load).await?;
        for round in 0..rounds() {
            rig.postgres.stop_at_once()?;
            let (data, lost) = (
                rig.postgres.data(),
                rig.folder.join(format!("postgres/lost-{round}")),
            );
            fs::rename(&data, &lost)?;
            copy(&lost, &data)?;
            fs::write(data.join("standby.signal"), "")?;
            rig.ready(false).await?;
            rig.postgres.supervise().await?;
            // What waited for it would hold a snapshot that replay may take away.
            rig.postgres.query("SELECT pg_promote(wait => false)")?;
            wait::until("promotion", || async {
                let replays = rig.postgres.query("SELECT pg_is_in_recovery()")?;
                Ok(Seen::when(replays == "f", replays))
            })
            .await?;
            rig.ready(true).await?;
            works(&load).await?;
            let epochs = usize::try_from(round)? + 2;
            ensure!(load.told.epochs() == epochs, "{}", load.told);
        }
        println!("failover, {} times: {}", rounds(), rig.balance(load).await?);
        Ok(())
    })
}

/// What the copy did not have is lost with the restore; what is acknowledged afterwards is right, though the store gives
/// numbers a second time that it had given before.
#[test]
fn a_store_that_is_put_back_is_taken_as_it_is() -> Result<()> {
    attack(async {
        let mut rig = Rig::start(Plan {
            name: "put-back",
            ..Plan::default()
        })
        .await?;
        let data = rig.postgres.data();
        let older = rig.folder.join("postgres/older");
        rig.postgres.stop_at_once()?;
        copy(&data, &older)?;
        rig.postgres.supervise().await?;
        // Each sender makes a call known, whose number the restored store does not have.
        let before = rig.load(4)?;
        works(&before).await?;
        before.told.may_go_back.store(true, Ordering::Relaxed);
        rig.postgres.stop_at_once()?;
        fs::remove_dir_all(&data)?;
        fs::rename(&older, &data)?;
        rig.postgres.supervise().await?;
        rig.ready(true).await?;
        works(&before).await?;
        let wrong = "SELECT count(*) FROM reports r JOIN reporters p ON p.id = r.reporter
            LEFT JOIN calls c ON c.id = r.call WHERE c.path IS DISTINCT FROM '/orders/' || p.service";
        let wrong = rig.postgres.query(wrong)?;
        ensure!(
            wrong == "0",
            "{wrong} reports name another call than they did"
        );
        let policies = rig.postgres.query("SELECT count(*) FROM policies")?;
        ensure!(policies == "1", "{policies} policies");
        before.told.check()?;
        println!("put back: {}", before.told);
        Ok(())
    })
}
