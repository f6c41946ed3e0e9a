//! From JSON to [`Config`], key by key. Istio keeps numbers as doubles, so `5` and `5.0` are the same.

use std::borrow::Cow;

use kaeru_protocol::Mode;

use super::{Config, Match, Pattern, Role, Rule};
use crate::identity::Source;
use crate::json::Value;

/// Entries of one list in the configuration.
const LIST_MAX: usize = 64;
/// Keys of one object in the configuration.
const KEYS_MAX: usize = 256;

/// Compiles a configuration, and says in words what of it is wrong. No bytes are an empty configuration.
pub fn parse(bytes: &[u8]) -> (Config, Vec<String>) {
    let mut config = Config::default();
    let mut complaints = Vec::new();
    if bytes.trim_ascii().is_empty() {
        return (config, complaints);
    }
    let Some(members) = Value::parse(bytes).and_then(Value::members) else {
        complaints.push("configuration is not a JSON object; all defaults are used".into());
        return (config, complaints);
    };
    let mut keys = Keys::new("", members);
    keys.read(&mut config);
    keys.finish(&mut complaints);
    (config, complaints)
}

/// The keys of one object, taken one by one; what is left at the end is unknown.
struct Keys<'a> {
    within: &'static str,
    members: Vec<(Cow<'a, str>, Value<'a>)>,
    complaints: Vec<String>,
}

impl<'a> Keys<'a> {
    fn new(within: &'static str, members: impl Iterator<Item = (Cow<'a, str>, Value<'a>)>) -> Self {
        Self {
            within,
            members: members.take(KEYS_MAX).collect(),
            complaints: Vec::new(),
        }
    }

    /// Takes a member out; of one that stands twice the last counts.
    fn remove(&mut self, name: &str) -> Option<Value<'a>> {
        let value = self.members.iter().rfind(|(key, _)| key == name)?.1;
        self.members.retain(|(key, _)| key != name);
        Some(value)
    }

    fn read(&mut self, config: &mut Config) {
        let c = config;
        self.take("mode", "off, shadow or enforce", &mut c.mode, mode);
        self.take("service", "namespace/name", &mut c.service, |v| {
            v.text()?.parse().ok().map(Some)
        });
        self.take("proxy", "1 to 256 characters", &mut c.proxy, |v| {
            let name = v.text()?;
            (!name.is_empty() && name.len() <= 256).then(|| Some(name.into()))
        });
        match self.remove("role").map(Value::text) {
            None => {}
            Some(Some(role)) if role == "auto" => c.role = None,
            Some(Some(role)) if role == "inbound" => c.role = Some(Role::Inbound),
            Some(Some(role)) if role == "outbound" => c.role = Some(Role::Outbound),
            Some(Some(role)) if role == "gateway" => c.role = Some(Role::Gateway),
            Some(_) => self.complain("role", "auto, inbound, outbound or gateway"),
        }
        let name = |v: Value<'a>| v.text().filter(|t| !t.is_empty()).map(Box::from);
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
            let names: Vec<_> = texts(v)?.iter().map(|t| Source::of_header(t)).collect();
            (!names.is_empty()).then_some(names)
        });
        self.take("mesh_hosts", listed, &mut c.mesh_hosts, patterns);
        self.take(
            "trust_plaintext",
            "true or false",
            &mut c.trust_plaintext,
            Value::boolean,
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
            match value.members() {
                Some(members) => {
                    let mut keys = Self::new("match.", members);
                    config.matching = keys.matching();
                    keys.finish(&mut self.complaints);
                }
                None => self.complain("match", "an object"),
            }
        }
        if let Some(value) = self.remove("pass") {
            match list(value) {
                Some(rules) => {
                    config.pass = rules.into_iter().filter_map(|r| self.pass(r)).collect();
                }
                None => self.complain("pass", "a list of at most 64 objects"),
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
    fn pass(&mut self, value: Value<'a>) -> Option<Rule> {
        let Some(members) = value.members() else {
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
            let number = u32::try_from(value.whole()?).ok()?;
            let within = (min..=max).contains(&number);
            within.then(|| T::try_from(number).ok()).flatten()
        });
    }

    fn take<T>(
        &mut self,
        name: &str,
        rule: &str,
        slot: &mut T,
        parse: impl FnOnce(Value<'a>) -> Option<T>,
    ) {
        match self.remove(name).map(parse) {
            None => {}
            Some(Some(value)) => *slot = value,
            Some(None) => self.complain(name, rule),
        }
    }

    fn complain(&mut self, name: &str, rule: &str) {
        let within = self.within;
        self.complaints.push(format!(
            "configuration key \"{within}{name}\" must be {rule}; its default is used"
        ));
    }

    fn finish(self, complaints: &mut Vec<String>) {
        complaints.extend(self.complaints);
        for (key, _) in &self.members {
            let within = self.within;
            complaints.push(format!("configuration key \"{within}{key}\" is unknown"));
        }
    }
}

fn list(value: Value<'_>) -> Option<Vec<Value<'_>>> {
    let list: Vec<_> = value.items()?.take(LIST_MAX + 1).collect();
    (list.len() <= LIST_MAX).then_some(list)
}

fn texts(value: Value<'_>) -> Option<Vec<Cow<'_, str>>> {
    list(value)?.into_iter().map(Value::text).collect()
}

fn patterns(value: Value<'_>) -> Option<Vec<Pattern>> {
    let texts = texts(value)?;
    Some(texts.iter().map(|text| Pattern::new(text)).collect())
}

fn mode(value: Value<'_>) -> Option<Mode> {
    Some(match &*value.text()? {
        "off" => Mode::Off,
        "shadow" => Mode::Shadow,
        "enforce" => Mode::Enforce,
        _ => return None,
    })
}
