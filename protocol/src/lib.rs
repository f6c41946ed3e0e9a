//! What Kaeru says on the wire, and nothing of what it means.
//!
//! The filter writes [`Batch`]es and reads [`VerdictPage`]s, the aggregator the other way round; both
//! take their words from here. No I/O, no clock, no policy: this crate builds for `wasm32-wasip1` and the host.
//!
//! Every type reads leniently and writes strictly: unknown fields are ignored, unknown variants become
//! `Unknown` (or make one report unreadable, never its batch), so an older reader survives a newer writer.

mod batch;
pub mod headers;
mod ids;
mod outcome;
mod problem;
mod report;
mod status;
mod verdict;

pub use batch::{
    Batch, BatchBuilder, CallEntry, PROTOCOL_VERSION, Receipt, Rejection, Reporter, WireReport,
};
pub use ids::{
    DecisionId, EventId, EventType, FeedCursor, InvalidId, Peer, ReporterId, ServiceName,
};
pub use outcome::{Ending, Outcome, Word, flags};
pub use problem::{Problem, ProblemType};
pub use report::{Body, Call, EventReport, Kind, Report, Side, is_safe_method};
pub use status::{Counts, ProxyStatus, ReporterMark};
pub use verdict::{Mode, Refusal, Verdict, VerdictEntry, VerdictPage};

/// Limits of the wire, each with its arithmetic.
pub mod limits {
    /// Bytes of one batch body: 4,096 reports of at most 250 bytes.
    pub const BATCH_BYTES_MAX: usize = 1024 * 1024;
    /// Reports in one batch.
    pub const BATCH_REPORTS_MAX: usize = 4_096;
    /// Bytes of an event id.
    pub const EVENT_ID_MAX: usize = 128;
    /// Bytes of an event type.
    pub const EVENT_TYPE_MAX: usize = 128;
    /// Bytes of `namespace/name`: a Kubernetes namespace (63), a slash, a DNS name (253).
    pub const SERVICE_NAME_MAX: usize = 317;
    /// Bytes of a folded path.
    pub const PATH_MAX: usize = 256;
    /// Bytes of a method token.
    pub const METHOD_MAX: usize = 32;
    /// Bytes of the free text a service may add to a status (through the aggregator only).
    pub const DETAIL_MAX: usize = 4_096;
    /// Load values (ORCA) one proxy status may carry.
    pub const LOAD_VALUES_MAX: usize = 16;
    /// Reporters one proxy status may name: more than a proxy has VMs.
    pub const REPORTERS_MAX: usize = 256;
    /// Verdicts on one page: about 1 KB each as a proxy reads them, so a page takes 1 MiB of its VM.
    pub const PAGE_VERDICTS_MAX: usize = 1_024;
}
