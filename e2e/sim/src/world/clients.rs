//! Clients: they order, are patient or not, try again or not.

use kaeru_protocol::EventId;

use super::{Moment, World};
use crate::shape::{Id, Order};

/// One client with one order.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) event: EventId,
    ids: Vec<(Vec<u8>, Vec<u8>)>,
    mtls: bool,
    sent: usize,
    pub(crate) went_away: bool,
}

impl Client {
    /// Its order says its type, and is believed.
    pub(crate) fn says_type(&self, order: &Order) -> bool {
        order.has_type && self.mtls
    }
}

impl World {
    pub(super) fn greet_clients(&mut self) {
        let mut shared: Option<u64> = None;
        for place in 0..self.shape.orders.len() {
            let order = self.shape.orders[place].clone();
            let mut number = self.chance.next();
            if order.shares.is_some() {
                number = *shared.get_or_insert(number);
            }
            let trace = format!("{:016x}{:016x}", number | 1, number >> 7);
            let (name, ids, mtls) = match order.id {
                Id::Chosen => {
                    let name = format!("order-{place}");
                    let mut ids = vec![(b"x-event-id".to_vec(), name.clone().into_bytes())];
                    if self.chance.percent(60) {
                        ids.push(traceparent(&trace));
                    }
                    (name, ids, true)
                }
                Id::Trace => (
                    trace.clone(),
                    vec![traceparent(&trace)],
                    self.chance.percent(50),
                ),
                Id::Request => {
                    let name = format!(
                        "{:08x}-0000-4000-8000-{:012x}",
                        number >> 32,
                        number & 0xffff_ffff_ffff
                    );
                    let ids = vec![(b"x-request-id".to_vec(), name.clone().into_bytes())];
                    (name, ids, self.chance.percent(50))
                }
            };
            let event = name.parse().unwrap_or_else(|_| unreachable!("an event id"));
            self.clients.push(Client {
                event,
                ids,
                mtls,
                sent: 0,
                went_away: false,
            });
            self.at(order.at_ms, Moment::Send { client: place });
        }
    }

    pub(super) fn send_order(&mut self, client: usize) {
        let order = self.shape.orders[client].clone();
        let one = &mut self.clients[client];
        one.sent += 1;
        let (event, mtls, sent) = (one.event.clone(), one.mtls, one.sent);
        let mut headers = one.ids.clone();
        let (method, path) = if order.is_safe {
            ("GET", "/orders")
        } else {
            ("POST", "/orders")
        };
        for (name, value) in [(":method", method), (":path", path), (":authority", "shop")] {
            headers.push((name.into(), value.into()));
        }
        if self.clients[client].says_type(&order) {
            headers.push((b"x-event-type".to_vec(), crate::shape::EVENT_TYPE.into()));
        }
        if let Some(deadline) = order.deadline_s {
            self.tally.count("client gives a deadline");
            headers.push((
                b"x-event-deadline".to_vec(),
                deadline.to_string().into_bytes(),
            ));
        }
        if sent > 1 {
            self.tally.count("client tries again");
        }
        if order.shares.is_some() {
            self.tally.count("order under a shared trace id");
        }
        self.tally.count("order");
        self.tell(|| format!("{event}: client {client} orders ({sent})"));
        let hop = self.enter(client, event, method, path.to_owned(), headers, mtls);
        if let Some(patience_ms) = order.patience_ms {
            self.after(patience_ms, Moment::GoAway { hop });
        }
    }

    pub(super) fn client_answered(&mut self, client: usize, status: u16) {
        let event = self.clients[client].event.clone();
        self.tell(|| format!("{event}: client {client} hears {status}"));
        if (100..400).contains(&status) || status == 424 {
            return;
        }
        let sent = self.clients[client].sent;
        let order = &self.shape.orders[client];
        let tries_again = status >= 500 || status == 408;
        if let Some(wait_ms) = order
            .retries_ms
            .get(sent - 1)
            .copied()
            .filter(|_| tries_again)
        {
            self.after(wait_ms, Moment::Send { client });
        }
    }

    pub(super) fn client_left(&mut self, client: usize) {
        self.clients[client].went_away = true;
        let event = self.clients[client].event.clone();
        self.tell(|| format!("{event}: client {client} goes away"));
    }
}

fn traceparent(trace: &str) -> (Vec<u8>, Vec<u8>) {
    (
        b"traceparent".to_vec(),
        format!("00-{trace}-00f067aa0ba902b7-01").into_bytes(),
    )
}
