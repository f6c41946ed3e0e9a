//! What hosts, paths and names are compared with: a text with at most one `*`, at its beginning or its end.

use crate::request::Request;

/// A text, a beginning (`/audit/*`) or an end (`*.svc.cluster.local`); `*` alone is anything. Hosts compare without
/// regard to case, as does all else here: one rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Box<str>,
    open_start: bool,
    open_end: bool,
}

impl Pattern {
    /// Compiles a pattern.
    pub fn new(pattern: &str) -> Self {
        let (open_start, rest) = match pattern.strip_prefix('*') {
            Some(rest) => (true, rest),
            None => (false, pattern),
        };
        let (open_end, text) = match rest.strip_suffix('*') {
            Some(text) => (true, text),
            None => (false, rest),
        };
        Self {
            text: text.into(),
            open_start,
            open_end,
        }
    }

    /// Whether it matches.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        let text = self.text.as_bytes();
        let at = match (self.open_start, self.open_end) {
            (false, false) => return bytes.eq_ignore_ascii_case(text),
            (true, true) => {
                return text.is_empty()
                    || bytes
                        .windows(text.len())
                        .any(|w| w.eq_ignore_ascii_case(text));
            }
            (false, true) => 0,
            (true, false) => match bytes.len().checked_sub(text.len()) {
                Some(at) => at,
                None => return false,
            },
        };
        bytes
            .get(at..at + text.len())
            .is_some_and(|part| part.eq_ignore_ascii_case(text))
    }
}

/// Requests by host, path and method; an empty list is any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Hosts, without port.
    pub hosts: Vec<Pattern>,
    /// Paths, without query.
    pub paths: Vec<Pattern>,
    /// Methods.
    pub methods: Vec<Pattern>,
}

impl Rule {
    /// Whether the request is one of these.
    pub fn matches(&self, request: &Request<'_>) -> bool {
        // What nothing is compared with is not looked for.
        let is = |patterns: &[Pattern], value: &[u8]| patterns.iter().any(|p| p.matches(value));
        (self.hosts.is_empty() || is(&self.hosts, request.host()))
            && (self.paths.is_empty() || is(&self.paths, request.bare_path()))
            && (self.methods.is_empty() || is(&self.methods, request.method))
    }

    /// Whether it names nothing, and so matches everything.
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.paths.is_empty() && self.methods.is_empty()
    }
}

/// Which requests are steps of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// `hosts`, `paths`, `methods`: these are.
    pub rule: Rule,
    /// `not_paths`: these are not.
    pub not_paths: Vec<Pattern>,
    /// `not_agents`: what these user agents send is not.
    pub not_agents: Vec<Pattern>,
}

impl Match {
    /// Whether the request is a step. An upgrade is one only where `paths` names it.
    pub fn matches(&self, request: &Request<'_>) -> bool {
        let is = |patterns: &[Pattern], value| patterns.iter().any(|p| p.matches(value));
        self.rule.matches(request)
            && !is(&self.not_paths, request.bare_path())
            && !is(&self.not_agents, request.user_agent)
            && (!request.is_stream() || self.names_paths())
    }

    /// Whether `paths` names what it matches, so that streams among it are meant too.
    pub fn names_paths(&self) -> bool {
        !self.rule.paths.is_empty()
    }
}

impl Default for Match {
    fn default() -> Self {
        let probes = [
            "/healthz", "/readyz", "/livez", "/health", "/ping", "/metrics",
        ];
        Self {
            rule: Rule::default(),
            not_paths: probes.map(Pattern::new).into(),
            not_agents: vec![Pattern::new("kube-probe/*")],
        }
    }
}
