//! The scenarios: real Envoys with the compiled filter, real aggregators on real Postgres, the shop. Each waits for
//! conditions, none sleeps.
//!
//! | file | what it proves |
//! | --- | --- |
//! | `goes_through.rs` | an order without any header becomes one whole trace, and its flow is learned |
//! | `declined.rs` | a failure is decided, and every later unsafe request of its event is refused |
//! | `compensates.rs` | what the application undoes itself passes and is not undone twice; what `shadow` lists |
//! | `propagation.rs` | whichever trace context services forward, the event is found; where none, it is seen |
//! | `outage.rs` | without an aggregator the mesh works, remembers, and catches up |
//! | `modes.rs` | `off`, `shadow`, `enforce`; gRPC; undo calls; what comes from outside |
//! | `operator.rs` | a person demands a rollback, and takes it back; a decision that the entry contradicts |
//! | `spared.rs` | what fails and dooms nothing: retries, a client that goes away, a request turned down |
//! | `jobs.rs` | long jobs: heartbeats, words, the verdict asked for; and pods that die |
//! | `late.rs` | what ends after the decision joins the plan or is cleared, and is told |
//! | `crowds.rs` | a thousand orders under one id; a type that fails as a whole |
//! | `policy.rs` | the policy changes while events run |
//! | `queue.rs` | a consumer's branch rolls nothing back, unless the policy requires it |
//! | `pair.rs` | two aggregators on one database are one |
//! | `explained.rs` | decisions name reports, rule and policy line; what was not rolled back says why not |
//! | `idle.rs` | a proxy states its status, idle or not, once and not per worker |
//! | `entries.rs` | more than one way into an event, and events within events, though clocks differ |
//! | `gateway.rs` | a gateway is the entry, is in no plan, and believes nobody but those whom it is told to |
//! | `lost_vm.rs` | a VM that dies with unsent reports: the loss is seen, counted, and named in plans |
//! | `topologies.rs` | whatever form a flow has, its steps and the order of undo are right, though clocks differ |

mod compensates;
mod crowds;
mod declined;
mod entries;
mod explained;
mod gateway;
mod goes_through;
mod idle;
mod jobs;
mod late;
mod lost_vm;
mod modes;
mod operator;
mod outage;
mod pair;
mod policy;
mod pool;
mod propagation;
mod queue;
mod spared;
mod stage;
mod topologies;
