//! What tests share: one private Postgres for the whole test binary, a database for each test, aggregators over
//! it, and reports in short.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use clap::Parser as _;
use kaeru_protocol::{
    Call, EventReport, Kind, Receipt, Report, Reporter, ReporterId, ServiceName, Word,
};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use tokio::sync::watch;

use crate::app::{App, Parts};
use crate::clock;
use crate::config::{Cli, Serve};
use crate::embedded::Cluster;
use crate::ingest::{self, Batch, Fault};
use crate::store::Store;
use crate::store::reporters::Sender;
use crate::tick::Tick;

/// A database that is copied for each test.
const TEMPLATE: &str = "template_kaeru";

static CLUSTER: OnceLock<Cluster> = OnceLock::new();
static STOPPING: OnceLock<watch::Sender<bool>> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

fn place(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("kaeru-{name}-{}", std::process::id()))
}

/// A folder that is removed when the test process ends, however it ends, after `first` was run in a shell.
pub(crate) fn folder(name: &str, first: &str) -> PathBuf {
    let folder = place(name);
    std::fs::create_dir_all(&folder).unwrap();
    // The pipe closes with us; the shell then cleans up.
    let keeper = Command::new("sh")
        .args(["-c", &format!("read -r _; {first}; rm -rf \"$0\"")])
        .arg(&folder)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    std::mem::forget(keeper);
    folder
}

/// Stops a Postgres in `$0/postgres` at once, and waits until it is gone.
pub(crate) const STOP_POSTGRES: &str = "pid=$(head -1 \"$0/postgres/postmaster.pid\" 2>/dev/null) \
     && kill -QUIT $pid && while kill -0 $pid 2>/dev/null; do sleep 0.05; done";

fn cluster() -> &'static Cluster {
    CLUSTER.get_or_init(|| {
        // The test that comes first may not block its own runtime on itself.
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let cluster = Cluster::start(&folder("tests", STOP_POSTGRES), false)
                    .await
                    .unwrap();
                execute(
                    &cluster.options("postgres"),
                    &format!("CREATE DATABASE {TEMPLATE}"),
                )
                .await;
                let store = Store::new(cluster.options(TEMPLATE));
                store.migrate().await.unwrap();
                store.close().await;
                cluster
            })
        })
        .join()
        .unwrap()
    })
}

async fn execute(options: &PgConnectOptions, statement: &str) {
    let mut connection = options.clone().connect().await.unwrap();
    sqlx::query(AssertSqlSafe(statement))
        .execute(&mut connection)
        .await
        .unwrap();
}

/// How to connect to a database of its own, with our schema and nothing in it.
pub(crate) async fn database() -> PgConnectOptions {
    let name = format!("t{}", DATABASES.fetch_add(1, Ordering::Relaxed));
    let create = format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}");
    execute(&cluster().options("postgres"), &create).await;
    cluster().options(&name)
}

/// The settings that the command line `kaeru serve <arguments>` makes.
pub(crate) fn settings(arguments: &[&str]) -> Serve {
    let line = ["kaeru", "serve"].iter().chain(arguments);
    match Cli::try_parse_from(line).unwrap().command {
        crate::config::Command::Serve(settings) => settings,
        crate::config::Command::Policy(_) => unreachable!("the line says serve"),
    }
}

/// An aggregator over a store, able to take reports if the store answers; it decides and follows the feed only when
/// a test makes it.
pub(crate) fn app_with(store: Store, arguments: &[&str]) -> App {
    let parts = Arc::new(Parts::new(settings(arguments), store).unwrap());
    let (ingest, committer) = ingest::start(parts.clone());
    tokio::spawn(committer);
    let stopping = STOPPING.get_or_init(|| watch::Sender::new(false));
    App::new(parts, ingest, stopping.subscribe())
}

/// An aggregator over a store with the default settings.
pub(crate) fn app_over(store: Store) -> App {
    app_with(store, &[])
}

/// An aggregator over a database of its own, that has said that it is alive.
pub(crate) async fn app() -> App {
    let app = app_over(Store::new(database().await));
    beat(&app).await;
    app
}

/// An aggregator as [`app`] makes it, whose statements Postgres writes down.
pub(crate) async fn app_written_down() -> App {
    let options = database().await;
    let name = options.get_database().unwrap();
    execute(
        &options,
        &format!("ALTER DATABASE {name} SET log_statement = 'all'"),
    )
    .await;
    let app = app_over(Store::new(options));
    beat(&app).await;
    app
}

/// What Postgres wrote down of this aggregator's statements, their first lines: a line here was a round trip there.
pub(crate) async fn statements(app: &App) -> Vec<String> {
    let pids: Vec<i32> =
        sqlx::query_scalar("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")
            .fetch_all(app.store.pool())
            .await
            .unwrap();
    let of_ours = |line: &&str| {
        pids.iter()
            .any(|pid| line.contains(&format!("[{pid}] LOG: ")))
    };
    let log = std::fs::read_to_string(place("tests").join("postgres/kaeru.log")).unwrap();
    let said = |line: &str| Some(line.split_once("LOG: ")?.1.trim().to_owned());
    log.lines().filter(of_ours).filter_map(said).collect()
}

/// Says that an aggregator is alive, and reads the feed.
pub(crate) async fn beat(app: &App) {
    Tick::new(app.parts(), None).tick(false).await.unwrap();
    app.feed.refresh(&app.store, &app.metrics).await.unwrap();
}

/// A reporter beside a service.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) reporter: Reporter,
    /// How far its clock is behind ours, ms.
    pub(crate) clock_behind_ms: u64,
    seq: u64,
}

/// A report in short: kind, event, and what a test adds.
pub(crate) fn report(event: &str, kind: Kind) -> EventReport {
    let mut report = EventReport::new(event.parse().unwrap(), kind);
    report.call = Arc::new(Call {
        method: "POST".into(),
        path: "/orders".into(),
        ..Call::default()
    });
    report
}

/// An attempt that ended with this status, called by `from`.
pub(crate) fn attempt(event: &str, from: Option<&str>, status: u16) -> EventReport {
    let mut report = report(event, Kind::Attempt);
    report.call_mut().from = from.map(|from| from.parse().unwrap());
    report.ending.status = Some(status);
    report
}

/// An attempt whose service said that the event failed.
pub(crate) fn failed(event: &str, from: Option<&str>) -> EventReport {
    let mut report = attempt(event, from, 200);
    report.ending.word = Some(Word::Failed);
    report
}

impl Side {
    /// The reporter of this number beside a service.
    pub(crate) fn new(id: u64, service: &str) -> Self {
        let service: ServiceName = service.parse().unwrap();
        let reporter = Reporter {
            id: ReporterId(id),
            proxy: format!("proxy-{id}").into(),
            service,
            gateway: false,
        };
        Self {
            reporter,
            clock_behind_ms: 0,
            seq: 0,
        }
    }

    /// A report under this reporter's next sequence.
    pub(crate) fn next(&mut self, report: EventReport) -> Report {
        self.body(kaeru_protocol::Body::Event(Box::new(report)))
    }

    /// Any body under this reporter's next sequence.
    pub(crate) fn body(&mut self, body: kaeru_protocol::Body) -> Report {
        self.seq += 1;
        Report {
            seq: self.seq,
            at_ms: self.now_ms(),
            body,
        }
    }

    fn now_ms(&self) -> u64 {
        clock::now_ms() - self.clock_behind_ms
    }

    /// A batch of these reports.
    pub(crate) fn batch(&self, reports: Vec<Report>) -> Batch {
        Batch {
            sender: Sender {
                reporter: self.reporter.clone(),
                is_proxy: true,
            },
            sent_ms: self.now_ms(),
            reports,
            rejected: Vec::new(),
        }
    }

    /// States one report.
    pub(crate) async fn state(&mut self, app: &App, report: EventReport) -> Result<Receipt, Fault> {
        let report = self.next(report);
        app.ingest.store(self.batch(vec![report])).await
    }
}

/// One number out of the database.
pub(crate) async fn number(app: &App, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(app.store.pool())
        .await
        .unwrap()
}
