//! From JSON to [`Config`], key by key. Istio keeps numbers as doubles, so `5` and `5.0` are the same.

use kaeru_protocol::Mode;

use super::{Config, Match, Pattern, Role, Rule};
use crate::identity::Source;
use crate::json::{self, Value};

/// Entries of one list in the configuration.
const LIST_MAX: usize = 64;
/// Unknown keys of one object that are complained of.
const UNKNOWN_MAX: usize = 64;

/// Compiles a configuration, and says in words what of it is wrong. No bytes are an empty configuration.
pub fn parse(bytes: &[u8]) -> (Config, Vec<String>) {
    let mut config = Config::default();
    let mut complaints = Vec::new();
    if bytes.trim_ascii().is_empty() {
        return (config, complaints);
    }
    let Some(Value::Object(members)) = json::read(bytes) else {
        complaints.push("configuration is not a JSON object; all defaults are used".into());
        return (config, complaints);
    };
    let mut keys = Keys::new("", members);
    keys.read(&mut config);
    keys.finish(&mut complaints);
    (config, complaints)
}

/// The keys of one object, taken one by one; what is left at the end is unknown.
struct Keys {
    within: &'static str,
    members: Vec<(Box<str>, Value)>,
    complaints: Vec<String>,
}

impl Keys {
    fn new(within: &'static str, members: Vec<(Box<str>, Value)>) -> Self {
        Self {
            within,
            members,
            complaints: Vec::new(),
        }
    }

    fn read(&mut self, config: &mut Config) {
        let c = config;
        self.take("mode", "off, shadow or enforce", &mut c.mode, mode);
        self.take("service", "namespace/name", &mut c.service, |v| {
            v.as_str()?.parse().ok().map(Some)
        });
        self.take("proxy", "1 to 256 characters", &mut c.proxy, |v| {
            let name = v.as_str()?;
            (!name.is_empty() && name.len() <= 256).then(|| Some(name.into()))
        });
        self.take(
            "role",
            "auto, inbound, outbound or gateway",
            &mut c.role,
            |v| {
                Some(match v.as_str()? {
                    "auto" => None,
                    "inbound" => Some(Role::Inbound),
                    "outbound" => Some(Role::Outbound),
                    "gateway" => Some(Role::Gateway),
                    _ => return None,
                })
            },
        );
        let name = |v: &Value| v.as_str().filter(|t| !t.is_empty()).map(Box::from);
        let a_name = "a name";
        self.take(
            "aggregator_cluster",
            a_name,
            &mut c.aggregator_cluster,
            name,
        );
        self.take(
            "aggregator_authority",
            a_name,
            &mut c.aggregator_authority,
            name,
        );
        let listed = "a list of at most 64 texts";
        self.take("id_sources", listed, &mut c.id_sources, |v| {
            let names: Vec<_> = texts(v)?.into_iter().map(Source::of_header).collect();
            (!names.is_empty()).then_some(names)
        });
        self.take("mesh_hosts", listed, &mut c.mesh_hosts, patterns);
        self.take(
            "trust_plaintext",
            "true or false",
            &mut c.trust_plaintext,
            Value::as_bool,
        );
        self.take("trust_ids_from", listed, &mut c.trust_ids_from, patterns);
        self.read_rules(c);
        self.number("refusal_status", &mut c.refusal_status, 400, 499);
        self.number("flush_interval_ms", &mut c.flush_interval_ms, 10, 60_000);
        self.number(
            "heartbeat_interval_s",
            &mut c.heartbeat_interval_s,
            1,
            3_600,
        );
        self.number("status_interval_s", &mut c.status_interval_s, 1, 3_600);
        self.number("poll_wait_ms", &mut c.poll_wait_ms, 0, 60_000);
        self.number("report_timeout_ms", &mut c.report_timeout_ms, 100, 60_000);
        self.number("outbox_reports_max", &mut c.outbox_reports_max, 1, 100_000);
        self.number("open_requests_max", &mut c.open_requests_max, 0, 100_000);
        self.number("verdicts_max", &mut c.verdicts_max, 1, 400_000);
    }

    fn read_rules(&mut self, config: &mut Config) {
        if let Some(value) = self.remove("match") {
            match value {
                Value::Object(members) => {
                    let mut keys = Self::new("match.", members);
                    config.matching = keys.matching();
                    keys.finish(&mut self.complaints);
                }
                _ => self.complain("match", "an object"),
            }
        }
        if let Some(value) = self.remove("pass") {
            match value {
                Value::List(rules) if rules.len() <= LIST_MAX => {
                    config.pass = rules.into_iter().filter_map(|r| self.pass(r)).collect();
                }
                _ => self.complain("pass", "a list of at most 64 objects"),
            }
        }
    }

    fn matching(&mut self) -> Match {
        let mut matching = Match {
            rule: self.rule(),
            ..Match::default()
        };
        self.patterns("not_paths", &mut matching.not_paths);
        self.patterns("not_agents", &mut matching.not_agents);
        matching
    }

    /// One entry of `pass`; one that names nothing would let everything through, so it counts as wrong.
    fn pass(&mut self, value: Value) -> Option<Rule> {
        let Value::Object(members) = value else {
            self.complain("pass", "a list of at most 64 objects");
            return None;
        };
        let mut keys = Self::new("pass.", members);
        let rule = keys.rule();
        keys.finish(&mut self.complaints);
        if rule.is_empty() {
            self.complain("pass", "rules that name a host, path or method");
            return None;
        }
        Some(rule)
    }

    fn rule(&mut self) -> Rule {
        let mut rule = Rule::default();
        self.patterns("hosts", &mut rule.hosts);
        self.patterns("paths", &mut rule.paths);
        self.patterns("methods", &mut rule.methods);
        rule
    }

    fn patterns(&mut self, name: &str, slot: &mut Vec<Pattern>) {
        self.take(name, "a list of at most 64 texts", slot, patterns);
    }

    fn number<T: TryFrom<u32>>(&mut self, name: &str, slot: &mut T, min: u32, max: u32) {
        let rule = format!("a whole number from {min} to {max}");
        self.take(name, &rule, slot, |value| {
            let number = u32::try_from(whole(value)?).ok()?;
            let within = (min..=max).contains(&number);
            within.then(|| T::try_from(number).ok()).flatten()
        });
    }

    fn take<T>(
        &mut self,
        name: &str,
        rule: &str,
        slot: &mut T,
        parse: impl FnOnce(&Value) -> Option<T>,
    ) {
        match self.remove(name).as_ref().map(parse) {
            None => {}
            Some(Some(value)) => *slot = value,
            Some(None) => self.complain(name, rule),
        }
    }

    /// Takes a member out; the last, where there are more.
    fn remove(&mut self, name: &str) -> Option<Value> {
        let mut last = None;
        while let Some(at) = self.members.iter().position(|(key, _)| **key == *name) {
            last = Some(self.members.remove(at).1);
        }
        last
    }

    fn complain(&mut self, name: &str, rule: &str) {
        let within = self.within;
        self.complaints.push(format!(
            "configuration key \"{within}{name}\" must be {rule}; its default is used"
        ));
    }

    fn finish(self, complaints: &mut Vec<String>) {
        complaints.extend(self.complaints);
        for (key, _) in self.members.iter().take(UNKNOWN_MAX) {
            let within = self.within;
            complaints.push(format!("configuration key \"{within}{key}\" is unknown"));
        }
    }
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    let list = value.as_list().filter(|list| list.len() <= LIST_MAX)?;
    list.iter().map(Value::as_str).collect()
}

fn patterns(value: &Value) -> Option<Vec<Pattern>> {
    Some(texts(value)?.into_iter().map(Pattern::new).collect())
}

/// A whole number, as an integer or as a double.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        let whole = (0.0..9_007_199_254_740_992.0).contains(&number) && number.fract() == 0.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number from 0 to 2^53"
        )]
        whole.then_some(number as u64)
    })
}

fn mode(value: &Value) -> Option<Mode> {
    Some(match value.as_str()? {
        "off" => Mode::Off,
        "shadow" => Mode::Shadow,
        "enforce" => Mode::Enforce,
        _ => return None,
    })
}
