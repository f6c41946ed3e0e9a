//! Real proxies over an aggregator whose database can be asked: which of their reports are stored, and which are counted
//! as lost.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use kaeru_e2e::config::Parts;
use kaeru_e2e::graph::{Graph, Plan};
use kaeru_e2e::postgres::Postgres;
use kaeru_e2e::wait::{self, Seen};
use serde_json::json;

/// Looks 20 ms apart: longer than three leases of a leader.
const LOOKS_IN_A_ROW: u32 = 150;

/// A graph, and its database. They stop in this order.
#[derive(Debug)]
pub(crate) struct Proxies {
    pub(crate) graph: Graph,
    pub(crate) postgres: Postgres,
}

/// What became of the reports of all reporters.
#[derive(Debug, Default)]
pub(crate) struct Account {
    pub(crate) reporters: usize,
    /// Of them, those that died with their whole proxy.
    pub(crate) killed: usize,
    pub(crate) given: u64,
    pub(crate) stored: u64,
    /// By service.
    pub(crate) lost: BTreeMap<String, u64>,
}

/// Proxies that anyone may choose ids at, with quick intervals.
pub(crate) fn plan(name: &str) -> Plan {
    Plan {
        name: name.into(),
        policy: "mode: enforce\ndoomed_max: 100%\n".into(),
        filter: json!({ "status_interval_s": 1, "trust_plaintext": true }),
        ..Plan::default()
    }
}

impl Proxies {
    pub(crate) async fn start(mut plan: Plan) -> Result<Self> {
        let folder = Parts::find()?.folder;
        let folder = folder.join(format!("{}-break-{}", std::process::id(), plan.name));
        let postgres = Postgres::start(&folder.join("postgres"), &folder).await?;
        plan.database = Some(postgres.url());
        let graph = Graph::start(plan).await?;
        Ok(Self { graph, postgres })
    }

    /// See [`account_for_all`].
    pub(crate) async fn account_for_all(&self) -> Result<Account> {
        account_for_all(&self.postgres).await
    }

    /// Waits until each proxy polls once, and goes on to: between two polls of two leaders there is one for a moment.
    pub(crate) async fn one_leads(&self) -> Result<()> {
        let proxies: u64 = (self.postgres.query("SELECT count(*) FROM proxies")?).parse()?;
        let api = self.graph.api()?;
        let in_a_row = AtomicU32::new(0);
        wait::within(Duration::from_mins(2), "one poll of each proxy", || async {
            let polls = api.metric("kaeru_polls").await?;
            let looks = if polls == proxies {
                in_a_row.fetch_add(1, Ordering::Relaxed)
            } else {
                in_a_row.store(0, Ordering::Relaxed);
                0
            };
            Ok(Seen::when(looks >= LOOKS_IN_A_ROW, (polls, looks)))
        })
        .await
        .map(drop)
    }
}

/// Waits until every report that any VM gave out is stored or counted as lost, none as both, and what a VM held whose whole
/// proxy was killed, which nobody can count, is told as a time in which something may be missing.
pub(crate) async fn account_for_all(postgres: &Postgres) -> Result<Account> {
    // By a status stated from now on, when what has just ended is given out.
    let since = postgres.query("SELECT clock_timestamp() + interval '1 s'")?;
    let by_reporter = format!(
        "SELECT service, gone_at IS NOT NULL, marked_at > '{since}', marked_seq, stored, lost, told FROM reporters r,
        LATERAL (SELECT count(*) stored FROM reports WHERE reporter = r.id AND seq <= marked_seq) s,
        LATERAL (SELECT coalesce(sum(lost), 0) lost, count(*) told FROM losses WHERE reporter = r.id) l"
    );
    // A dead VM is known to be dead after 10 s, and what it held is counted two statuses later; what waits in a back-off
    // comes after half a minute.
    let within = Duration::from_mins(2);
    wait::within(within, "all reports accounted for", || async {
        let mut account = Account::default();
        let mut open = Vec::new();
        for line in postgres.query(&by_reporter)?.lines() {
            let fields: Vec<&str> = line.split('|').collect();
            let [service, gone, marked, given, stored, lost, told] = fields[..] else {
                bail!("{line}");
            };
            let (given, stored): (u64, u64) = (given.parse()?, stored.parse()?);
            let (lost, told): (u64, u64) = (lost.parse()?, told.parse()?);
            let is_told = if gone == "t" {
                told > 0
            } else {
                marked == "t" && given == stored + lost
            };
            if !is_told {
                open.push(line.to_owned());
            }
            account.killed += usize::from(gone == "t");
            account.reporters += 1;
            account.given += given;
            account.stored += stored;
            *account.lost.entry(service.to_owned()).or_default() += lost;
        }
        Ok(if open.is_empty() {
            Seen::Yes(account)
        } else {
            Seen::NotYet(format!(
                "service, gone, marked, given, stored, lost, told: {open:#?}"
            ))
        })
    })
    .await
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reporters, killed) = (self.reporters, self.killed);
        let (given, stored) = (self.given, self.stored);
        let lost: u64 = self.lost.values().sum();
        write!(
            f,
            "{given} reports of {reporters} VMs ({killed} killed with their proxy): {stored} stored, {lost} counted as lost"
        )
    }
}
