//! Ingest: report batches in, receipts out after commit. Waiting batches share one transaction (group commit). What
//! a batch must be is checked in `ingest/batch.rs`, how a transaction is made is in `ingest/commit.rs`.

pub(crate) mod batch;
pub(crate) mod commit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use kaeru_protocol::{Body, Receipt, Rejection, Report, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::app::Parts;
use crate::census::What;
use crate::store::reporters::Sender;
use commit::Committer;

/// KiB of batch bodies that are in work at once, from their first byte until they are committed or given up: 16 MiB, and
/// up to fifteen times as much while they wait as reports.
const ADMITTED_KIB: usize = 16 * 1024;
/// KiB beside it that only small batches may have: a failure leaves its proxy at once, in a batch of its own, and is not
/// turned away because of a flood.
const ADMITTED_SMALL_KIB: usize = 1024;
/// KiB of a small batch: about 100 reports.
const SMALL_KIB: u32 = 16;
/// Reports of a small batch. They are committed before larger ones, which they put off by 0.2 s at most: 1 MiB of them
/// at 40 MB/s.
const SMALL_REPORTS: usize = 128;
/// Batches that wait for a transaction: more than are admitted, at 4 KiB and more each.
const WAITING_MAX: usize = 4_096;
/// What a reporter that a status names weighs beside a report.
const MARK_WEIGHT: usize = 8;
/// Reports of one transaction: about 50 ms of Postgres' work, so that a failure waits no longer behind others.
const TRANSACTION_REPORTS_MAX: usize = 2 * limits::BATCH_REPORTS_MAX;
/// Batches of one transaction.
const TRANSACTION_BATCHES_MAX: usize = 512;

/// The way in.
#[derive(Debug, Clone)]
pub(crate) struct Ingest {
    admission: Arc<Semaphore>,
    admission_of_small: Arc<Semaphore>,
    queue: mpsc::Sender<Waiting>,
}

/// A batch that was read and checked.
#[derive(Debug)]
pub struct Batch {
    /// Who sent it.
    pub sender: Sender,
    /// When it was packed, by the sender's clock, ms.
    pub sent_ms: u64,
    /// What can be stored.
    pub reports: Vec<Report>,
    /// What cannot.
    pub rejected: Vec<Rejection>,
}

/// A batch that waits for its commit.
#[derive(Debug)]
struct Waiting {
    batch: Batch,
    answer: oneshot::Sender<Result<Receipt, Fault>>,
    /// Held here, since its sender may go away long before the batch does.
    room: Room,
}

/// Room that was made for a batch.
pub(crate) type Room = OwnedSemaphorePermit;

/// Why a batch was not stored; nothing of it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// There is more in work than may be.
    #[error("more reports are waiting than can be taken")]
    Overload,
    /// The store cannot be reached.
    #[error("the store is unavailable; nothing was taken")]
    StoreAway,
    /// The reporter or its proxy is known as another service's.
    #[error("this reporter or its proxy belongs to another service")]
    NotYours,
    /// It is new, and who is named has used up its share.
    #[error("no room for more {}: {who} has used up its share (GET /v1/limits)", .what.as_str())]
    OneTooMany {
        /// Of what.
        what: What,
        /// The service, or the namespace.
        who: String,
    },
    /// The store refused it.
    #[error("the store refused the batch; nothing was taken")]
    Broken,
}

impl Batch {
    /// How much work it is, in reports.
    fn weight(&self) -> usize {
        let marks = self.reports.iter().map(|report| match &report.body {
            Body::Event(_) => 0,
            Body::Proxy(status) => status.reporters.len(),
        });
        self.reports.len() + MARK_WEIGHT * marks.sum::<usize>()
    }
}

/// Starts the committer, which ends when every [`Ingest`] is gone and everything that waited is answered.
pub(crate) fn start(parts: Arc<Parts>) -> (Ingest, impl Future<Output = ()>) {
    let (queue, waiting) = mpsc::channel(WAITING_MAX);
    let ingest = Ingest {
        admission: Arc::new(Semaphore::new(ADMITTED_KIB)),
        admission_of_small: Arc::new(Semaphore::new(ADMITTED_SMALL_KIB)),
        queue,
    };
    (ingest, work(waiting, Committer::new(parts)))
}

impl Ingest {
    /// Room for a body of so many bytes, held as long as the batch is.
    pub(crate) fn admit(&self, bytes: usize) -> Result<Room, Fault> {
        let kib = u32::try_from(bytes.div_ceil(1024).max(4)).unwrap_or(u32::MAX);
        let room = self.admission.clone().try_acquire_many_owned(kib);
        let room = room.or_else(|full| {
            if kib > SMALL_KIB {
                return Err(full);
            }
            self.admission_of_small.clone().try_acquire_many_owned(kib)
        });
        room.map_err(|_| Fault::Overload)
    }

    /// Stores a small batch of our own.
    pub(crate) async fn store(&self, batch: Batch) -> Result<Receipt, Fault> {
        let room = self.admit(0)?;
        self.store_in(room, batch).await
    }

    /// Stores a batch for which there is room, and answers after its commit.
    pub(crate) async fn store_in(&self, room: Room, batch: Batch) -> Result<Receipt, Fault> {
        let (answer, receipt) = oneshot::channel();
        let waiting = Waiting {
            batch,
            answer,
            room,
        };
        self.queue.try_send(waiting).map_err(|_| Fault::Overload)?;
        receipt.await.unwrap_or(Err(Fault::StoreAway))
    }
}

/// Takes everything that waits, up to one transaction's worth, and commits it. What nobody waits for any more is let go:
/// its sender has no receipt and sends it again.
async fn work(mut queue: mpsc::Receiver<Waiting>, mut committer: Committer) {
    let mut waiting: Vec<Waiting> = Vec::new();
    loop {
        if waiting.is_empty() && queue.recv_many(&mut waiting, TRANSACTION_BATCHES_MAX).await == 0 {
            return;
        }
        while let Ok(one) = queue.try_recv() {
            waiting.push(one);
        }
        waiting.retain(|one| !one.answer.is_closed());
        waiting.sort_by_key(|one| one.batch.reports.len() > SMALL_REPORTS);
        let mut reports = 0;
        let fits = |one: &Waiting| {
            reports += one.batch.weight();
            reports <= TRANSACTION_REPORTS_MAX
        };
        let count = waiting.iter().map(fits).take_while(|fits| *fits).count();
        let first = count.max(1).min(waiting.len());
        let group: Vec<Waiting> = waiting.drain(..first).collect();
        if group.is_empty() {
            continue;
        }
        let (batches, held): (Vec<Batch>, Vec<_>) = (group.into_iter())
            .map(|one| (one.batch, (one.answer, one.room)))
            .unzip();
        let outcomes = committer.commit(&batches).await;
        let is_away = outcomes.contains(&Err(Fault::StoreAway));
        for ((answer, _), outcome) in held.into_iter().zip(outcomes) {
            // A sender that went away meanwhile sends again; it is stored once.
            drop(answer.send(outcome));
        }
        if is_away {
            // What waited behind would wait as long for the same answer.
            while let Ok(one) = queue.try_recv() {
                waiting.push(one);
            }
            for one in waiting.drain(..) {
                drop(one.answer.send(Err(Fault::StoreAway)));
            }
        }
    }
}
