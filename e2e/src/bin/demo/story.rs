//! The story of one failed order: what happened, what failed, who decided and why, who refused what, what to undo.

use anyhow::{Context, Result, ensure};
use kaeru_e2e::api::{Decision, Event, Plan};
use kaeru_e2e::shop::Role;

use crate::page::{Look, Page};
use crate::tree::{self, Node};
use crate::undo;

/// Who takes part in a declined order: the four services and the payment API.
const PARTS: usize = 5;

/// Everything that the story needs has been told.
pub(crate) fn is_whole(event: &Event) -> bool {
    let refused = event.refusals.iter().any(|refusal| refusal.enforced);
    let planned = |decision: &Decision| decision.plan.entries.len() == Role::MESH.len();
    event.decision.as_ref().is_some_and(planned)
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
    page.heading(&format!("Order {}", event.summary.event))?;
    let event_type = event.summary.event_type.as_deref().unwrap_or("of no type");
    page.line(&format!(
        "  {event_type}: {}",
        event.summary.state.replace('_', " ")
    ))?;

    page.heading("What happened")?;
    for root in tree::grow(event)? {
        draw(page, &root, "  ", "  ")?;
    }
    page.heading("What was decided")?;
    decided(page, event, decision)?;
    page.heading("What was refused")?;
    refused(page, event, decision)?;
    page.heading("What there is to undo, in this order")?;
    to_undo(page, &decision.plan)
}

fn decided(page: &mut Page, event: &Event, decision: &Decision) -> Result<()> {
    let reason = page.paint(Look::Bad, &decision.reason.text);
    page.line(&format!("  Roll it back: {reason}."))?;
    page.line(&format!(
        "  By the rule `{}` and policy version {}, {}.",
        decision.reason.rule,
        decision.policy_version,
        after(event, decision)?
    ))?;
    for evidence in &decision.evidence {
        let text = evidence.get("text").and_then(serde_json::Value::as_str);
        page.line(&format!("  Evidence: {}.", text.unwrap_or_default()))?;
    }
    for considered in event
        .considered
        .iter()
        .filter(|considered| !considered.fired)
    {
        let line = format!("  Not by `{}`: {}.", considered.rule, considered.why);
        page.line(&page.paint(Look::Quiet, &line))?;
    }
    Ok(())
}

fn refused(page: &mut Page, event: &Event, decision: &Decision) -> Result<()> {
    let decided_ms = tree::ms(&decision.decided_at)?;
    for refusal in event.refusals.iter().filter(|refusal| refusal.enforced) {
        let what = match (&refusal.to, refusal.side.as_str()) {
            (Some(to), "outbound") => {
                format!("sent no {} {} to {to}", refusal.method, refusal.path)
            }
            _ => format!("let no {} {} in", refusal.method, refusal.path),
        };
        let later_ms = tree::ms(&refusal.at)? - decided_ms;
        let service = &refusal.service;
        page.line(&format!(
            "  The sidecar of {service} {what}, {later_ms} ms after the decision."
        ))?;
    }
    Ok(())
}

fn to_undo(page: &mut Page, plan: &Plan) -> Result<()> {
    for (number, round) in (1..).zip(undo::rounds(plan)) {
        for entry in round {
            let effect = match entry.effect.as_str() {
                "maybe" => "may have had an effect",
                "yes" => "had an effect",
                _ => "had none after all",
            };
            let by_hand = if entry.by_hand {
                ", to be undone by hand"
            } else {
                ""
            };
            page.line(&format!(
                "  {number}. {:<14}{effect}{by_hand}",
                entry.service
            ))?;
        }
    }
    if !plan.complete {
        let missing = plan.missing.join(", ");
        page.line(&format!("  Not all is known: {missing}."))?;
    }
    Ok(())
}

/// How long after the failing answer the decision came.
fn after(event: &Event, decision: &Decision) -> Result<String> {
    let failing = event
        .steps
        .iter()
        .find(|step| Some(&step.service) == decision.reason.peer.as_ref());
    let ended = failing.and_then(|step| step.calls.first()?.attempts.first());
    let Some(ended) = ended else {
        return Ok("at once".into());
    };
    let ended_ms = tree::ms(&ended.at)? + i64::try_from(ended.duration_ms)?;
    let after_ms = tree::ms(&decision.decided_at)? - ended_ms;
    Ok(format!("{after_ms} ms after the answer"))
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
