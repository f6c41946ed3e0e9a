//! Scenario 7: a proxy states its service's status, idle or not, once and not per worker.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow, bail};
use kaeru_e2e::shop::Role;
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::World;
use tokio::time::Instant;

use crate::stage::{plan, play};

#[test]
fn an_idle_proxy_states_its_status_once_an_interval() -> Result<()> {
    play(async {
        // Nobody sends anything.
        let world = World::start(plan("idle")).await?;
        let api = world.api()?;
        let begun = Instant::now();
        let before = api.metric("kaeru_reports_stored_total").await?;
        let heard = Mutex::new(BTreeSet::new());
        wait::until("three statuses of every proxy", || async {
            for role in Role::MESH {
                let service = api.service(&role.peer()).await?;
                let proxies = service.context("never heard of")?.proxies;
                let [proxy] = &proxies[..] else {
                    bail!("one proxy, not one per worker: {proxies:#?}");
                };
                assert_eq!(proxy.proxy, world.sidecar(role)?.sidecar.node_id());
                assert_eq!((proxy.in_flight, proxy.out_of_touch), (0, false));
                let mut heard = heard.lock().map_err(|_| anyhow!("a look panicked"))?;
                heard.insert((role, proxy.last_heard.clone()));
            }
            let heard = heard.lock().map_err(|_| anyhow!("a look panicked"))?;
            let times = |role| heard.iter().filter(|(of, _)| *of == role).count();
            let least = Role::MESH.into_iter().map(times).min();
            Ok(Seen::when(least >= Some(3), least))
        })
        .await?;
        // All that was reported is one status per proxy and second, not one per worker.
        let after = api.metric("kaeru_reports_stored_total").await?;
        let seconds = begun.elapsed().as_secs() + 2;
        let per_proxy = (after - before).div_ceil(4);
        assert!(
            per_proxy <= seconds,
            "{per_proxy} reports per proxy in {seconds} s"
        );
        Ok(())
    })
}
