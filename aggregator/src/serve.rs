//! `kaeru serve`: starts the parts in order and stops them in the reverse order.

use std::io::{self, IsTerminal};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt as _;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing_subscriber::EnvFilter;

use crate::app::{App, Parts};
use crate::clock::{self, timestamp};
use crate::config::{self, LogFormat, Serve};
use crate::embedded::{self, Cluster};
use crate::http;
use crate::ingest;
use crate::ops;
use crate::store::{self, SchemaError, Store, excesses};
use crate::tick::Tick;

/// How long requests in work may take to end after we were told to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// How long to wait before a database that does not answer is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Why `kaeru serve` ended.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Embedded(#[from] embedded::Error),
    #[error("the database URL cannot be read")]
    DatabaseUrl(#[source] sqlx::Error),
    #[error("the embedded database cannot be used")]
    Database(#[source] sqlx::Error),
    #[error(transparent)]
    Schema(SchemaError),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error("{address} cannot be listened on")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("metrics cannot be registered")]
    Metrics(#[from] prometheus::Error),
    #[error("the runtime failed")]
    Runtime(#[from] io::Error),
}

impl Error {
    /// Whether it may pass by itself.
    fn is_passing(&self) -> bool {
        match self {
            Self::Schema(error) => error.is_passing(),
            Self::Store(store::Error::Unavailable(_)) => true,
            _ => false,
        }
    }
}

/// Runs until SIGTERM or SIGINT.
pub fn run(config: Serve) -> ExitCode {
    log(config.log_format);
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::from)
        .and_then(|runtime| runtime.block_on(serve(config)));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{}", in_full(&error));
            ExitCode::FAILURE
        }
    }
}

fn log(format: LogFormat) {
    let filter = config::log_filter();
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().init(),
    }
}

async fn serve(config: Serve) -> Result<(), Error> {
    let mut told_to_stop = stop_signal()?;
    let cluster = match &config.database_url {
        Some(_) => None,
        None => Some(Arc::new(Cluster::start(&config.data_dir, true).await?)),
    };
    let outcome = tokio::select! {
        outcome = with_cluster(config, cluster.clone(), told_to_stop.clone()) => outcome,
        // Told to stop before everything ran: nothing is open yet.
        () = async {
            let _ = told_to_stop.wait_for(|stop| *stop).await;
            tokio::time::sleep(STOP_TIMEOUT * 2).await;
        } => Ok(()),
    };
    if let Some(cluster) = cluster {
        cluster.stop().await?;
    }
    outcome
}

async fn with_cluster(
    config: Serve,
    cluster: Option<Arc<Cluster>>,
    told_to_stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let options = match (&cluster, &config.database_url) {
        (Some(cluster), _) => cluster.database().await.map_err(Error::Database)?,
        (None, url) => PgConnectOptions::from_str(url.as_deref().unwrap_or_default())
            .map_err(Error::DatabaseUrl)?,
    };
    let (listen, ops_listen) = (config.listen, config.ops_listen);
    let parts = Arc::new(Parts::new(config, Store::new(options))?);
    let ops_listener = bind(ops_listen).await?;
    let ops_address = ops_listener.local_addr()?;
    let started = watch::Sender::new(false);
    let ops = ops::router(ops::Ops {
        store: parts.store.clone(),
        metrics: parts.metrics.clone(),
        pulse: parts.pulse.clone(),
        started: started.subscribe(),
    });
    let ops = tokio::spawn(async move { axum::serve(ops_listener, ops).await });
    let workers = started_on(&parts, cluster).await?;
    let listener = bind(listen).await?;
    let address = listener.local_addr()?;
    let app = App::new(parts.clone(), workers.ingest.clone(), told_to_stop.clone());
    started.send_replace(true);
    tracing::info!(api = %address, ops = %ops_address, "ready");
    api(listener, http::router(app), told_to_stop).await?;
    started.send_replace(false);
    workers.stop(&parts).await;
    ops.abort();
    tracing::info!("stopped");
    Ok(())
}

/// Answers requests until it is told to stop, and those in work to their end.
async fn api(
    listener: TcpListener,
    routes: axum::Router,
    mut told_to_stop: watch::Receiver<bool>,
) -> Result<(), Error> {
    let mut stop = told_to_stop.clone();
    // An answer is small and leaves at once, whatever was not acknowledged yet.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let serving = axum::serve(listener, routes).with_graceful_shutdown(async move {
        let _ = stop.wait_for(|stop| *stop).await;
    });
    tokio::select! {
        outcome = serving => Ok(outcome?),
        () = async {
            let _ = told_to_stop.wait_for(|stop| *stop).await;
            tokio::time::sleep(STOP_TIMEOUT).await;
        } => {
            tracing::warn!("some requests did not end in time");
            Ok(())
        }
    }
}

/// The tasks beside the API.
struct Workers {
    ingest: ingest::Ingest,
    committer: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

impl Workers {
    async fn start(parts: &Arc<Parts>, cluster: Option<Arc<Cluster>>) -> Result<Self, Error> {
        let mut tick = Tick::new(parts.clone(), cluster);
        tick.tick(false).await?;
        tick.make_days(timestamp(clock::now_ms())).await?;
        let mut connection = parts.store.connection().await?;
        excesses::count(&mut connection, &parts.census).await?;
        drop(connection);
        parts.feed.refresh(&parts.store, &parts.metrics).await?;
        let (ingest, committer) = ingest::start(parts.clone());
        let decider = parts.clone();
        let feed = parts.clone();
        Ok(Self {
            ingest,
            committer: tokio::spawn(committer),
            others: vec![
                tokio::spawn(tick.work()),
                tokio::spawn(async move { decider.decider.work().await }),
                tokio::spawn(async move { feed.feed.follow(&feed.store, &feed.metrics).await }),
            ],
        })
    }

    /// Ends them: what waits for its commit is committed first.
    async fn stop(self, parts: &Parts) {
        drop(self.ingest);
        if tokio::time::timeout(STOP_TIMEOUT, self.committer)
            .await
            .is_err()
        {
            tracing::warn!(
                "some reports were not committed in time; their senders send them again"
            );
        }
        for worker in self.others {
            // What a worker was doing is rolled back; it stands in the store and is done by the next.
            worker.abort();
        }
        if let Err(error) = parts.pulse.leave(&parts.store, clock::now_ms()).await {
            parts.metrics.store_failed(&error, "saying goodbye");
        }
        parts.store.close().await;
    }
}

/// Brings the schema up to date and starts the workers; waits for a database that does not answer yet, or no more.
async fn started_on(parts: &Arc<Parts>, cluster: Option<Arc<Cluster>>) -> Result<Workers, Error> {
    loop {
        let outcome = match parts.store.migrate().await {
            Ok(()) => Workers::start(parts, cluster.clone()).await,
            Err(error) => Err(Error::Schema(error)),
        };
        match outcome {
            Err(error) if error.is_passing() => {
                tracing::warn!("the database does not answer yet: {}", in_full(&error));
                tokio::time::sleep(RETRY).await;
            }
            outcome => return outcome,
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })
}

/// Becomes true on SIGTERM or SIGINT.
fn stop_signal() -> io::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("told to stop");
        sender.send_replace(true);
        sender.closed().await;
    });
    Ok(receiver)
}

/// An error with everything that caused it.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        words.push_str(": ");
        words.push_str(&cause.to_string());
        source = cause.source();
    }
    words
}
