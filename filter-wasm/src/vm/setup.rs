//! Who this proxy is, from its configuration and what Envoy knows of itself. Worked out once per configuration.

use kaeru_protocol::{Reporter, ReporterId, ServiceName};

use super::TICK_MS;
use crate::config::{Config, Role, parse};
use crate::host::{Host, Level};
use crate::identity::Source;

/// Lines of complaint about one configuration that are logged; all are counted.
const COMPLAINTS_LOGGED_MAX: usize = 16;

/// A compiled configuration and the proxy's own names.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) config: Config,
    pub(super) reporter: Reporter,
    /// Absent: each listener says it.
    pub(super) role: Option<Role>,
    /// An id may stand in a header that is not ours.
    pub(super) has_own_sources: bool,
}

impl Setup {
    /// Compiles; gives how much was wrong with it. `None` beside an aggregator: Kaeru's own traffic is no event.
    pub(super) fn new(host: &impl Host, bytes: &[u8], me: ReporterId) -> (Option<Self>, u64) {
        let (config, mut complaints) = parse(bytes);
        let node = property_text(host, "xds\0node\0id")
            .or_else(|| property_text(host, "node\0id"))
            .unwrap_or_default();
        let service = config.service.clone().or_else(|| service(host));
        if service.is_none() {
            complaints.push(
                "the proxy's metadata names no service; set the configuration key \"service\""
                    .into(),
            );
        }
        for complaint in complaints.iter().take(COMPLAINTS_LOGGED_MAX) {
            host.log(Level::Warn, &format!("kaeru: {complaint}"));
        }
        let setup = service
            .or_else(|| "unknown/unknown".parse().ok())
            .filter(|service| !is_aggregator(&config, service))
            .map(|service| {
                let gateway = match config.role {
                    Some(role) => role == Role::Gateway,
                    None => node.starts_with("router~"),
                };
                let proxy: Box<str> = match &config.proxy {
                    Some(proxy) => proxy.clone(),
                    None if node.is_empty() => "unknown".into(),
                    None => node.chars().take(256).collect::<String>().into(),
                };
                host.log(
                    Level::Info,
                    &format!("kaeru: {service} at {proxy}, reporter {me}"),
                );
                let of_its_own = |source: &Source| matches!(source, Source::Header(_));
                Self {
                    has_own_sources: config.id_sources.iter().any(of_its_own),
                    role: if gateway {
                        Some(Role::Gateway)
                    } else {
                        config.role
                    },
                    reporter: Reporter {
                        id: me,
                        proxy,
                        service,
                        gateway,
                    },
                    config,
                }
            });
        (setup, complaints.len() as u64)
    }

    /// How often the root context ticks: often enough for the lease and the flushes.
    pub(super) fn tick_ms(&self) -> u32 {
        TICK_MS.min(self.config.flush_interval_ms)
    }

    /// An open request says again at each flush what its ids mean; one that has missed so much time is over, ms.
    pub(super) fn open_ms(&self) -> u64 {
        3 * u64::from(self.config.flush_interval_ms)
    }

    /// The own service's name.
    pub(super) fn service(&self) -> &str {
        self.reporter.service.as_str()
    }
}

/// What the listener of the current stream says of its direction.
pub(super) fn listener_role(host: &impl Host) -> Option<Role> {
    let direction = property_number(host, "xds\0listener_direction")
        .or_else(|| property_number(host, "listener_direction"));
    match direction {
        Some(1) => Some(Role::Inbound),
        Some(2) => Some(Role::Outbound),
        _ => None,
    }
}

/// An integer property.
pub(super) fn property_number(host: &impl Host, path: &str) -> Option<i64> {
    Some(i64::from_le_bytes(host.property(path)?.try_into().ok()?))
}

/// A text property; bytes that are no text count as absent.
fn property_text(host: &impl Host, path: &str) -> Option<String> {
    let text = String::from_utf8(host.property(path)?).ok()?;
    (!text.is_empty()).then_some(text)
}

/// The workload's canonical name, as Istio's own telemetry has it.
fn service(host: &impl Host) -> Option<ServiceName> {
    let metadata = |key: &str| {
        let of = |root: &str| property_text(host, &[root, key].concat());
        of("xds\0node\0metadata\0").or_else(|| of("node\0metadata\0"))
    };
    let namespace = metadata("NAMESPACE")?;
    let name = metadata("LABELS\0service.istio.io/canonical-name")
        .or_else(|| metadata("WORKLOAD_NAME"))
        .or_else(|| metadata("NAME"))?;
    format!("{namespace}/{name}").parse().ok()
}

/// Whether the service is the aggregator itself: `<name>.<namespace>…` is its authority.
fn is_aggregator(config: &Config, service: &ServiceName) -> bool {
    let mut labels = config.aggregator_authority.split('.');
    let (name, namespace) = (labels.next(), labels.next());
    service.as_str().split_once('/') == namespace.zip(name)
}
