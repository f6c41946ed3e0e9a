//! What processes and connections of a shop have cost so far: CPU by the kernel's accounting, bytes by Envoy's counters of
//! each cluster (without what TLS adds).

use std::time::Duration;

use anyhow::{Result, ensure};
use kaeru_e2e::envoy::Envoy;
use kaeru_e2e::shop::Role;
use kaeru_e2e::world::KAERU_PORT;

use super::Shop;
use crate::process;

/// Of an order that succeeds: four services, two of them twice, and the payment as its caller saw it.
const REPORTS: f64 = 7.0;

/// As of a moment.
#[derive(Debug, Default)]
pub(super) struct Meters {
    services: Duration,
    proxies: Duration,
    kaeru: Duration,
    between: u64,
    told: u64,
    heard: u64,
    /// Reports: acknowledged to the proxies, lost by them.
    reports: u64,
    lost: u64,
}

/// Of one order in the mean.
#[derive(Debug)]
pub(super) struct Cost {
    pub(super) services_ms: f64,
    pub(super) proxies_ms: f64,
    /// The aggregator and its Postgres.
    pub(super) kaeru_ms: f64,
    /// Bytes of requests and answers from proxy to proxy and to what lies outside the mesh.
    pub(super) between: f64,
    /// Bytes from proxies to the aggregator.
    pub(super) told: f64,
    /// Bytes back.
    pub(super) heard: f64,
}

impl Meters {
    pub(super) async fn read(shop: &Shop) -> Result<Self> {
        let mut read = Self::default();
        for role in Role::ALL {
            read.services += process::fine_cpu(shop.world.service_pid(role)?)?;
        }
        for role in Role::MESH {
            let proxy = shop.world.sidecar(role)?;
            read.proxies += process::fine_cpu(proxy.pid())?;
            read.told += bytes(proxy, &KAERU_PORT.to_string(), "tx").await?;
            read.heard += bytes(proxy, &KAERU_PORT.to_string(), "rx").await?;
            read.between += bytes(proxy, "(80|8080)", "[tr]x").await?;
            read.reports += proxy
                .stat("wasmcustom.kaeru_reports_delivered_total")
                .await?;
            read.lost += proxy.stat("wasmcustom.kaeru_reports_dropped_total").await?;
        }
        for pid in shop.kaeru.into_iter().flatten() {
            read.kaeru += process::tree_cpu(pid)?;
        }
        Ok(read)
    }

    /// What so many orders cost in between, where at least as many were told of as succeeded.
    pub(super) fn until(&self, now: &Self, orders: f64, succeeded: f64) -> Result<Cost> {
        ensure!(now.lost == 0, "proxies lost {} reports", now.lost);
        let told = (now.reports - self.reports) as f64;
        ensure!(
            now.told == 0 || told >= succeeded * REPORTS,
            "{told} reports of {succeeded} orders"
        );
        let ms =
            |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e3 / orders;
        let bytes = |from: u64, to: u64| (to - from) as f64 / orders;
        Ok(Cost {
            services_ms: ms(self.services, now.services),
            proxies_ms: ms(self.proxies, now.proxies),
            kaeru_ms: ms(self.kaeru, now.kaeru),
            between: bytes(self.between, now.between),
            told: bytes(self.told, now.told),
            heard: bytes(self.heard, now.heard),
        })
    }
}

/// Bytes of a proxy's connections to hosts at these ports.
async fn bytes(proxy: &Envoy, ports: &str, direction: &str) -> Result<u64> {
    let names = format!(r"^cluster\.outbound\|{ports}\|\|.*\.upstream_cx_{direction}_bytes_total$");
    proxy.stats(&names).await
}
