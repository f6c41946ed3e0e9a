//! What proxies do with requests, against what they have heard and what is decided.

use kaeru_filter::host::simulated::Said;
use kaeru_filter::verdicts;
use kaeru_protocol::{
    DecisionId, EventId, Mode, Verdict, VerdictEntry, VerdictPage, is_safe_method,
};

use super::Condition;
use crate::world::Stream;
use crate::world::World;

impl World {
    /// A page arrived at a proxy, and was taken if the proxy's cursor says so.
    pub(crate) fn note_page(&mut self, proxy: usize, body: &[u8]) {
        let Ok(page) = serde_json::from_slice::<VerdictPage>(body) else {
            return;
        };
        let now_ms = self.clock_of(proxy);
        let one = &self.proxies[proxy];
        let vms = one.workers.iter().filter_map(|worker| worker.vm.as_ref());
        let Some(cursor) = vms.into_iter().find_map(|vm| verdicts::cursor(vm.host())) else {
            return;
        };
        if cursor != page.cursor {
            return;
        }
        let cache = self.oracle.caches.entry(one.name.clone()).or_default();
        if page.reset {
            cache.verdicts.clear();
        }
        let went_back = !page.reset && cache.cursor.is_some_and(|known| known > page.cursor.seq);
        cache.cursor = Some(page.cursor.seq);
        for entry in page.verdicts {
            let until_ms = now_ms + entry.ttl_ms;
            cache
                .verdicts
                .insert(entry.event.clone(), (entry, until_ms));
        }
        if went_back {
            let name = one.name.clone();
            self.oracle
                .fail(Condition::FeedWentBack, format!("{name} at {cursor}"));
        }
    }

    /// What a proxy has heard of an event, as far as it still holds.
    fn heard(&self, proxy: usize, event: &EventId) -> Option<&VerdictEntry> {
        let cache = self.oracle.caches.get(&self.proxies[proxy].name)?;
        let (entry, until_ms) = cache.verdicts.get(event)?;
        (*until_ms > self.clock_of(proxy)).then_some(entry)
    }

    /// Whether an unsafe request is to be refused here.
    fn is_enforced(&self, proxy: usize, event: &EventId) -> bool {
        self.heard(proxy, event).is_some_and(|entry| {
            entry.verdict == Verdict::RollBack
                && entry.mode.min(self.proxies[proxy].ceiling) == Mode::Enforce
        })
    }

    /// A request went through.
    pub(crate) fn judge_passed(
        &mut self,
        event: Option<&EventId>,
        method: &str,
        path: &str,
        stream: Stream,
    ) {
        let Some(event) = event else { return };
        if is_safe_method(method) || path.starts_with("/compensate/") {
            if self.is_enforced(stream.proxy, event) {
                self.tally
                    .count("harmless request of a doomed event passed");
            }
            return;
        }
        if self.is_enforced(stream.proxy, event) {
            let name = &self.proxies[stream.proxy].name;
            let words = format!("{event}: {method} {path} went through at {name}");
            self.oracle.fail(Condition::PassedThoughDoomed, words);
        }
    }

    /// A request was refused.
    pub(crate) fn judge_refusal(&mut self, method: &str, path: &str, stream: Stream, said: &Said) {
        self.tally.count("request refused");
        let body: serde_json::Value = serde_json::from_str(&said.body).unwrap_or_default();
        let text = |key: &str| {
            body.get(key)
                .and_then(serde_json::Value::as_str)
                .unwrap_or_default()
        };
        let name = self.proxies[stream.proxy].name.clone();
        let (Ok(event), Ok(decision)) = (
            text("event").parse::<EventId>(),
            text("decision").parse::<DecisionId>(),
        ) else {
            return self.oracle.fail(
                Condition::RefusedWithoutDecision,
                format!("{name}: {}", said.body),
            );
        };
        self.tell(|| format!("{event}: {method} {path} refused at {name} by {decision}"));
        let words = format!("{event}: {method} {path} at {name} by {decision}");
        if is_safe_method(method) || path.starts_with("/compensate/") {
            return self.oracle.fail(Condition::RefusedHarmless, words);
        }
        let Some(heard) = self.heard(stream.proxy, &event).cloned() else {
            return self.oracle.fail(Condition::RefusedWithoutVerdict, words);
        };
        if heard.verdict != Verdict::RollBack || heard.decision != decision {
            return self.oracle.fail(Condition::RefusedWithoutVerdict, words);
        }
        if heard.mode.min(self.proxies[stream.proxy].ceiling) != Mode::Enforce {
            return self.oracle.fail(Condition::ModeIgnored, words);
        }
        let stored = self
            .database
            .decisions
            .get(&event)
            .and_then(|all| all.iter().find(|d| d.id == decision));
        let Some(stored) = stored else {
            return self.oracle.fail(Condition::RefusedWithoutDecision, words);
        };
        if !stored.last().is_in_force() {
            // Only where the proxy has not heard of it yet.
            self.tally.count("refused before the withdrawal was heard");
            let told = self
                .database
                .feed
                .get(&event)
                .map_or(0, |row| row.seq.cast_unsigned());
            if self
                .oracle
                .heard_up_to(&name)
                .is_some_and(|cursor| cursor >= told)
            {
                self.oracle.fail(Condition::RefusedWithoutDecision, words);
            }
        }
    }

    /// A sidecar answered what the verdict is.
    pub(crate) fn judge_verdict_answer(
        &mut self,
        event: &EventId,
        stream: Stream,
        told_to_stop: bool,
    ) {
        let heard = self.heard(stream.proxy, event);
        let expected = heard.is_some_and(|entry| entry.verdict == Verdict::RollBack);
        if expected != told_to_stop {
            let words = format!("{event}: told to stop: {told_to_stop}, heard {heard:?}");
            self.oracle.fail(Condition::WrongVerdictAnswer, words);
        }
    }
}
