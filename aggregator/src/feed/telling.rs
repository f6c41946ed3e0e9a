//! When a verdict is told, and for how long. Pure: what was told before stands in the store, and writing is done
//! by who asks.

use kaeru_protocol::Mode;

/// What is known of an event's verdict when its event was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Occasion {
    /// A decision or a revision was made just now.
    pub is_decided_now: bool,
    /// The mode that is in force for the event.
    pub mode: Mode,
    /// The mode under which its verdict was told last, and until when, ms; `None` where it is no longer known.
    pub told: Option<(Mode, u64)>,
    /// When the event was last heard of, ms.
    pub last_received_ms: u64,
    /// How long a verdict lives after that, ms.
    pub verdict_idle_ms: u64,
    /// Now, ms.
    pub now_ms: u64,
}

impl Occasion {
    /// Until when the verdict of a decision is to be told now, ms; `None` where proxies know all of it. They are told
    /// each new revision, and of a decision in force: a mode that is another now that its event's type is known, and
    /// a verdict more than half spent whose event is still heard of.
    pub fn tell_until_ms(&self, is_in_force: bool) -> Option<u64> {
        let until_ms = self.last_received_ms.saturating_add(self.verdict_idle_ms);
        if self.is_decided_now {
            // What has just been decided is told for its whole time, however old its last report is.
            return Some(until_ms.max(self.now_ms.saturating_add(self.verdict_idle_ms)));
        }
        let is_news = match self.told {
            Some((mode, told_ms)) => {
                let left_ms = told_ms.saturating_sub(self.now_ms);
                let half_spent = left_ms < self.verdict_idle_ms / 2 && until_ms > told_ms;
                half_spent || mode != self.mode
            }
            None => until_ms > self.now_ms,
        };
        (is_in_force && is_news).then_some(until_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: Occasion = Occasion {
        is_decided_now: false,
        mode: Mode::Enforce,
        told: Some((Mode::Enforce, 1_000)),
        last_received_ms: 0,
        verdict_idle_ms: 1_000,
        now_ms: 100,
    };

    #[test]
    fn a_decision_is_told_for_its_whole_time() {
        let now = Occasion {
            is_decided_now: true,
            ..KNOWN
        };
        assert_eq!(now.tell_until_ms(true), Some(1_100));
        assert_eq!(now.tell_until_ms(false), Some(1_100), "its withdrawal too");
    }

    #[test]
    fn what_is_known_is_told_again_when_half_spent_or_under_another_mode() {
        assert_eq!(KNOWN.tell_until_ms(true), None);
        let heard = Occasion {
            now_ms: 600,
            last_received_ms: 600,
            ..KNOWN
        };
        assert_eq!(heard.tell_until_ms(true), Some(1_600));
        assert_eq!(heard.tell_until_ms(false), None);
        let idle = Occasion {
            now_ms: 600,
            ..KNOWN
        };
        assert_eq!(idle.tell_until_ms(true), None);
        let other = Occasion {
            mode: Mode::Shadow,
            ..KNOWN
        };
        assert_eq!(other.tell_until_ms(true), Some(1_000));
        let forgotten = Occasion {
            told: None,
            ..KNOWN
        };
        assert_eq!(forgotten.tell_until_ms(true), Some(1_000));
        assert_eq!(
            Occasion {
                now_ms: 1_000,
                ..forgotten
            }
            .tell_until_ms(true),
            None
        );
    }
}
