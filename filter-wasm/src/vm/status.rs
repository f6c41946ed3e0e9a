//! What the proxy states about itself once a minute, idle or not: by its leader, for all its VMs. The counts are the Envoy
//! counters of the proxy, less what they were at the last status; that base is in shared data, since leaders change.

use kaeru_protocol::limits::LOAD_VALUES_MAX;
use kaeru_protocol::{Counts, ReporterMark};

use super::Vm;
use super::setup::Setup;
use crate::host::Host;
use crate::json::{self, Value, Writer};
use crate::metrics::Counter;
use crate::report::{Body, Status};
use crate::roll;

/// When the last status was stated, and the counters then: 9 numbers of 8 bytes.
const BASE: &[u8] = b"kaeru.status";
/// The last load values of the service, as JSON.
const LOAD: &[u8] = b"kaeru.load";
/// Without a note on the roll for so many flushes, and at least [`SILENT_MS`], a VM is gone.
const SILENT_FLUSHES: u64 = 5;
/// See [`SILENT_FLUSHES`], ms.
const SILENT_MS: u64 = 10_000;
/// How late a status may come, ms: a change of leader, and two flushes beside.
const GRACE_MS: u32 = 3_000;

const COUNTED: [Counter; 8] = [
    Counter::Succeeded,
    Counter::Rejected,
    Counter::Failed,
    Counter::Unknown,
    Counter::Refused,
    Counter::PossibleSplits,
    Counter::InvalidIds,
    Counter::Dropped,
];

impl<H: Host> Vm<H> {
    /// States the proxy's status, if it is time to.
    pub(super) fn state_status(&mut self, setup: &Setup, now_ms: u64) {
        let base = self.host.shared(BASE).unwrap_or_default();
        let (stated_ms, before) = decode(&base.value).unwrap_or_default();
        let interval_ms = setup.config.status_interval_s * 1_000;
        if now_ms.abs_diff(stated_ms) < interval_ms.into() {
            return;
        }
        let totals = COUNTED.map(|counter| self.metrics.total(&self.host, counter));
        let mut value = now_ms.to_le_bytes().to_vec();
        value.extend(totals.iter().flat_map(|total| total.to_le_bytes()));
        if self.host.set_shared(BASE, &value, base.cas).is_err() {
            return;
        }
        let mut since = [0; COUNTED.len()];
        for (delta, (total, before)) in since.iter_mut().zip(totals.iter().zip(before)) {
            *delta = total.saturating_sub(before);
        }
        let [
            succeeded,
            rejected,
            failed,
            unknown,
            refused,
            possible_splits,
            invalid_ids,
            dropped,
        ] = since;
        let heard_since_ms = now_ms.saturating_sub(u64::from(interval_ms) * 2);
        let silence_ms = SILENT_MS.max(SILENT_FLUSHES * u64::from(setup.config.flush_interval_ms));
        let silent_ms = now_ms.saturating_sub(silence_ms);
        let (mut reporters, oldest_ms) = roll::call(&self.host, heard_since_ms, silent_ms);
        // This status is itself a report of this VM.
        reporters.retain(|mark| mark.id != self.me);
        reporters.insert(
            0,
            ReporterMark {
                id: self.me,
                seq: self.outbox.last_seq() + 1,
                dropped: self.outbox.dropped(),
                gone: false,
            },
        );
        reporters.truncate(kaeru_protocol::limits::REPORTERS_MAX);
        let status = Status {
            due_ms: interval_ms + 2 * setup.config.flush_interval_ms + GRACE_MS,
            in_flight: self.metrics.open(&self.host),
            oldest_ms: oldest_ms.map_or(0, |oldest| now_ms.saturating_sub(oldest)),
            counts: Counts {
                succeeded,
                rejected,
                failed,
                unknown,
                refused,
                possible_splits,
                invalid_ids,
                dropped,
            },
            load: self.known_load(),
            reporters,
        };
        self.push(now_ms, Body::Proxy(Box::new(status)));
    }

    /// Tells the other VMs the load that this one heard of, newer values in the place of older ones.
    pub(super) fn publish_load(&mut self) {
        let Some(load) = self.load.take() else {
            return;
        };
        let mut known = self.known_load();
        for (name, value) in load.values {
            if let Some(known) = known.iter_mut().find(|(known, _)| *known == name) {
                known.1 = value;
            } else if known.len() < LOAD_VALUES_MAX {
                known.push((name, value));
            }
        }
        let mut json = Writer::default();
        json.open(b'{');
        for (name, value) in &known {
            json.key_text(name);
            json.float(*value);
        }
        json.close(b'}');
        let _ = self.host.set_shared(LOAD, json.finish().as_bytes(), 0);
    }

    fn known_load(&self) -> Vec<(Box<str>, f64)> {
        let json = self.host.shared(LOAD).unwrap_or_default().value;
        let values = json::read(&json);
        let values = values.as_ref().and_then(Value::as_object);
        let number = |(name, value): &(Box<str>, Value)| Some((name.clone(), value.as_f64()?));
        values.into_iter().flatten().filter_map(number).collect()
    }
}

fn decode(value: &[u8]) -> Option<(u64, [u64; COUNTED.len()])> {
    let mut words = value
        .chunks_exact(8)
        .filter_map(|word| Some(u64::from_le_bytes(word.try_into().ok()?)));
    let stated_ms = words.next()?;
    let mut totals = [0; COUNTED.len()];
    for total in &mut totals {
        *total = words.next()?;
    }
    Some((stated_ms, totals))
}
