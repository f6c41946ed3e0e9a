//! The feed as the store keeps it: the newest verdict of each event, in the order of commits.

use chrono::{DateTime, Utc};
use kaeru_protocol::{EventId, EventType, Mode, Peer, Verdict, VerdictEntry};
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row as _};

use super::Result;
use super::decisions::{Stored, mode_of, mode_word};
use crate::clock::timestamp;

/// The channel on which a transaction that told something wakes the others, and says how far it told.
pub(crate) const CHANNEL: &str = "kaeru_feed";

/// A verdict to be told.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Telling {
    /// About which event.
    pub(crate) event: EventId,
    /// Of which type.
    pub(crate) event_type: Option<EventType>,
    /// By which decision.
    pub(crate) decision: String,
    /// What proxies may do.
    pub(crate) verdict: Verdict,
    /// How far they go.
    pub(crate) mode: Mode,
    /// Whose step failed.
    pub(crate) failed: Option<Peer>,
    /// Until when it is kept.
    pub(crate) expires_at: DateTime<Utc>,
}

/// A verdict as it was told.
#[derive(Debug, Clone, PartialEq, Eq, FromRow)]
pub struct Told {
    /// Its place in the feed.
    pub seq: i64,
    /// About which event.
    pub event: String,
    /// By which decision.
    pub decision: String,
    /// `proceed` or `roll_back`.
    pub verdict: String,
    /// `off`, `shadow` or `enforce`.
    pub mode: String,
    /// Whose step failed.
    pub failed: Option<String>,
    /// Until when it is kept.
    pub expires_at: DateTime<Utc>,
}

/// Where the feed stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Which history of the store this is: the store itself, the Postgres it lives in, its timeline, which a
    /// failover or a restore to a point in time changes, and its table, which a restore from a dump makes anew.
    pub epoch: String,
    /// The last sequence that was given.
    pub seq: i64,
}

/// What one transaction told; true once that is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Announced {
    /// Where the feed stands then.
    pub(crate) head: Head,
    /// What came last, in order, without a gap.
    pub(crate) told: Vec<Told>,
}

/// [`Head::epoch`] in SQL, in a statement over `store` and `pg_control_system()`.
macro_rules! epoch {
    () => {
        "id || '-' || to_hex(system_identifier) || '-'
             || ltrim(left(pg_walfile_name(pg_current_wal_insert_lsn()), 8), '0')
             || '-' || to_hex('store'::regclass::oid::bigint)"
    };
}

/// Where the feed stands, and what was told since it stood at `known`, in order: everything, where that was in another
/// history. The newest `rows_max` of it. One statement, since head and rows belong together.
pub(crate) async fn after(
    connection: &mut PgConnection,
    known: &Head,
    rows_max: usize,
) -> Result<(Head, Vec<Told>)> {
    let rows: Vec<(Head, Option<Told>)> = sqlx::query(concat!(
        "WITH head AS (SELECT ",
        epoch!(),
        " AS epoch, feed_seq FROM store, pg_control_system())
         SELECT epoch, feed_seq, told.* FROM head LEFT JOIN LATERAL (
             SELECT seq, event, decision, verdict, mode, failed, expires_at FROM feed
             WHERE seq > CASE WHEN epoch = $1 AND feed_seq >= $2 THEN $2 ELSE 0 END
             ORDER BY seq DESC LIMIT $3
         ) AS told ON true"
    ))
    .bind(&known.epoch)
    .bind(known.seq)
    .bind(i64::try_from(rows_max).unwrap_or(i64::MAX))
    .try_map(|row: PgRow| {
        let head = Head {
            epoch: row.try_get("epoch")?,
            seq: row.try_get("feed_seq")?,
        };
        let seq: Option<i64> = row.try_get("seq")?;
        Ok((head, seq.map(|_| Told::from_row(&row)).transpose()?))
    })
    .fetch_all(connection)
    .await?;
    let head = rows.first().map(|(head, _)| head.clone());
    let told = rows
        .into_iter()
        .rev()
        .filter_map(|(_, told)| told)
        .collect();
    Ok((head.ok_or(sqlx::Error::RowNotFound)?, told))
}

/// Tells these verdicts, in this order. From here to the commit nobody else tells anything, so it comes last in
/// a transaction. `None` where there is nothing to tell.
pub(crate) async fn tell(
    connection: &mut PgConnection,
    tellings: &[Telling],
    now: DateTime<Utc>,
) -> Result<Option<Announced>> {
    if tellings.is_empty() {
        return Ok(None);
    }
    let count = i64::try_from(tellings.len()).unwrap_or(i64::MAX);
    let (epoch, seq): (String, i64) = sqlx::query_as(concat!(
        "WITH taken AS (UPDATE store SET feed_seq = feed_seq + $1 RETURNING id, feed_seq
         ), told AS (
             INSERT INTO feed (event, seq, decision, type, verdict, mode, failed, told_at, expires_at)
             SELECT event, feed_seq - $1 + place, decision, type, verdict, mode, failed, $2, expires_at
             FROM taken, unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
                 $9::timestamptz[]) WITH ORDINALITY
                 AS new (event, decision, type, verdict, mode, failed, expires_at, place)
             ON CONFLICT (event) DO UPDATE SET seq = excluded.seq, decision = excluded.decision,
                 type = excluded.type, verdict = excluded.verdict, mode = excluded.mode,
                 failed = excluded.failed, told_at = excluded.told_at, expires_at = excluded.expires_at
         )
         SELECT ",
        epoch!(),
        ", feed_seq FROM taken, pg_control_system(), pg_notify($10, ",
        epoch!(),
        " || ':' || feed_seq)"
    ))
    .bind(count)
    .bind(now)
    .bind(tellings.iter().map(|t| t.event.as_str()).collect::<Vec<_>>())
    .bind(tellings.iter().map(|t| t.decision.as_str()).collect::<Vec<_>>())
    .bind(tellings.iter().map(|t| t.event_type.as_ref().map(EventType::as_str)).collect::<Vec<_>>())
    .bind(tellings.iter().map(|t| verdict_word(t.verdict)).collect::<Vec<_>>())
    .bind(tellings.iter().map(|t| mode_word(t.mode)).collect::<Vec<_>>())
    .bind(tellings.iter().map(|t| t.failed.as_ref().map(Peer::as_str)).collect::<Vec<_>>())
    .bind(tellings.iter().map(|t| t.expires_at).collect::<Vec<_>>())
    .bind(CHANNEL)
    .fetch_one(connection)
    .await?;
    let places = seq - count + 1..;
    let told = places.zip(tellings).map(|(seq, one)| one.told(seq));
    Ok(Some(Announced {
        told: told.collect(),
        head: Head { epoch, seq },
    }))
}

/// From here to the commit nobody else tells anything.
pub(crate) async fn hold(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("SELECT FROM store FOR UPDATE")
        .execute(connection)
        .await?;
    Ok(())
}

/// The last of so many sequences. The row's lock is held to commit: sequence order is commit order. The
/// notification only wakes, and is sent at commit.
async fn take_sequences(connection: &mut PgConnection, count: usize) -> Result<i64> {
    Ok(sqlx::query_scalar(
        "WITH taken AS (UPDATE store SET feed_seq = feed_seq + $1 RETURNING feed_seq)
         SELECT feed_seq FROM taken, pg_notify($2, '')",
    )
    .bind(i64::try_from(count).unwrap_or(i64::MAX))
    .bind(CHANNEL)
    .fetch_one(connection)
    .await?)
}

/// A verdict that is in the feed, with what its mode depends on.
#[derive(Debug, FromRow)]
pub(crate) struct InForce {
    pub(crate) event: String,
    pub(crate) r#type: Option<String>,
    pub(crate) entry: Option<String>,
    pub(crate) mode: String,
}

/// The `roll_back` verdicts that are in the feed, a page at a time in the order of events.
pub(crate) async fn in_force(
    connection: &mut PgConnection,
    after_event: &str,
    rows_max: i64,
) -> Result<Vec<InForce>> {
    Ok(sqlx::query_as(
        "SELECT f.event, f.type, e.entry, f.mode FROM feed f LEFT JOIN events e USING (event)
         WHERE f.verdict = 'roll_back' AND f.event > $1 ORDER BY f.event LIMIT $2",
    )
    .bind(after_event)
    .bind(rows_max)
    .fetch_all(connection)
    .await?)
}

/// Tells the verdicts of these events again, with other modes.
pub(crate) async fn tell_modes(
    connection: &mut PgConnection,
    modes: &[(String, Mode)],
    now: DateTime<Utc>,
) -> Result<()> {
    if modes.is_empty() {
        return Ok(());
    }
    let last = take_sequences(connection, modes.len()).await?;
    let first = last - i64::try_from(modes.len()).unwrap_or(0) + 1;
    sqlx::query(
        "UPDATE feed SET seq = $1 + place - 1, mode = new.mode, told_at = $2
         FROM unnest($3::text[], $4::text[]) WITH ORDINALITY AS new (event, mode, place)
         WHERE feed.event = new.event AND verdict = 'roll_back'",
    )
    .bind(first)
    .bind(now)
    .bind(
        modes
            .iter()
            .map(|(event, _)| event.as_str())
            .collect::<Vec<_>>(),
    )
    .bind(
        modes
            .iter()
            .map(|(_, mode)| mode_word(*mode))
            .collect::<Vec<_>>(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets verdicts that ran out before `until`; says how many.
pub(crate) async fn forget(connection: &mut PgConnection, until: DateTime<Utc>) -> Result<u64> {
    let outcome = sqlx::query("DELETE FROM feed WHERE expires_at < $1")
        .bind(until)
        .execute(connection)
        .await?;
    Ok(outcome.rows_affected())
}

/// The word of a verdict in SQL.
pub(crate) fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::RollBack => "roll_back",
        Verdict::Proceed | Verdict::Unknown => "proceed",
    }
}

impl Told {
    /// A verdict with its place in the feed.
    pub fn new(seq: i64, entry: &VerdictEntry, expires_ms: u64) -> Self {
        let telling = Telling {
            event: entry.event.clone(),
            event_type: None,
            decision: entry.decision.to_string(),
            verdict: entry.verdict,
            mode: entry.mode,
            failed: entry.failed.clone(),
            expires_at: timestamp(expires_ms),
        };
        telling.told(seq)
    }

    /// What was told of the mode.
    pub(crate) fn mode(&self) -> Mode {
        mode_of(&self.mode)
    }

    /// What was told.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.verdict == "roll_back" {
            Verdict::RollBack
        } else {
            Verdict::Proceed
        }
    }
}

impl Telling {
    /// As it was told, at this place in the feed.
    fn told(&self, seq: i64) -> Told {
        Told {
            seq,
            event: self.event.to_string(),
            decision: self.decision.clone(),
            verdict: verdict_word(self.verdict).to_owned(),
            mode: mode_word(self.mode).to_owned(),
            failed: self.failed.as_ref().map(ToString::to_string),
            expires_at: self.expires_at,
        }
    }

    /// What a decision says to proxies.
    pub(crate) fn of(stored: &Stored, mode: Mode, expires_at: DateTime<Utc>) -> Self {
        let verdict = match stored.decision.standing {
            kaeru_flow::Standing::Withdrawn(_) => Verdict::Proceed,
            kaeru_flow::Standing::Live | kaeru_flow::Standing::Contested => Verdict::RollBack,
        };
        Self {
            event: stored.event.clone(),
            event_type: stored.event_type.clone(),
            decision: stored.id.to_string(),
            verdict,
            mode,
            failed: stored.decision.reason.failed().cloned(),
            expires_at,
        }
    }
}
