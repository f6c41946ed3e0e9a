//! Ingest: report batches in, receipts out after commit. Waiting batches share one transaction (group commit). What
//! a batch must be is checked in `ingest/batch.rs`, how a transaction is made is in `ingest/commit.rs`.

pub(crate) mod batch;
pub(crate) mod commit;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use kaeru_protocol::{Receipt, Rejection, Report, limits};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::app::Parts;
use crate::store::reporters::Sender;
use commit::Committer;

/// KiB of batch bodies that are in work at once: 16 MiB, and about five times as much while they wait as reports.
const ADMITTED_KIB: usize = 16 * 1024;
/// Batches that wait for a transaction: more than are admitted, at 4 KiB and more each.
const WAITING_MAX: usize = 4_096;
/// Reports of one transaction: about 50 ms of Postgres' work, so that a failure waits no longer behind others.
const TRANSACTION_REPORTS_MAX: usize = 2 * limits::BATCH_REPORTS_MAX;
/// Batches of one transaction.
const TRANSACTION_BATCHES_MAX: usize = 512;

/// The way in.
#[derive(Debug, Clone)]
pub(crate) struct Ingest {
    admission: Arc<Semaphore>,
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
}

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
    /// The store refused it.
    #[error("the store refused the batch; nothing was taken")]
    Broken,
}

/// Starts the committer, which ends when every [`Ingest`] is gone and everything that waited is answered.
pub(crate) fn start(parts: Arc<Parts>) -> (Ingest, impl Future<Output = ()>) {
    let (queue, waiting) = mpsc::channel(WAITING_MAX);
    let ingest = Ingest {
        admission: Arc::new(Semaphore::new(ADMITTED_KIB)),
        queue,
    };
    (ingest, work(waiting, Committer::new(parts)))
}

impl Ingest {
    /// Room for a body of so many bytes, held until the batch is answered.
    pub(crate) fn admit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Fault> {
        let kib = u32::try_from(bytes.div_ceil(1024).max(4)).unwrap_or(u32::MAX);
        self.admission
            .clone()
            .try_acquire_many_owned(kib)
            .map_err(|_| Fault::Overload)
    }

    /// Stores a batch, and answers after its commit.
    pub(crate) async fn store(&self, batch: Batch) -> Result<Receipt, Fault> {
        let (answer, receipt) = oneshot::channel();
        self.queue
            .try_send(Waiting { batch, answer })
            .map_err(|_| Fault::Overload)?;
        receipt.await.unwrap_or(Err(Fault::StoreAway))
    }
}

/// Takes everything that waits, up to one transaction's worth, and commits it.
async fn work(mut queue: mpsc::Receiver<Waiting>, mut committer: Committer) {
    let mut waiting: Vec<Waiting> = Vec::new();
    loop {
        if waiting.is_empty() && queue.recv_many(&mut waiting, TRANSACTION_BATCHES_MAX).await == 0 {
            return;
        }
        let mut reports = 0;
        let fits = |one: &Waiting| {
            reports += one.batch.reports.len();
            reports <= TRANSACTION_REPORTS_MAX
        };
        let count = waiting.iter().map(fits).take_while(|fits| *fits).count();
        let group: Vec<Waiting> = waiting.drain(..count.max(1)).collect();
        let (batches, answers): (Vec<Batch>, Vec<_>) =
            group.into_iter().map(|w| (w.batch, w.answer)).unzip();
        let outcomes = committer.commit(&batches).await;
        for (answer, outcome) in answers.into_iter().zip(outcomes) {
            // A sender that went away meanwhile sends again; it is stored once.
            drop(answer.send(outcome));
        }
    }
}
