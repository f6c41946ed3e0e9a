//! Filling the store: the seed, and its copies over the days that are kept.

use std::time::Duration;

use anyhow::Result;
use kaeru_e2e::aggregator::Aggregator;
use kaeru_e2e::postgres::Postgres;
use kaeru_e2e::wait::{self, Seen};

use super::seed;
use crate::talk::Talk;
use crate::{paper, sql};

/// Today and the days that are kept before it, by default.
pub(super) const DAYS: u64 = 8;
const MULTIPLY: &str = include_str!("multiply.sql");
/// Reports of one copy.
const COPY: u64 = seed::EVENTS * seed::STEPS;

/// How full the store is.
pub(super) struct Fill {
    copies: u64,
}

impl Fill {
    /// The seed through HTTP, looked at and at rest.
    pub(super) async fn seed(aggregator: &Aggregator, postgres: &Postgres) -> Result<Self> {
        let mut talk = Talk::with(aggregator.settings.listen).await?;
        seed::state(&mut talk).await?;
        wait::within(Duration::from_mins(1), "every event at rest", || async {
            let restless = sql::ask(
                postgres,
                "SELECT (SELECT count(*) FROM intake WHERE news) || ' waiting, '
                     || (SELECT count(*) FROM events WHERE state = 'running') || ' running, '
                     || (SELECT count(*) FROM events) || ' in all'",
            )?;
            let rest = format!("0 waiting, 0 running, {} in all", seed::EVENTS);
            Ok(Seen::when(restless == rest, restless))
        })
        .await?;
        sql::ask(postgres, MULTIPLY)?;
        for day in 0..DAYS {
            sql::ask(postgres, &partition(day))?;
        }
        Ok(Self { copies: 0 })
    }

    /// Multiplies the seed until there are so many reports; each time over all days, the oldest first.
    pub(super) fn up_to(&mut self, postgres: &Postgres, reports: u64) -> Result<()> {
        let copies = (reports / COPY).saturating_sub(1).max(self.copies);
        let all = copies - self.copies;
        for place in 0..all {
            let day = DAYS - 1 - place * DAYS / all;
            let first = (DAYS - 1 - day) * all / DAYS;
            let of_day = (all / DAYS).max(1);
            // Within the day, and before now; not at the same moment as an earlier copy's.
            let share = ((place - first) as f64 + 0.5) / (of_day as f64 + 1.0);
            self.copies += 1;
            let moment = share + self.copies as f64 / 1e6;
            let call = format!("CALL seed.multiply({}, {day}, {moment})", self.copies);
            sql::ask(postgres, &call)?;
            if self.copies.is_multiple_of(10) {
                paper::progress(&format!("scale: filling: {} reports", self.reports()));
            }
        }
        // As autovacuum leaves a table at rest.
        sql::ask(postgres, "VACUUM (ANALYZE)")?;
        sql::ask(postgres, "CHECKPOINT")?;
        Ok(())
    }

    /// Reports of the seed and its copies.
    pub(super) fn reports(&self) -> u64 {
        (self.copies + 1) * COPY
    }
}

/// The partition of a day ago, as the aggregator makes it.
fn partition(days_ago: u64) -> String {
    format!(
        "DO $$
         DECLARE
             day date := (now() AT TIME ZONE 'UTC')::date - {days_ago};
             name text := to_char(day, '\"reports_\"YYYYMMDD');
         BEGIN
             IF to_regclass(name) IS NULL THEN
                 EXECUTE format('CREATE TABLE %I (LIKE reports INCLUDING DEFAULTS,
                     CONSTRAINT %I UNIQUE (reporter, seq))', name, name || '_once');
                 EXECUTE format('ALTER TABLE reports ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name,
                     day || ' 00:00:00+00', day + 1 || ' 00:00:00+00');
             END IF;
         END $$"
    )
}
