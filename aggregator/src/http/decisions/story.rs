//! One decision with what stands beside it: who stated its evidence, which line of which policy it relied on, each
//! revision, and what is in force for its event now. Read from the decision's own record, which outlives reports.

use std::collections::HashMap;

use kaeru_flow::{Reason, ReportKey, Standing};
use kaeru_protocol::{EventType, Mode};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use super::view::DecisionView;
use super::{changes, explain};
use crate::http::breakers::BreakerView;
use crate::http::grounds::{Quote, QuoteView, Quoted};
use crate::http::time::Time;
use crate::policy::InForce;
use crate::store;
use crate::store::breakers::{self, Breaker};
use crate::store::decisions::{self, Revision, Source, Stored, mode_word};
use crate::store::pages::EventRow;

/// One decision.
pub(crate) struct Story {
    pub(super) stored: Stored,
    /// Who stated its evidence.
    pub(super) sources: HashMap<(String, ReportKey), Source>,
    /// What the policy says that its rule relied on.
    pub(super) policy: Vec<Quote>,
    /// Each revision, the first one first.
    pub(super) revisions: Vec<Revision>,
    /// The mode in force for its event now.
    pub(super) mode: Mode,
    /// The breaker of its type, where it is open.
    pub(super) breaker: Option<Breaker>,
}

/// A decision in full.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DecisionInFull)]
pub(crate) struct StoryView {
    #[serde(flatten)]
    decision: DecisionView,
    /// All of it in one paragraph.
    explanation: String,
    /// What the policy says that the rule relied on, and on which line.
    policy: Vec<QuoteView>,
    /// Each revision, the first one first.
    revisions: Vec<RevisionView>,
    /// The mode in force for its event now: a changed policy or a breaker may have changed it.
    #[schema(example = "enforce")]
    mode_now: &'static str,
    /// The breaker of its event type, where it is open.
    breaker: Option<BreakerView>,
}

/// One revision.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Revision)]
struct RevisionView {
    revision: u32,
    at: Time,
    /// The policy that its plan was read by.
    policy_version: u64,
    /// What changed.
    text: String,
}

impl Story {
    /// Whether it holds.
    pub(crate) fn standing(&self) -> &Standing {
        &self.stored.decision.standing
    }

    /// Why.
    pub(crate) fn reason(&self) -> &Reason {
        &self.stored.decision.reason
    }

    /// How many services have something to undo.
    pub(crate) fn services_to_undo(&self) -> usize {
        changes::todo(&self.stored.decision.plan).len()
    }

    /// Reads it; `event` is the row of its event, where there is one.
    pub(crate) async fn read(
        connection: &mut PgConnection,
        in_force: &InForce,
        stored: Stored,
        event: Option<&EventRow>,
    ) -> store::Result<Self> {
        // What is known of the event by now: its type may have been learned after the decision.
        let entry = event.and_then(|row| row.entry.as_deref()?.parse().ok());
        let learned = event.and_then(|row| row.r#type.as_deref()?.parse().ok());
        let event_type = learned.as_ref().or(stored.event_type.as_ref());
        let quoted = Quoted::read(&mut *connection, stored.decision.policy_version).await?;
        Ok(Self {
            sources: decisions::sources(&mut *connection, &[stored.id.as_str()]).await?,
            policy: quoted.quotes(&stored.decision.grounds),
            revisions: decisions::revisions(&mut *connection, &stored.id).await?,
            mode: in_force.mode(event_type, entry.as_ref()),
            breaker: breakers::open_of(
                connection,
                event_type.map_or("", EventType::as_str),
                in_force,
            )
            .await?,
            stored,
        })
    }
}

impl StoryView {
    /// `in_force` is the policy in force now.
    pub(crate) fn new(story: Story, in_force: &InForce) -> Self {
        Self {
            explanation: explain::explanation(&story),
            policy: story.policy.iter().map(QuoteView::from).collect(),
            revisions: revisions(&story.revisions),
            mode_now: mode_word(story.mode),
            breaker: story
                .breaker
                .map(|breaker| BreakerView::new(breaker, in_force)),
            decision: DecisionView::new(story.stored, &story.sources),
        }
    }
}

fn revisions(revisions: &[Revision]) -> Vec<RevisionView> {
    let before = std::iter::once(None).chain(revisions.iter().map(Some));
    before
        .zip(revisions)
        .map(|(before, revision)| RevisionView {
            revision: revision.decision.revision,
            at: Time(revision.at),
            policy_version: revision.decision.plan_policy_version,
            text: match before {
                None => changes::first(&revision.decision),
                Some(before) => changes::between(&before.decision, &revision.decision),
            },
        })
        .collect()
}
