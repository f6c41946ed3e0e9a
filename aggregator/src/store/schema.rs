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
            Self::Migration(
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _),
            ) => super::is_passing(error),
            Self::Newer { .. } | Self::Migration(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error;
    use crate::store::Store;
    use crate::testing;

    #[tokio::test]
    async fn a_newer_schema_is_refused_in_words() {
        let store = Store::new(testing::database().await);
        store.migrate().await.unwrap();
        sqlx::query(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (9999, 'later', true, '', 0)",
        )
        .execute(store.pool())
        .await
        .unwrap();
        let refused = store.migrate().await.unwrap_err();
        assert!(matches!(refused, Error::Newer { found: 9999, .. }));
        assert!(
            refused
                .to_string()
                .contains("start a Kaeru at least as new"),
            "{refused}"
        );
        assert!(!refused.is_passing());
    }
}
