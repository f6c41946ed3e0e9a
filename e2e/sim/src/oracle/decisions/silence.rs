//! The rules that read silence: deadlines and stalls, against what was truly open and truly said.

use kaeru_flow::{Policy, Stall};
use kaeru_protocol::{EventId, Peer, Word};

use super::Ruling;
use crate::oracle::Condition;
use crate::truth::Try;
use crate::world::World;

impl World {
    pub(crate) fn was_late(&mut self, event: &EventId, given_ms: u64) -> Ruling {
        let sent = self
            .hops
            .iter()
            .filter(|hop| hop.event == *event)
            .map(|hop| hop.sent_ms);
        let Some(began_ms) = self.tries(event).map(|one| one.began_ms).chain(sent).min() else {
            return Err((Condition::DeadlineNotPassed, "nothing happened".into()));
        };
        let slack_ms = 2 * self.shape.aggregators_apart_ms + 10;
        let due_ms = (began_ms + given_ms).saturating_sub(slack_ms);
        if self.now_ms < due_ms {
            return Err((Condition::DeadlineNotPassed, "it is too early".into()));
        }
        let is_open = self
            .tries(event)
            .any(|one| one.ended.is_none_or(|(ended_ms, _)| ended_ms >= due_ms));
        if is_open || self.runs_by_word(event, due_ms) {
            return Ok(());
        }
        let by_try = self
            .tries(event)
            .any(|one| !self.is_stored(one) && self.is_excused(one, one.began_ms));
        let by_word = self.truth.words.iter().any(|said| {
            said.event == *event && self.is_word_excused(event, said.service, said.at_ms)
        });
        if by_try || by_word {
            self.tally
                .count("excused: an end could not be heard before the deadline");
            return Ok(());
        }
        let words = format!("nothing was open at {}", due_ms - self.begins_ms);
        Err((Condition::DeadlineNotPassed, words))
    }

    /// Whether a service's last word at that time was `running`, or Kaeru has heard it say so of a later time: what runs
    /// then is late as well. (Its `running` of before may have been lost with an answer whose client went away, or have
    /// been followed by the end of another job.)
    pub(crate) fn runs_by_word(&self, event: &EventId, at_ms: u64) -> bool {
        (0..self.shape.services.len()).any(|service| {
            let last = self
                .words_of(event, service)
                .into_iter()
                .rfind(|(said_ms, _)| *said_ms <= at_ms);
            last.is_some_and(|(_, word)| word == Word::Running)
        }) || self.truth.words.iter().any(|said| {
            said.event == *event
                && said.word == Word::Running
                && said.at_ms > at_ms
                && self.is_word_stored_by(said, self.now_ms + 1)
        })
    }

    /// Whether the network, a death or an overflow kept a word from being heard.
    pub(crate) fn is_word_excused(&self, event: &EventId, service: usize, at_ms: u64) -> bool {
        let by_call =
            self.truth.words.iter().find(|said| {
                said.event == *event && said.service == service && said.at_ms == at_ms
            });
        match by_call {
            Some(said) => said.heard.is_none_or(|(id, _)| {
                self.truth.dead.contains_key(&id)
                    || self.dropped_by(id) > 0
                    || self.was_hindered(id, at_ms)
            }),
            None => self
                .tries(event)
                .any(|one| one.service == Some(service) && self.is_excused(one, one.began_ms)),
        }
    }

    pub(crate) fn was_stalled(
        &mut self,
        event: &EventId,
        service: &Peer,
        how: Stall,
        policy: &Policy,
        began_ms: u64,
    ) -> Ruling {
        self.concerns(event, service, policy, began_ms)?;
        let here: Vec<&Try> = self
            .tries(event)
            .filter(|one| self.peer_of(one) == *service)
            .collect();
        match how {
            Stall::NotNamed => {
                let lost = here.iter().any(|one| {
                    one.unseen_ms.is_some()
                        || one.reporter.is_some_and(|id| {
                            !self.is_stored(one)
                                && (self.dropped_by(id) > 0 || self.truth.dead.contains_key(&id))
                        })
                });
                if lost {
                    self.tally.count("stalled: its VM died");
                    return Ok(());
                }
                let states: Vec<String> = here
                    .iter()
                    .map(|one| {
                        format!(
                            "{:?} ended {:?}",
                            one.reporter,
                            one.ended.map(|e| e.0 - self.begins_ms)
                        )
                    })
                    .collect();
                Err((Condition::NotStalled, format!("its attempts: {states:?}")))
            }
            Stall::NoWord => {
                let index = (0..self.shape.services.len())
                    .find(|s| self.peer(*s) == *service)
                    .unwrap_or(0);
                let silence_ms = policy
                    .for_step(self.true_type(event).as_ref(), service)
                    .silence_ms()
                    .unwrap_or(u64::MAX);
                let slack_ms = 2 * self.shape.aggregators_apart_ms + 10;
                let allowed_ms = silence_ms.saturating_sub(slack_ms);
                let words = self.words_of(event, index);
                let was_silent = (0..words.len()).any(|place| {
                    let (at_ms, word) = words[place];
                    let next_ms = words.get(place + 1).map_or(self.now_ms, |next| next.0);
                    word == Word::Running && at_ms + allowed_ms <= next_ms
                });
                if was_silent {
                    return Ok(());
                }
                if words
                    .iter()
                    .any(|(at_ms, _)| self.is_word_excused(event, index, *at_ms))
                {
                    self.tally.count("excused: a word could not be heard");
                    return Ok(());
                }
                let words: Vec<String> = words
                    .iter()
                    .map(|(at_ms, word)| format!("{word:?} at {}", at_ms - self.begins_ms))
                    .collect();
                Err((Condition::NotSilent, format!("it said {words:?}")))
            }
            Stall::OutOfTouch => {
                let gone = here.iter().any(|one| {
                    let was_gone = self
                        .truth
                        .gone
                        .iter()
                        .any(|(proxy, ..)| Some(*proxy) == one.proxy);
                    was_gone || self.is_excused(one, one.began_ms)
                });
                if gone {
                    return Ok(());
                }
                Err((
                    Condition::NotOutOfTouch,
                    "its proxy was there all the time".into(),
                ))
            }
        }
    }
}
