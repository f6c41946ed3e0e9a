//! The open-loop generator: requests leave on schedule whatever became of those before, and latency counts from the
//! scheduled time. Where no connection is free a request waits for one, and its wait counts (no coordinated omission).
//!
//! One thread, HTTP/1.1, `poll(2)` with a timeout in nanoseconds: a timer in milliseconds would send in bursts.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::clock;

/// How long the last answers may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to send.
pub(crate) struct Schedule<'a> {
    /// Requests a second; `None` as fast as the connections go (closed loop).
    pub(crate) rate: Option<f64>,
    /// For how long.
    pub(crate) lasts: Duration,
    /// The request of this number, whole.
    pub(crate) request: &'a dyn Fn(u64) -> Vec<u8>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Load {
    pub(crate) sent: u64,
    /// Answered with 2xx.
    pub(crate) good: u64,
    /// From the scheduled time to the whole answer, ns, sorted.
    pub(crate) latencies_ns: Vec<u64>,
    /// From the first request to the last answer.
    pub(crate) took: Duration,
}

/// Some connections to one server, kept from round to round.
pub(crate) struct Connections {
    all: Vec<Connection>,
    numbered: u64,
}

struct Connection {
    stream: TcpStream,
    scheduled: Option<Instant>,
    answer: Vec<u8>,
}

impl Connections {
    pub(crate) fn open(to: SocketAddr, count: usize) -> Result<Self> {
        let connect = |_| {
            let stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            Ok(Connection {
                stream,
                scheduled: None,
                answer: Vec::new(),
            })
        };
        Ok(Self {
            all: (0..count).map(connect).collect::<Result<_>>()?,
            numbered: 0,
        })
    }

    /// Sends by the schedule and waits for every answer.
    pub(crate) fn drive(&mut self, schedule: &Schedule<'_>) -> Result<Load> {
        let mut load = Load::default();
        let mut idle: VecDeque<usize> = (0..self.all.len()).collect();
        let began = clock::now();
        let interval = schedule
            .rate
            .map(|rate| Duration::from_secs_f64(1.0 / rate));
        let mut next = began;
        let mut busy = 0_usize;
        loop {
            let now = clock::now();
            while next <= now && next < began + schedule.lasts {
                let Some(free) = idle.pop_front() else { break };
                let request = (schedule.request)(self.numbered);
                self.numbered += 1;
                self.all[free].send(&request, next)?;
                load.sent += 1;
                busy += 1;
                next = interval.map_or(now, |interval| next + interval);
            }
            let over = next >= began + schedule.lasts
                || interval.is_none() && now >= began + schedule.lasts;
            if over && busy == 0 {
                break;
            }
            if now > began + schedule.lasts + PATIENCE {
                bail!("{busy} requests were not answered");
            }
            let wait = if over || idle.is_empty() {
                PATIENCE
            } else {
                next.saturating_duration_since(clock::now())
            };
            self.await_answers(wait, |place, scheduled, status| {
                let took = clock::now().saturating_duration_since(scheduled);
                load.latencies_ns
                    .push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                load.good += u64::from((200..300).contains(&status));
                busy -= 1;
                idle.push_back(place);
            })?;
        }
        load.took = began.elapsed();
        load.latencies_ns.sort_unstable();
        Ok(load)
    }

    fn await_answers(
        &mut self,
        wait: Duration,
        mut answered: impl FnMut(usize, Instant, u16),
    ) -> Result<()> {
        let waiting: Vec<usize> = (0..self.all.len())
            .filter(|&place| self.all[place].scheduled.is_some())
            .collect();
        let ready: Vec<bool> = {
            let mut fds: Vec<PollFd<'_>> = (waiting.iter())
                .map(|&place| PollFd::new(&self.all[place].stream, PollFlags::IN))
                .collect();
            poll(&mut fds, Some(&Timespec::try_from(wait)?))?;
            fds.iter().map(|fd| !fd.revents().is_empty()).collect()
        };
        for (place, _) in waiting.into_iter().zip(ready).filter(|(_, ready)| *ready) {
            if let Some((scheduled, status)) = self.all[place].read()? {
                answered(place, scheduled, status);
            }
        }
        Ok(())
    }
}

impl Connection {
    fn send(&mut self, request: &[u8], scheduled: Instant) -> Result<()> {
        // Requests are far smaller than a socket's buffer.
        self.stream.write_all(request).context("send a request")?;
        self.scheduled = Some(scheduled);
        Ok(())
    }

    fn read(&mut self) -> Result<Option<(Instant, u16)>> {
        let mut piece = [0; 8192];
        match self.stream.read(&mut piece) {
            Ok(0) => bail!("the proxy closed a connection"),
            Ok(count) => self.answer.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let Some((status, length)) = whole(&self.answer)? else {
            return Ok(None);
        };
        self.answer.drain(..length);
        let scheduled = self.scheduled.take().context("an answer to nothing")?;
        Ok(Some((scheduled, status)))
    }
}

/// Status and length of the answer at the beginning, once all of it is there.
pub(crate) fn whole(bytes: &[u8]) -> Result<Option<(u16, usize)>> {
    let Some(head) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes[..head])?.to_ascii_lowercase();
    let status = text.get(9..12).context("a status line")?.parse()?;
    let length = text
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length: "));
    let length: usize = length.context("a content-length")?.trim().parse()?;
    let end = head + 4 + length;
    Ok((bytes.len() >= end).then_some((status, end)))
}

impl Load {
    /// A latency that this share of the requests stayed below, ms.
    pub(crate) fn quantile_ms(&self, share: f64) -> f64 {
        crate::spread::quantile(&self.latencies_ns, share) as f64 / 1e6
    }

    /// Fails where anything went wrong.
    pub(crate) fn must_be_whole(&self) -> Result<()> {
        if self.good != self.sent || self.sent == 0 {
            bail!(
                "{} of {} requests were answered with 2xx",
                self.good,
                self.sent
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn an_answer_is_whole_with_its_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(whole(answer).unwrap(), Some((200, answer.len())));
        assert_eq!(whole(&answer[..answer.len() - 1]).unwrap(), None);
        assert_eq!(whole(b"HTTP/1.1 2").unwrap(), None);
    }
}
