//! What the mode in force means for a doomed event, in a sentence: so that nobody wonders why nothing was refused.

use kaeru_protocol::Mode;

use super::time::Time;
use crate::store::breakers::Breaker;

/// `breaker` is that of the event's type, where it is open.
pub(super) fn sentence(mode: Mode, breaker: Option<&Breaker>) -> String {
    match (mode, breaker) {
        (Mode::Off, _) => "Its mode is off: nothing is refused, nor counted.".to_owned(),
        (Mode::Shadow, Some(breaker)) => format!(
            "The breaker of its type is open since {} ({} of its events were doomed within a minute): what would be \
             refused is counted, and nothing is refused.",
            Time(breaker.tripped_at),
            breaker.doomed
        ),
        (Mode::Shadow, None) => {
            "Its mode is shadow: what would be refused is counted, and nothing is refused."
                .to_owned()
        }
        (Mode::Enforce, _) => {
            "Proxies refuse its further unsafe requests, as far as their own mode allows."
                .to_owned()
        }
    }
}
