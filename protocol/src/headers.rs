//! Every header name Kaeru reads or writes, in one table. All lower case, as HTTP/2 has them.

macro_rules! headers {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub const $name: &str = $text;)*
        /// All of them, for checks that docs and code agree.
        pub const ALL: &[&str] = &[$($text),*];
    };
}

headers! {
    /// The event id, chosen by a service or handed on by Kaeru. Request.
    EVENT_ID = "x-event-id";
    /// `<namespace>/<service>;t=<its clock, ms>`: the caller, written by its outbound filter. Request.
    EVENT_FROM = "x-event-from";
    /// The event type (`order.placed`). Request.
    EVENT_TYPE = "x-event-type";
    /// Seconds the event may take, said at the entry. Request.
    EVENT_DEADLINE = "x-event-deadline";
    /// The decision id that an undo call acts for. Request.
    EVENT_UNDO = "x-event-undo";
    /// The service's word: `running`, `succeeded`, `rejected` or `failed` (final for the event). Response.
    EVENT_STATUS = "x-event-status";
    /// How far a job is: `0.4` or `2/5`. Response.
    EVENT_PROGRESS = "x-event-progress";
    /// `<namespace>/<service>`: the callee's inbound filter reported this request itself. Response.
    EVENT_REPORTED = "x-event-reported";
    /// `roll_back`, on a refusal. Response.
    EVENT_VERDICT = "x-event-verdict";
    /// CloudEvents: the id of the business process (extension attribute).
    CE_CORRELATION_ID = "ce-correlationid";
    /// CloudEvents: the type attribute.
    CE_TYPE = "ce-type";
    /// W3C Baggage; its member [`BAGGAGE_MEMBER`] carries the event id.
    BAGGAGE = "baggage";
    /// W3C Trace Context.
    TRACEPARENT = "traceparent";
    /// B3, single header.
    B3 = "b3";
    /// B3, the trace id of the multi-header form.
    B3_TRACE_ID = "x-b3-traceid";
    /// Envoy's request id; the character at index 14 is set back to `4` before use.
    REQUEST_ID = "x-request-id";
    /// Which attempt of Envoy's retries this is; read by the inbound filter.
    ATTEMPT_COUNT = "x-envoy-attempt-count";
    /// ORCA load report, textual forms. Response.
    ORCA = "endpoint-load-metrics";
    /// ORCA load report, base64 of the protobuf. Response.
    ORCA_BIN = "endpoint-load-metrics-bin";
    /// On a refusal: Envoy never retries a response that has it. Response.
    RATE_LIMITED = "x-envoy-ratelimited";
    /// On a gRPC refusal: `-1`, do not retry. Response.
    GRPC_PUSHBACK = "grpc-retry-pushback-ms";
    /// The gRPC status, in headers or trailers. Response.
    GRPC_STATUS = "grpc-status";
    /// Who called, by mTLS, as the aggregator's own proxy says. Request.
    CLIENT_CERT = "x-forwarded-client-cert";
}

/// The member of the `baggage` header that carries the event id.
pub const BAGGAGE_MEMBER: &str = "event.id";

/// Headers of the chosen kind and Kaeru's own, which no one outside the mesh may set.
pub const TAKEN_OFF_AT_THE_EDGE: &[&str] = &[
    EVENT_ID,
    EVENT_FROM,
    EVENT_TYPE,
    EVENT_DEADLINE,
    EVENT_UNDO,
    CE_CORRELATION_ID,
];

#[cfg(test)]
mod tests {
    #[test]
    fn names_are_lower_case_and_once() {
        let mut names = super::ALL.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), super::ALL.len());
        assert!(names.iter().all(|n| *n == n.to_ascii_lowercase()));
    }
}
