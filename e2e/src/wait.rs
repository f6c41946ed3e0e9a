//! Waiting for a condition: a level is polled until it holds or its time is over. Nothing here sleeps for luck.

use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Result, bail};

/// How long a condition may take on a busy machine. Whoever waits this long has failed.
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// What one look saw.
#[derive(Debug)]
pub enum Seen<T> {
    /// The condition holds.
    Yes(T),
    /// Not yet; what there is instead, for the words of a failure.
    NotYet(String),
}

impl<T> Seen<T> {
    /// `Yes(value)` where `holds`, else the value as what there is instead.
    pub fn when(holds: bool, value: T) -> Self
    where
        T: Debug,
    {
        if holds {
            Self::Yes(value)
        } else {
            Self::NotYet(format!("{value:#?}"))
        }
    }
}

/// Waits for `what` up to [`DEADLINE`].
pub async fn until<T, F>(what: &str, look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Seen<T>>>,
{
    within(DEADLINE, what, look).await
}

/// Waits for `what` up to `deadline`; an error of a look counts as "not yet".
pub async fn within<T, F>(deadline: Duration, what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Seen<T>>>,
{
    let end = tokio::time::Instant::now() + deadline;
    loop {
        let seen = match look().await {
            Ok(Seen::Yes(value)) => return Ok(value),
            Ok(Seen::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if tokio::time::Instant::now() >= end {
            bail!("waited {deadline:?} for {what}; last seen: {seen}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
