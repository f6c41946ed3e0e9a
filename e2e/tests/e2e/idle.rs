//! Scenario 7: a proxy states its service's status, idle or not, once and not per worker.

use std::collections::BTreeSet;
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow};
use kaeru_e2e::shop::Role;
use kaeru_e2e::wait::{self, Seen};
use kaeru_e2e::world::World;

use crate::stage::{plan, play};

#[test]
fn an_idle_proxy_states_its_status_once_an_interval() -> Result<()> {
    play(async {
        // Nobody sends anything.
        let world = World::start(plan("idle")).await?;
        let api = world.api()?;
        for role in Role::MESH {
            let heard = Mutex::new(BTreeSet::new());
            let what = format!("three statuses of {}", role.name());
            let proxies = wait::until(&what, || async {
                let service = api.service(&role.peer()).await?;
                let proxies = service.context("never heard of")?.proxies;
                let mut heard = heard.lock().map_err(|_| anyhow!("a look panicked"))?;
                heard.extend(proxies.iter().map(|p| p.last_heard.clone()));
                Ok(Seen::when(heard.len() >= 3, proxies))
            });
            let proxies = proxies.await?;
            assert_eq!(
                proxies.len(),
                1,
                "one proxy, not one per worker: {proxies:#?}"
            );
            let proxy = &proxies[0];
            assert_eq!(proxy.proxy, world.sidecar(role)?.sidecar.node_id());
            assert_eq!(
                (proxy.in_flight, proxy.out_of_touch),
                (0, false),
                "{proxy:#?}"
            );
        }
        Ok(())
    })
}
