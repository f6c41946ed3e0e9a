//! The schema: migrations that stand in the binary and only grow.

use sqlx::PgPool;
use sqlx::migrate::{MigrateError, Migrator};

static MIGRATIONS: Migrator = sqlx::migrate!("./migrations");

/// Why the schema cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A later Kaeru was here.
    #[error(
        "the database's schema (version {found}) is newer than this Kaeru's (version {known}); start a Kaeru \
         at least as new as the one that wrote it"
    )]
    Newer {
        /// Of the database.
        found: i64,
        /// Of this binary.
        known: i64,
    },
    /// A migration failed, or the database could not be reached.
    #[error("the schema could not be brought up to date")]
    Migration(#[from] MigrateError),
}

/// Brings the schema up to date; aggregators that start together take turns.
pub(super) async fn migrate(pool: &PgPool) -> Result<(), Error> {
    let known = MIGRATIONS.iter().map(|m| m.version).max().unwrap_or(0);
    match MIGRATIONS.run(pool).await {
        Err(MigrateError::VersionMissing(found)) if found > known => {
            Err(Error::Newer { found, known })
        }
        outcome => Ok(outcome?),
    }
}

impl Error {
    /// Whether it may pass by itself.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Newer { .. } => false,
            Self::Migration(
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
            ) => super::is_passing(error),
            Self::Migration(_) => false,
        }
    }
}
