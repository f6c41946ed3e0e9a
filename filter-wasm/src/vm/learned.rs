//! Which service answered for a host, so that a call to it that nobody answers is told under that name.

use kaeru_protocol::Peer;

/// Hosts whose service is remembered; beyond that a call is reported under its host. 1,000 x about 120 bytes.
const HOSTS_MAX: usize = 1_000;

/// Hosts and their services, in the order of hosts.
#[derive(Debug, Default)]
pub(super) struct Learned(Vec<(Box<[u8]>, Peer)>);

impl Learned {
    /// The service behind a host.
    pub(super) fn get(&self, host: &[u8]) -> Option<&Peer> {
        let place = self.place(host).ok()?;
        self.0.get(place).map(|(_, service)| service)
    }

    /// Remembers the service behind a host: of the last that answered.
    pub(super) fn learn(&mut self, host: &[u8], service: &[u8]) {
        let known = |place: usize| {
            self.0
                .get(place)
                .map(|(_, known)| known.as_str().as_bytes())
        };
        let place = self.place(host);
        if place.is_ok_and(|place| known(place) == Some(service)) {
            return;
        }
        let Ok(service) = Peer::from_bytes(service) else {
            return;
        };
        match place {
            Ok(place) => {
                if let Some(known) = self.0.get_mut(place) {
                    known.1 = service;
                }
            }
            Err(place) if self.0.len() < HOSTS_MAX => self.0.insert(place, (host.into(), service)),
            Err(_) => {}
        }
    }

    fn place(&self, host: &[u8]) -> Result<usize, usize> {
        self.0.binary_search_by(|(known, _)| (**known).cmp(host))
    }
}
