//! One observed request between its headers and its end: what is needed to report it, and to finish it. And all of them.

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::rc::Rc;

use kaeru_protocol::{Ending, Kind, ReporterId, Side, Word};

use crate::kin::{Carried, RequestMark};
use crate::report::{Event, Facts, More};

/// An open request.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) facts: Rc<Facts>,
    /// As what it will be reported in the end.
    pub(super) kind: Kind,
    pub(super) started_ms: u64,
    /// Inbound: the ids that mean this event.
    pub(super) ids: Box<[Carried]>,
    pub(super) grpc: bool,
    /// Inbound: the caller's proxy listens for `x-event-reported`.
    pub(super) answers_caller: bool,
    /// Outbound: the host belongs to the mesh, so its answer may say that it was reported.
    pub(super) mesh: bool,
    /// Outbound: the callee reported it.
    pub(super) reported: bool,
    /// The response's status.
    pub(super) status: Option<u16>,
    /// The service's word.
    pub(super) word: Option<Word>,
    pub(super) more: Option<Box<More>>,
    /// The sequence of the report that named it first.
    pub(super) opened: Option<NonZeroU64>,
    /// When it is to be named again, ms; 0 before the first time.
    pub(super) due_at_ms: u64,
}

/// 10,000 of them take 620 KiB.
#[cfg(target_arch = "wasm32")]
const _: () = assert!(size_of::<Stream>() <= 60);

impl Stream {
    /// A request that began now, to be reported as this kind.
    pub(super) fn new(facts: Rc<Facts>, kind: Kind, grpc: bool, started_ms: u64) -> Self {
        Self {
            facts,
            kind,
            started_ms,
            ids: Box::default(),
            grpc,
            answers_caller: false,
            mesh: false,
            reported: false,
            status: None,
            word: None,
            more: None,
            opened: None,
            due_at_ms: 0,
        }
    }

    /// It is handled by this proxy's own service, or by this gateway: an attempt, not a call.
    pub(super) fn is_at_service(&self) -> bool {
        self.facts.side == Side::Inbound || self.kind == Kind::Attempt
    }

    /// What is to be said beside the rest, to be written in.
    pub(super) fn more_mut(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// A report on it now.
    pub(super) fn event(&self, kind: Kind, ending: Ending, now_ms: u64) -> Event {
        let age_ms = now_ms.saturating_sub(self.started_ms);
        Event {
            ending,
            duration_ms: u32::try_from(age_ms).unwrap_or(u32::MAX),
            opened: self.opened,
            more: self.more.clone(),
            ..Event::new(Rc::clone(&self.facts), kind)
        }
    }
}

/// How other VMs are told which request it is.
pub(super) fn mark(me: ReporterId, id: u32) -> RequestMark {
    RequestMark(me.0.wrapping_add(id.into()))
}

/// Open requests by their numbers, which Envoy gives in the order of their beginning: that is the order in which they are
/// named. Most end soon, near either end of the row.
#[derive(Debug, Default)]
pub(super) struct Streams(VecDeque<(u32, Box<Stream>)>);

impl Streams {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn place(&self, id: u32) -> Result<usize, usize> {
        match self.0.back() {
            Some((last, _)) if *last >= id => self.0.binary_search_by_key(&id, |(id, _)| *id),
            _ => Err(self.0.len()),
        }
    }

    pub(super) fn insert(&mut self, id: u32, stream: Stream) {
        let stream = Box::new(stream);
        match self.place(id) {
            Ok(place) => {
                if let Some(known) = self.0.get_mut(place) {
                    known.1 = stream;
                }
            }
            Err(place) => self.0.insert(place, (id, stream)),
        }
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.place(id).ok()?;
        self.0.get_mut(place).map(|(_, stream)| &mut **stream)
    }

    pub(super) fn remove(&mut self, id: u32) -> Option<Box<Stream>> {
        let place = self.place(id).ok()?;
        self.0.remove(place).map(|(_, stream)| stream)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Stream)> {
        self.0.iter_mut().map(|(id, stream)| (*id, &mut **stream))
    }
}
