//! How an attempt ended, by default. A policy may read the same facts differently; the filter uses these
//! defaults to know what is urgent, the aggregator starts from them.

use serde::{Deserialize, Serialize};

/// How an attempt, call or step ended, from best to worst; `max` is the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It did what was asked.
    Succeeded,
    /// Still open.
    Running,
    /// Kaeru's own refusal: nothing reached the service.
    Refused,
    /// The service said no, nothing happened.
    Rejected,
    /// No answer: it may or may not have happened.
    Unknown,
    /// It broke, something may have happened.
    Failed,
}

impl Outcome {
    /// The word in JSON and policies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Running => "running",
            Self::Refused => "refused",
            Self::Rejected => "rejected",
            Self::Unknown => "unknown",
            Self::Failed => "failed",
        }
    }
}

/// What a service says of an event, in `x-event-status` or the status call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Word {
    /// Work goes on after the response; further words follow.
    Running,
    /// Done.
    Succeeded,
    /// Said no; nothing happened.
    Rejected,
    /// Final for the event: no retry can help.
    Failed,
}

impl Word {
    /// Reads the header or query value.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        match bytes.trim_ascii() {
            b"running" => Some(Self::Running),
            b"succeeded" => Some(Self::Succeeded),
            b"rejected" => Some(Self::Rejected),
            b"failed" => Some(Self::Failed),
            _ => None,
        }
    }

    /// The outcome that the word states.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Running => Outcome::Running,
            Self::Succeeded => Outcome::Succeeded,
            Self::Rejected => Outcome::Rejected,
            Self::Failed => Outcome::Failed,
        }
    }
}

/// Envoy's response flags (`response.flags`), the bits Kaeru reads.
/// Source: Envoy, `envoy/stream_info/stream_info.h`, `CoreResponseFlag`.
pub mod flags {
    /// UH: no healthy upstream.
    pub const NO_HEALTHY_UPSTREAM: u64 = 0x2;
    /// UT: upstream request timeout.
    pub const UPSTREAM_TIMEOUT: u64 = 0x4;
    /// LR: local reset.
    pub const LOCAL_RESET: u64 = 0x8;
    /// UR: upstream remote reset.
    pub const UPSTREAM_RESET: u64 = 0x10;
    /// UF: upstream connection failure.
    pub const UPSTREAM_CONNECTION_FAILURE: u64 = 0x20;
    /// UC: upstream connection termination.
    pub const UPSTREAM_TERMINATION: u64 = 0x40;
    /// UO: upstream overflow (circuit breaker).
    pub const UPSTREAM_OVERFLOW: u64 = 0x80;
    /// NR: no route.
    pub const NO_ROUTE: u64 = 0x100;
    /// RL: rate limited by the proxy.
    pub const RATE_LIMITED: u64 = 0x800;
    /// DC: the client's connection went away.
    pub const CLIENT_GONE: u64 = 0x4000;
    /// URX: retries used up.
    pub const RETRIES_USED_UP: u64 = 0x8000;
    /// SI: stream idle timeout.
    pub const STREAM_IDLE: u64 = 0x1_0000;
    /// UMSDR: upstream's maximum stream duration reached.
    pub const UPSTREAM_DURATION: u64 = 0x8_0000;
    /// DT: the request took longer than its maximum duration.
    pub const DURATION_TIMEOUT: u64 = 0x40_0000;
    /// UPE: upstream protocol error (an answer cut short).
    pub const UPSTREAM_PROTOCOL_ERROR: u64 = 0x80_0000;
    /// NC: no cluster found.
    pub const NO_CLUSTER: u64 = 0x100_0000;
    /// DR: the client reset its HTTP/2 stream.
    pub const CLIENT_RESET: u64 = 0x1000_0000;

    /// Envoy answered by itself before anything was sent upstream.
    pub const NOTHING_SENT: u64 = NO_HEALTHY_UPSTREAM
        | UPSTREAM_CONNECTION_FAILURE
        | UPSTREAM_OVERFLOW
        | NO_ROUTE
        | RATE_LIMITED
        | NO_CLUSTER;
    /// Something was sent and no whole answer came back.
    pub const NO_ANSWER: u64 = UPSTREAM_TIMEOUT
        | LOCAL_RESET
        | UPSTREAM_RESET
        | UPSTREAM_TERMINATION
        | CLIENT_GONE
        | CLIENT_RESET
        | STREAM_IDLE
        | UPSTREAM_DURATION
        | DURATION_TIMEOUT
        | UPSTREAM_PROTOCOL_ERROR;
}

/// The facts of how an attempt ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ending {
    /// HTTP status; absent when the client went away.
    pub status: Option<u16>,
    /// gRPC status, where the response was gRPC.
    pub grpc: Option<u8>,
    /// Envoy's response flags.
    pub flags: u64,
    /// What the service itself said.
    pub word: Option<Word>,
}

impl Ending {
    /// The default outcome (DESIGN: "Words"). What the proxy saw of the transport weighs more than the
    /// status line, since an answer cut short still has one; the service's own word weighs most.
    pub fn outcome(&self) -> Outcome {
        if let Some(word) = self.word {
            return word.outcome();
        }
        self.by_transport()
            .unwrap_or(match (self.grpc, self.status) {
                (Some(code), _) => Self::of_grpc(code),
                (None, Some(status)) => Self::of_status(status),
                (None, None) => Outcome::Unknown,
            })
    }

    /// What the proxy's flags alone say, if anything.
    pub fn by_transport(&self) -> Option<Outcome> {
        if self.status.is_none() || self.flags & flags::NO_ANSWER != 0 {
            Some(Outcome::Unknown)
        } else if self.flags & flags::NOTHING_SENT != 0 {
            Some(Outcome::Rejected)
        } else {
            None
        }
    }

    /// Whether the client went away before it had its answer. A failure that was on its way to it is one all the same.
    pub fn client_gone(&self) -> bool {
        let gone = self.flags & (flags::CLIENT_GONE | flags::CLIENT_RESET) != 0;
        let failed = self.status.is_some_and(|status| status >= 500);
        self.word.is_none() && (self.status == Some(499) || (gone && !failed))
    }

    /// The default outcome of an HTTP status.
    pub fn of_status(status: u16) -> Outcome {
        match status {
            100..=399 => Outcome::Succeeded,
            408 | 499 | 504 => Outcome::Unknown,
            400..=499 => Outcome::Rejected,
            _ => Outcome::Failed,
        }
    }

    /// The default outcome of a gRPC status: the kin of 4xx are rejections.
    pub fn of_grpc(code: u8) -> Outcome {
        match code {
            0 => Outcome::Succeeded,
            // CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, UNAVAILABLE
            1 | 2 | 4 | 14 => Outcome::Unknown,
            // INTERNAL, DATA_LOSS, and codes that gRPC does not define
            13 | 15 | 17.. => Outcome::Failed,
            _ => Outcome::Rejected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Ending, Outcome, Word, flags};
    use Outcome::{Failed, Rejected, Succeeded, Unknown};

    fn http(status: u16, flags: u64) -> Outcome {
        Ending {
            status: Some(status),
            flags,
            ..Ending::default()
        }
        .outcome()
    }

    #[test]
    fn statuses_and_flags() {
        for (status, flags, outcome) in [
            (200, 0, Succeeded),
            (302, 0, Succeeded),
            (404, 0, Rejected),
            (408, 0, Unknown),
            (499, 0, Unknown),
            (504, 0, Unknown),
            (500, 0, Failed),
            (503, 0, Failed),
            (503, flags::UPSTREAM_CONNECTION_FAILURE, Rejected),
            (503, 0x8020, Rejected),
            (503, flags::UPSTREAM_TERMINATION, Unknown),
            (404, flags::NO_ROUTE, Rejected),
            (200, flags::UPSTREAM_PROTOCOL_ERROR, Unknown),
            // refused once, cut off once: something may have arrived
            (
                503,
                flags::UPSTREAM_CONNECTION_FAILURE | flags::UPSTREAM_RESET,
                Unknown,
            ),
        ] {
            assert_eq!(http(status, flags), outcome, "{status} {flags:#x}");
        }
        assert_eq!(Ending::default().outcome(), Unknown);
    }

    #[test]
    fn grpc_codes() {
        let by_code = |grpc| {
            Ending {
                status: Some(200),
                grpc: Some(grpc),
                ..Ending::default()
            }
            .outcome()
        };
        assert_eq!(by_code(0), Succeeded);
        assert!([1, 2, 4, 14].map(by_code).iter().all(|o| *o == Unknown));
        assert!(
            [3, 5, 6, 7, 8, 9, 10, 11, 12, 16]
                .map(by_code)
                .iter()
                .all(|o| *o == Rejected)
        );
        assert!([13, 15, 17, 99].map(by_code).iter().all(|o| *o == Failed));
    }

    #[test]
    fn a_word_weighs_most() {
        let ending = Ending {
            status: Some(200),
            word: Some(Word::Failed),
            ..Ending::default()
        };
        assert_eq!(ending.outcome(), Failed);
    }

    #[test]
    fn a_client_that_went_away() {
        let gone = |status, flags| {
            Ending {
                status,
                flags,
                ..Ending::default()
            }
            .client_gone()
        };
        assert!(gone(None, flags::CLIENT_GONE));
        assert!(gone(None, flags::CLIENT_RESET));
        assert!(gone(Some(499), 0));
        assert!(gone(Some(200), flags::CLIENT_GONE), "while it was read");
        assert!(!gone(Some(500), flags::CLIENT_GONE));
        assert!(!gone(None, 0));
    }
}
