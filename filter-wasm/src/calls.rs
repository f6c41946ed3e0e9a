//! The kinds of call that this VM saw lately, each kept once: a service is asked for few things again and again, so its
//! reports share what they say of that, while they wait and in the batch that they leave in.

use std::sync::Arc;

use kaeru_protocol::{Call, EventReport};

/// How many are kept, the latest; looked through one by one. 64 x about 200 bytes.
const CALLS_MAX: usize = 64;

/// What was seen, the oldest first.
#[derive(Debug, Default)]
pub struct Calls(Vec<Arc<Call>>);

impl Calls {
    /// Makes the report's call the one that others of its kind have.
    pub fn share(&mut self, report: &mut EventReport) {
        if let Some(known) = self.0.iter().find(|known| **known == report.call) {
            report.call = Arc::clone(known);
            return;
        }
        if self.0.len() >= CALLS_MAX {
            self.0.remove(0);
        }
        self.0.push(Arc::clone(&report.call));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kaeru_protocol::Kind;

    fn report(path: &str) -> EventReport {
        let mut report = EventReport::new("e1".parse().unwrap(), Kind::Attempt);
        report.call_mut().path = path.into();
        report
    }

    #[test]
    fn one_kind_is_kept_once_and_the_latest_are_known() {
        let mut calls = Calls::default();
        let mut shared = |path: &str| {
            let mut report = report(path);
            calls.share(&mut report);
            report.call
        };
        let first = shared("/0");
        assert!(Arc::ptr_eq(&first, &shared("/0")));
        for kind in 1..=CALLS_MAX {
            shared(&format!("/{kind}"));
        }
        let again = shared("/0");
        assert!(again == first && !Arc::ptr_eq(&first, &again));
        assert_eq!(calls.0.len(), CALLS_MAX);
    }
}
