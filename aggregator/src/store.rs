//! What Kaeru knows, in Postgres: one file per entity, SQL in place.

use sqlx::PgPool;

/// The database.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    pool: PgPool,
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
}

/// The result of asking the store.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Store {
    /// Connections for reads.
    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        match &error {
            E::Io(_) | E::Tls(_) | E::PoolTimedOut | E::PoolClosed | E::WorkerCrashed => {
                Self::Unavailable(error)
            }
            E::Database(told) if told.code().is_some_and(|code| is_transient(&code)) => {
                Self::Unavailable(error)
            }
            _ => Self::Statement(error),
        }
    }
}

/// Classes of SQLSTATE that pass by themselves: connection (08), transaction rollback (40), resources (53),
/// operator intervention (57), system error (58), read-only after a failover (25006).
fn is_transient(code: &str) -> bool {
    ["08", "40", "53", "57", "58"]
        .iter()
        .any(|class| code.starts_with(class))
        || code == "25006"
}
