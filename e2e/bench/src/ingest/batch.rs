//! Batches as proxies send them.

use std::fmt::Write as _;

/// Reports in one batch: the filter's own.
pub(crate) const REPORTS: u64 = 512;

/// One proxy with one VM.
pub(crate) struct Reporter {
    run: u64,
    number: u64,
    seq: u64,
    batches: u64,
    /// What it says of each request.
    ending: &'static str,
}

impl Reporter {
    /// The reporter of this number in a run.
    pub(crate) fn new(run: u64, number: u64) -> Self {
        Self {
            run,
            number,
            seq: 0,
            batches: 0,
            ending: "\"status\":201",
        }
    }

    /// The same, but its requests stay open.
    pub(crate) fn of_open_requests(run: u64, number: u64) -> Self {
        Self {
            ending: "\"kind\":\"running\",\"due\":600000",
            ..Self::new(run, number)
        }
    }

    /// Its next batch as a request: successes of unsafe requests, each of an event of its own. Four neighbours tell of the
    /// same events, as the services along a flow do.
    pub(crate) fn next(&mut self) -> Vec<u8> {
        let (run, number, ending) = (self.run, self.number, self.ending);
        let service = number % 4;
        let from = match service {
            0 => String::new(),
            below => format!("\"from\":\"shop/s{}\",", below - 1),
        };
        let mut body = format!(
            "{{\"protocol\":1,\"reporter\":{{\"id\":\"{:016x}\",\"proxy\":\"sidecar~127.0.0.1~s{service}-{run}-{number}.shop~shop.svc.cluster.local\",\
             \"service\":\"shop/s{service}\"}},\"sent_ms\":{},\"calls\":[{{\"type\":\"order.placed\",{from}\"method\":\"POST\",\"path\":\"/orders\"}}],\"reports\":[",
            run << 32 | number,
            kaeru_e2e::clock::now_ms(),
        );
        for place in 0..REPORTS {
            self.seq += 1;
            let comma = if place == 0 { "" } else { "," };
            // As time-ordered as a UUIDv7: run, batch, place.
            let event = format!(
                "0198c3{run:02x}-{:04x}-7{place:03x}-8333-{:012x}",
                self.batches,
                number / 4
            );
            let sent = match service {
                0 => String::new(),
                _ => format!("\"sent\":{},", i64::try_from(place).unwrap_or(0) - 1_004),
            };
            let _ = write!(
                body,
                "{comma}{{\"seq\":{},\"at\":{},\"event\":\"{event}\",\"call\":0,{sent}{ending},\"ms\":{}}}",
                self.seq,
                i64::try_from(place).unwrap_or(0) - 1_000,
                place % 40,
            );
        }
        body.push_str("]}");
        self.batches += 1;
        format!(
            "POST /v1/reports HTTP/1.1\r\nhost: kaeru\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}
