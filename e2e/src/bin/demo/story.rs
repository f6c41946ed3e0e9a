//! The story of one failed order: what happened, what failed, who decided and why, who refused what, what to undo.

use anyhow::{Context, Result, ensure};
use kaeru_e2e::api::{Decision, Event};
use kaeru_e2e::shop::Role;

use crate::page::{Look, Page};
use crate::tree::{self, Node};
use crate::undo;

/// Who takes part in a declined order: the four services and the payment API.
const PARTS: usize = 5;

/// Everything that the story needs has been told.
pub(crate) fn is_whole(event: &Event) -> bool {
    let refused = event.refusals.iter().any(|refusal| refusal.enforced);
    event.decision.is_some()
        && refused
        && event.steps.len() == PARTS
        && event
            .steps
            .iter()
            .all(|step| step.calls.iter().flat_map(|c| &c.attempts).all(|a| !a.open))
}

/// Writes the story.
pub(crate) fn tell(page: &mut Page, event: &Event) -> Result<()> {
    let decision = event
        .decision
        .as_ref()
        .context("a failed order has a decision")?;
    let (id, state) = (&event.summary.event, &event.summary.state);
    page.heading(&format!("Order {id}"))?;
    let event_type = event.summary.event_type.as_deref().unwrap_or("of no type");
    page.line(&format!("  {event_type}, {}", state.replace('_', " ")))?;

    page.heading("What happened")?;
    for root in tree::grow(event)? {
        draw(page, &root, "  ", "  ")?;
    }

    page.heading("What was decided")?;
    page.line(&format!(
        "  Roll it back: {}",
        page.paint(Look::Bad, &decision.reason.text)
    ))?;
    page.line(&format!(
        "  By the rule `{}`, policy version {}, {}.",
        decision.reason.rule,
        decision.policy_version,
        after(event, decision)?
    ))?;
    for evidence in &decision.evidence {
        let text = evidence.get("text").and_then(serde_json::Value::as_str);
        page.line(&format!("  Evidence: {}", text.unwrap_or_default()))?;
    }
    for considered in event
        .considered
        .iter()
        .filter(|considered| !considered.fired)
    {
        let line = format!("  Not by `{}`: {}", considered.rule, considered.why);
        page.line(&page.paint(Look::Quiet, &line))?;
    }

    page.heading("What was refused")?;
    for refusal in event.refusals.iter().filter(|refusal| refusal.enforced) {
        let to = refusal.to.as_deref().unwrap_or(&refusal.service);
        page.line(&format!(
            "  {} {} to {to}, by the sidecar of {} ({})",
            refusal.method, refusal.path, refusal.service, refusal.side
        ))?;
    }

    page.heading("What there is to undo, in this order")?;
    for (number, round) in (1..).zip(undo::rounds(&decision.plan)) {
        for entry in round {
            let effect = match entry.effect.as_str() {
                "maybe" => "may have had an effect",
                "yes" => "had an effect",
                _ => "had none after all",
            };
            let by_hand = if entry.by_hand { ", by hand" } else { "" };
            page.line(&format!(
                "  {number}. {:<14}{effect}{by_hand}",
                entry.service
            ))?;
        }
    }
    if !decision.plan.complete {
        page.line(&format!(
            "  Not all is known: {}",
            decision.plan.missing.join(", ")
        ))?;
    }
    Ok(())
}

/// How long after the failing answer the decision came.
fn after(event: &Event, decision: &Decision) -> Result<String> {
    let failing = event
        .steps
        .iter()
        .find(|step| Some(&step.service) == decision.reason.peer.as_ref());
    let ended = failing.and_then(|step| step.calls.last()?.attempts.last());
    Ok(match ended {
        None => "at once".into(),
        Some(ended) => format!(
            "{} ms after the answer",
            tree::ms(&decision.decided_at)? - tree::ms(&ended.at)?
        ),
    })
}

fn draw(page: &mut Page, node: &Node, first: &str, rest: &str) -> Result<()> {
    let look = if node.good { Look::Good } else { Look::Bad };
    let name = format!("{first}{}  {}", node.service, node.what);
    let took = node
        .duration_ms
        .map_or(String::new(), |ms| format!("{ms} ms"));
    page.line(&format!(
        "{name:<64}{took:>7}  {}",
        page.paint(look, &node.ending)
    ))?;
    for (index, below) in node.below.iter().enumerate() {
        let (branch, trunk) = if index + 1 == node.below.len() {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        draw(
            page,
            below,
            &format!("{rest}{branch}"),
            &format!("{rest}{trunk}"),
        )?;
    }
    Ok(())
}

/// Fails in words where the story did not go as it should.
pub(crate) fn check(event: &Event) -> Result<()> {
    let id = &event.summary.event;
    let decision = event
        .decision
        .as_ref()
        .context("a failed order has a decision")?;
    ensure!(
        event.summary.state == "rolling_back",
        "order {id} is {}, not rolling back",
        event.summary.state
    );
    ensure!(
        decision.reason.rule == "fatal",
        "order {id} was decided by the rule `{}`, not `fatal`",
        decision.reason.rule
    );
    ensure!(
        decision.reason.peer == Some(Role::Payment.peer()),
        "order {id}: {:?} is said to have failed, not the payment API",
        decision.reason.peer
    );
    let retried = event
        .refusals
        .iter()
        .find(|refusal| refusal.service == Role::Web.peer());
    ensure!(
        retried.is_some(),
        "order {id}: the web's retry was not refused in its own sidecar"
    );
    let order: Vec<&str> = undo::rounds(&decision.plan)
        .into_iter()
        .flatten()
        .map(|entry| entry.service.as_str())
        .collect();
    let expected = ["shop/db", "shop/db-api", "shop/backend", "shop/web"];
    ensure!(
        order == expected,
        "order {id} would be undone in the order {order:?}, not {expected:?}"
    );
    let roots = tree::grow(event)?;
    ensure!(
        roots.len() == 1,
        "order {id} is {} trees, not one",
        roots.len()
    );
    Ok(())
}
