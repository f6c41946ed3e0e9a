//! Policies, and how an operator changes them while events run.

use kaeru_flow::{Contested, Layer, OutOfTouch, Policy, Rule, StatusPattern};
use kaeru_protocol::{Mode, Outcome, Peer};

use super::Service;
use crate::chance::Chance;

/// What an order's type header says.
pub(crate) const EVENT_TYPE: &str = "order.placed";
const RULES: [Rule; 6] = [
    Rule::Operator,
    Rule::Word,
    Rule::Fatal,
    Rule::Entry,
    Rule::Stalled,
    Rule::Deadline,
];

/// A policy for these services.
pub(super) fn draw(services: &[Service], flush_ms: u64, chance: &mut Chance) -> Policy {
    let mut policy = Policy {
        global: Layer {
            mode: Some(*chance.of(&[
                Mode::Enforce,
                Mode::Enforce,
                Mode::Enforce,
                Mode::Enforce,
                Mode::Shadow,
                Mode::Off,
            ])),
            contested: Some(*chance.of(&[
                Contested::Wait,
                Contested::RollBack,
                Contested::Withdraw,
            ])),
            settle_ms: Some(2 * flush_ms),
            entry_retry_wait_ms: chance.percent(40).then(|| *chance.of(&[300, 2_500])),
            deadline_ms: chance.percent(8).then(|| chance.within(1_500..=6_000)),
            ..Layer::default()
        },
        ..Policy::default()
    };
    if chance.percent(20) {
        policy.global.fatal.insert(StatusPattern::Http(402));
    }
    if chance.percent(50) {
        policy.global.undoes.extend("POST /compensate/*".parse());
    }
    if chance.percent(15) {
        let mut layer = Layer::default();
        layer.rules.insert(*chance.of(&RULES), false);
        if let Ok(name) = EVENT_TYPE.parse() {
            policy.event_types.insert(name, layer);
        }
    }
    for service in services {
        if chance.percent(35) {
            let peer = Peer::from(service.name.clone());
            let layer = layer(chance);
            policy.services.insert(peer, layer);
        }
    }
    if chance.percent(40)
        && let Ok(peer) = Peer::host(super::EXTERNAL.as_bytes())
    {
        let mut layer = Layer::default();
        layer.fatal.insert(StatusPattern::Http(402));
        policy.services.insert(peer, layer);
    }
    policy
}

/// Something about one service.
fn layer(chance: &mut Chance) -> Layer {
    let mut layer = Layer::default();
    match chance.below(8) {
        0 => {
            layer
                .outcomes
                .extend("404".parse().map(|p| (p, Outcome::Failed)));
        }
        1 => {
            layer
                .outcomes
                .extend("503".parse().map(|p| (p, Outcome::Rejected)));
        }
        2 => {
            layer.fatal.insert(StatusPattern::Http(402));
        }
        3 => layer.read_only.extend("POST /c".parse()),
        4 => layer.nothing_to_undo = Some(true),
        5 => layer.out_of_touch = Some(OutOfTouch::Doom),
        _ => {}
    }
    if chance.percent(60) {
        layer.required = Some(true);
    }
    if chance.percent(60) {
        layer.silence_ms = Some(chance.within(1_500..=4_000));
    }
    layer
}

/// One change.
pub(crate) fn change(policy: &mut Policy, chance: &mut Chance) -> &'static str {
    match chance.below(5) {
        0 => {
            policy.global.mode = Some(*chance.of(&[Mode::Enforce, Mode::Shadow, Mode::Off]));
            "mode"
        }
        1 => {
            let rule = *chance.of(&RULES);
            let is_on = chance.percent(50);
            policy.global.rules.insert(rule, is_on);
            "rules"
        }
        2 => {
            policy.global.fatal.insert(StatusPattern::Http(402));
            "fatal"
        }
        3 => {
            policy.global.read_only.extend("POST /b".parse());
            "read_only"
        }
        _ => {
            policy.global.contested = Some(Contested::Wait);
            "contested"
        }
    }
}
