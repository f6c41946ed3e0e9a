//! The partitions of reports: one a UTC day, made when needed, dropped when retention is over.

use chrono::{DateTime, Days, NaiveDate, Utc};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::Result;

/// Held while a partition is made, so that aggregators take turns.
const LOCK: i64 = 0x6b61_6572_7501;

/// The UTC day of a time.
pub(crate) fn day_of(at: DateTime<Utc>) -> NaiveDate {
    at.date_naive()
}

/// The days whose reports are taken: those that retention keeps, today, and tomorrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    first: NaiveDate,
    last: NaiveDate,
}

impl Kept {
    /// As of `now`.
    pub(crate) fn new(now: DateTime<Utc>, retention_days: u16) -> Self {
        let today = day_of(now);
        Self {
            first: today - Days::new(retention_days.into()),
            last: today + Days::new(1),
        }
    }

    /// The first of them.
    pub(crate) fn first_day(self) -> NaiveDate {
        self.first
    }

    /// Why a report of this day is not taken, if it is not.
    pub(crate) fn refuse(self, day: NaiveDate) -> Option<&'static str> {
        if day < self.first {
            Some("its day is no longer kept")
        } else if day > self.last {
            Some("its day is more than a day ahead")
        } else {
            None
        }
    }
}

/// Makes the partition of a day unless it is there.
pub(crate) async fn make(pool: &PgPool, day: NaiveDate) -> Result<()> {
    let name = name_of(day);
    let next = day + Days::new(1);
    let mut transaction = pool.begin().await?;
    sqlx::query("SELECT pg_advisory_xact_lock($1)")
        .bind(LOCK)
        .execute(&mut *transaction)
        .await?;
    let exists: bool = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(&name)
        .fetch_one(&mut *transaction)
        .await?;
    if !exists {
        // Made beside and attached: attaching does not stop those who write to other days.
        for statement in [
            format!(
                "CREATE TABLE {name} (LIKE reports INCLUDING DEFAULTS,
                     CONSTRAINT {name}_once UNIQUE (reporter, seq))"
            ),
            format!(
                "ALTER TABLE reports ATTACH PARTITION {name}
                     FOR VALUES FROM ('{day} 00:00:00+00') TO ('{next} 00:00:00+00')"
            ),
        ] {
            sqlx::query(AssertSqlSafe(statement))
                .execute(&mut *transaction)
                .await?;
        }
    }
    transaction.commit().await?;
    Ok(())
}

/// Drops the partitions of days that are no longer kept; says which.
pub(crate) async fn drop_old(connection: &mut PgConnection, kept: Kept) -> Result<Vec<NaiveDate>> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'reports'::regclass ORDER BY c.relname",
    )
    .fetch_all(&mut *connection)
    .await?;
    let old: Vec<NaiveDate> = names
        .iter()
        .filter_map(|name| day_in(name))
        .filter(|day| *day < kept.first)
        .collect();
    for day in &old {
        sqlx::query(AssertSqlSafe(format!("DROP TABLE {}", name_of(*day))))
            .execute(&mut *connection)
            .await?;
    }
    Ok(old)
}

fn name_of(day: NaiveDate) -> String {
    day.format("reports_%Y%m%d").to_string()
}

fn day_in(name: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(name, "reports_%Y%m%d").ok()
}
