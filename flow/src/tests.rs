//! The rules of decision, case by case. Each case is a few lines of [`notation`](crate::notation); what became
//! of it is a text that a person can read. `UPDATE_EXPECT=1 cargo test -p kaeru-flow` rewrites the texts; read
//! them again when you do.

#![expect(
    clippy::needless_raw_string_hashes,
    reason = "expect-test writes its texts this way"
)]

mod branches;
mod effects;
mod flows;
mod identity;
mod outages;
mod plans;
mod policies;
mod properties;
mod rules;
mod withdrawal;

use expect_test::Expect;

use crate::notation::{Case, Setting};
use crate::{Layer, Policy};

/// Tells the case under the built-in policy.
fn check(case: &str, told: &Expect) {
    check_in(case, &Setting::default(), told);
}

fn check_in(case: &str, setting: &Setting, told: &Expect) {
    told.assert_eq(&Case::parse(case).tell(setting));
}

/// A policy with one layer for one service (or external host, if it has a dot).
fn for_service(name: &str, layer: Layer) -> Setting {
    let policy = Policy {
        version: 3,
        services: [(crate::notation::peer(name), layer)].into(),
        ..Policy::default()
    };
    Setting {
        policy,
        ..Setting::default()
    }
}

fn global(layer: Layer) -> Setting {
    Setting {
        policy: Policy {
            version: 3,
            global: layer,
            ..Policy::default()
        },
        ..Setting::default()
    }
}
