//! What Kaeru knows, in Postgres: one file per entity, SQL in place. Functions take a connection, so that a
//! caller can join them in one transaction.

pub(crate) mod aggregators;
pub(crate) mod breakers;
pub(crate) mod calls;
pub(crate) mod days;
pub(crate) mod decisions;
pub(crate) mod events;
pub(crate) mod excesses;
pub(crate) mod facts;
pub(crate) mod feed;
pub(crate) mod flow_pages;
pub(crate) mod flows;
pub(crate) mod history;
pub(crate) mod intake;
pub(crate) mod losses;
pub(crate) mod pages;
pub(crate) mod policies;
pub(crate) mod reporters;
pub(crate) mod reports;
mod schema;
pub(crate) mod services;
pub(crate) mod surroundings;

use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection as _, PgPool, Postgres, Transaction};
use tokio::time::timeout;

pub(crate) use schema::Error as SchemaError;

/// Connections at once of our own work: one each for the committer, the decider, the feed, its listener and the tick, and
/// one for an operator's demand or a change of the policy in between.
const OWN_CONNECTIONS_MAX: u32 = 8;
/// Connections at once for who asks. Postgres allows 100 by default, so four aggregators fit.
const CONNECTIONS_MAX: u32 = 12;
/// How long a request waits for a connection before it is told to come again.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that was in use so lately need not be asked whether it is alive, ms: a Postgres that is gone in between is an
/// outage anyhow.
const RECENT_MS: u64 = 1_000;

/// How long work on the store may take: longer than any statement may, so that a connection whose other end is
/// gone without a word (a failover) holds nobody up.
const PATIENCE: Duration = Duration::from_secs(15);

/// The database.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    own: PgPool,
    pool: PgPool,
}

/// A connection that a worker keeps from one transaction to the next: it need not be asked each time whether it is alive, and its
/// statements stay prepared.
#[derive(Debug, Default)]
pub(crate) struct Kept(Option<(PoolConnection<Postgres>, u64)>);

impl Kept {
    /// Takes it, or another one where there is none or it may be broken.
    pub(crate) async fn take(
        &mut self,
        store: &Store,
        now_ms: u64,
    ) -> Result<PoolConnection<Postgres>> {
        if let Some((mut kept, used_ms)) = self.0.take() {
            let is_recent = now_ms.abs_diff(used_ms) < RECENT_MS;
            if is_recent || matches!(timeout(ACQUIRE_TIMEOUT, kept.ping()).await, Ok(Ok(()))) {
                return Ok(kept);
            }
        }
        Ok(store.own.acquire().await?)
    }

    /// Keeps it.
    pub(crate) fn keep(&mut self, connection: PoolConnection<Postgres>, now_ms: u64) {
        self.0 = Some((connection, now_ms));
    }
}

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It cannot be reached, or is not able to work now: worth another try.
    #[error("the store is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// It answered with something that is our fault.
    #[error("the store refused a statement")]
    Statement(#[source] sqlx::Error),
    /// It holds something that this version cannot read.
    #[error("the store holds {what} that cannot be read: {why}")]
    Unreadable {
        /// What kind of thing.
        what: &'static str,
        /// Which, and why.
        why: String,
    },
}

/// The result of asking the store.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Store {
    /// A store that connects when it is first asked.
    pub(crate) fn new(options: PgConnectOptions) -> Self {
        // A statement that waits longer than this is part of an outage: its sender comes again.
        let options = options.application_name("kaeru").options([
            ("lock_timeout", "5s"),
            ("statement_timeout", "10s"),
            ("idle_in_transaction_session_timeout", "30s"),
            // No statement runs long enough to be worth compiling, or a second process: starting one takes 10 ms.
            ("jit", "off"),
            ("max_parallel_workers_per_gather", "0"),
        ]);
        // Our own statements are few, and written for their indexes: a plan is made once, and uses them though the table was
        // small then, or without statistics. Without this, a statement about 500 events reads all that there are.
        let own = (options.clone()).options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
        ]);
        let pool = |options, connections| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
                .connect_lazy_with(options)
        };
        Self {
            own: pool(own, OWN_CONNECTIONS_MAX),
            pool: pool(options, CONNECTIONS_MAX),
        }
    }

    /// Brings the schema to this version's.
    pub(crate) async fn migrate(&self) -> std::result::Result<(), SchemaError> {
        schema::migrate(&self.own).await
    }

    /// Connections for our own work.
    pub(crate) fn own(&self) -> &PgPool {
        &self.own
    }

    /// Connections for reads.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// A transaction; each of its statements sees what was committed when it began.
    pub(crate) async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        Ok(self.own.begin().await?)
    }

    /// A connection for reads.
    pub(crate) async fn connection(&self) -> Result<PoolConnection<Postgres>> {
        Ok(self.pool.acquire().await?)
    }

    /// A transaction that reads what is asked for by name, and whose statements all see one moment.
    pub(crate) async fn snapshot(&self) -> Result<Transaction<'static, Postgres>> {
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
             SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off";
        Ok(self.pool.begin_with(begin).await?)
    }

    /// Whether the database answers.
    pub(crate) async fn ping(&self) -> Result<()> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Closes all connections.
    pub(crate) async fn close(&self) {
        self.own.close().await;
        self.pool.close().await;
    }
}

/// Does work on the store, but not for ever.
pub(crate) async fn patiently<T, E: From<Error>>(
    work: impl Future<Output = std::result::Result<T, E>>,
) -> std::result::Result<T, E> {
    match timeout(PATIENCE, work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Error::Unavailable(sqlx::Error::PoolTimedOut).into()),
    }
}

impl Error {
    /// What could not be read.
    pub(crate) fn unreadable(what: &'static str, why: impl std::fmt::Display) -> Self {
        Self::Unreadable {
            what,
            why: why.to_string(),
        }
    }
}

impl Error {
    /// Whether two transactions met, of which this one had to give way.
    pub(crate) fn is_collision(&self) -> bool {
        let Self::Unavailable(sqlx::Error::Database(told)) = self else {
            return false;
        };
        told.code().is_some_and(|code| code.starts_with("40"))
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if is_passing(&error) {
            Self::Unavailable(error)
        } else {
            Self::Statement(error)
        }
    }
}

/// Whether the error is one of being away or busy, and passes by itself. By SQLSTATE: connection (08), transaction
/// rollback (40), resources (53), a lock that was not got or recovery (55), operator intervention (57), system
/// error (58), read-only after a failover (25006).
fn is_passing(error: &sqlx::Error) -> bool {
    use sqlx::Error as E;
    match error {
        E::Io(_)
        | E::Tls(_)
        | E::Protocol(_)
        | E::PoolTimedOut
        | E::PoolClosed
        | E::WorkerCrashed => true,
        E::Database(told) => told.code().is_some_and(|code| {
            ["08", "40", "53", "55", "57", "58", "25006"]
                .iter()
                .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}
