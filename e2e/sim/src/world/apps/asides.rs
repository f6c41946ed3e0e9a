//! What jobs do beside calls: words, questions, queues; and the crash of an application.

use std::collections::VecDeque;

use kaeru_filter::host::simulated::Said as Reply;
use kaeru_protocol::{EventId, Word};

use super::{Act, Job, KAERU, Message, word_text};
use crate::truth::Said;
use crate::world::proxies::{Passed, Stream, Way};
use crate::world::{HEALED_MS, Moment, World};

impl World {
    /// The status call: answered in the sidecar, or by an aggregator.
    pub(crate) fn say(&mut self, job: usize, word: Word) {
        let event = self.jobs[job].event.clone();
        let path = format!("/v1/events/{event}/status?status={}", word_text(word));
        let proxy = self.jobs[job].proxy;
        let service = self.proxies[proxy].service;
        let at_ms = self.now_ms;
        let told = format!("says {word:?}");
        let name = self.proxies[proxy].name.clone();
        self.tell(|| format!("{event}: {name} {told}"));
        self.tally.count("word by status call");
        let answered = self.ask_sidecar(proxy, "POST", &path);
        let heard = match answered {
            Some((stream, _)) => {
                let seq = self.proxies[proxy].vm_of(stream).map(|vm| vm.seen().seq);
                seq.map(|seq| (stream.reporter, seq))
            }
            // Without a sidecar the call goes to an aggregator; it is left out here.
            None => None,
        };
        self.truth.words.push(Said {
            event,
            service,
            word,
            at_ms,
            heard,
        });
    }

    /// A job asks whether to go on.
    pub(crate) fn ask(&mut self, job: usize) {
        let event = self.jobs[job].event.clone();
        let proxy = self.jobs[job].proxy;
        let path = format!("/v1/events/{event}/verdict");
        let Some((stream, said)) = self.ask_sidecar(proxy, "GET", &path) else {
            return;
        };
        self.tally.count("verdict asked for");
        let told_to_stop = said.body.contains("\"roll_back\"");
        self.judge_verdict_answer(&event, stream, told_to_stop);
        if told_to_stop {
            self.tally.count("job stops by its verdict");
            self.jobs[job].acts.clear();
        }
    }

    pub(crate) fn ask_sidecar(
        &mut self,
        proxy: usize,
        method: &str,
        path: &str,
    ) -> Option<(Stream, Reply)> {
        if !self.proxies[proxy].is_up {
            return None;
        }
        let worker = self.pick(proxy);
        let headers = vec![
            (b":method".to_vec(), method.as_bytes().to_vec()),
            (b":path".to_vec(), path.as_bytes().to_vec()),
            (b":authority".to_vec(), KAERU.as_bytes().to_vec()),
        ];
        match self.show(proxy, worker, Way::Out, &headers, true, true) {
            Passed::Answered(stream, said) => Some((stream, said)),
            Passed::On(..) | Passed::Unseen => None,
        }
    }

    /// A branch is handed over to a consumer, by a queue that nobody observes.
    pub(crate) fn hand_over(&mut self, job: usize) {
        let service = self.proxies[self.jobs[job].proxy].service;
        let Some(consumer) = self.shape.services[service].hands_to else {
            return;
        };
        self.tally.count("branch handed over");
        let message = Message {
            consumer,
            event: self.jobs[job].event.clone(),
            ids: self.jobs[job].ids.clone(),
            deliveries: 0,
        };
        let wait_ms = self.chance.within(5..=800);
        self.after(wait_ms, Moment::Take { message });
    }

    pub(crate) fn take_message(&mut self, message: Message) {
        let consumer = message.consumer;
        let pods: Vec<usize> = (0..self.proxies.len())
            .filter(|p| self.proxies[*p].service == consumer)
            .collect();
        let proxy = *self.chance.of(&pods);
        let edges = self.shape.services[consumer].edges.len();
        let job = Job {
            proxy,
            hop: None,
            event: message.event.clone(),
            ids: message.ids.clone(),
            acts: VecDeque::from([Act::Wait(3), Act::Calls(0, edges)]),
            waits_for: 0,
            tried: Vec::new(),
            has_failed: false,
            was_rejected: false,
            called: Vec::new(),
            is_over: false,
            message: Some(Message {
                deliveries: message.deliveries + 1,
                ..message
            }),
            calls: Vec::new(),
        };
        self.begin_job(job);
    }

    /// The consumer's work failed: the queue delivers again, or it gives up.
    pub(crate) fn deliver_again(&mut self, job: usize) {
        let Some(message) = self.jobs[job].message.clone() else {
            return;
        };
        if message.deliveries < 3 && self.age_ms() < HEALED_MS {
            self.tally.count("queue delivers again");
            let wait_ms = self.chance.within(200..=2_500);
            self.after(wait_ms, Moment::Take { message });
        } else if self.chance.percent(60) {
            self.tally.count("consumer gives up by word");
            self.say(job, Word::Failed);
        }
    }

    /// A consumer begins an event of its own.
    pub(crate) fn cron(&mut self) {
        let consumers: Vec<usize> = (0..self.shape.services.len())
            .filter(|s| {
                let one = &self.shape.services[*s];
                !one.edges.is_empty() && !one.is_gateway
            })
            .collect();
        if consumers.is_empty() {
            return;
        }
        self.tally.count("event without an entry");
        let consumer = *self.chance.of(&consumers);
        let name = format!("cron-{}", self.now_ms - self.begins_ms);
        let Ok(event) = name.parse::<EventId>() else {
            return;
        };
        let message = Message {
            consumer,
            ids: vec![(b"x-event-id".to_vec(), name.into_bytes())],
            event,
            deliveries: 0,
        };
        self.take_message(message);
    }

    /// The application in a pod crashes: its jobs are gone.
    pub(crate) fn crash_application(&mut self, proxy: usize) {
        let name = self.proxies[proxy].name.clone();
        self.tell(|| format!("the application at {name} crashes"));
        for job in &mut self.jobs {
            if job.proxy == proxy {
                job.is_over = true;
            }
        }
        self.break_application(proxy);
    }
}
