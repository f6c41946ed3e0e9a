//! What reports mean: the fold of an event's reports into a [`Trace`], the [`Flow`] learned from traces, and
//! [`decide`]: whether an event must be rolled back, and what there is to undo in which order.
//!
//! Pure: no I/O, no clock, no async, no randomness; time comes in as [`Now`]. The same facts in any order, any
//! number of times, give the same trace.

mod fact;
mod ground;
mod judge;
mod learn;
mod order;
mod plan;
mod policy;
mod trace;

pub use fact::{Fact, ReportKey, set_right};
pub use ground::{Ground, Scope};
pub use judge::{Considered, Heard, Judgement, Loss, Now, Rule, Span, decide, judge};
pub use learn::{EdgeKey, Flow, FlowEdge, FlowStep};
pub use plan::{Decision, Evidence, Plan, PlanEntry, Reason, Stall, Standing, Withdrawal};
pub use policy::defaults;
pub use policy::{
    Contested, EventPolicy, InvalidPattern, Layer, Operation, OutOfTouch, Policy, StatusPattern,
    StepPolicy,
};
pub use trace::{
    Attempt, CallTrace, Cleanup, Deadline, Demand, Effect, EventState, Open, RefusalSeen, SeenBy,
    Shared, Step, Trace, UndoSeen, WordSaid,
};

#[cfg(test)]
mod notation;
#[cfg(test)]
mod tests;
