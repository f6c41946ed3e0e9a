//! A queue in blocks: thousands of reports may wait, and one piece of memory that doubles would leave holes as large as
//! itself in a VM, whose memory never shrinks.

use std::collections::VecDeque;

use crate::report::Report;

/// Reports in a block: 64 x 64 bytes.
const BLOCK: usize = 64;

/// Reports, the first in first out.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// None of them is empty, but for the last where it is alone.
    blocks: VecDeque<VecDeque<Report>>,
    len: usize,
}

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn front(&self) -> Option<&Report> {
        self.blocks.front()?.front()
    }

    pub(super) fn push_back(&mut self, report: Report) {
        self.len += 1;
        match self.blocks.back_mut() {
            Some(block) if block.len() < BLOCK => block.push_back(report),
            _ => self.blocks.push_back(block_of(report)),
        }
    }

    pub(super) fn push_front(&mut self, report: Report) {
        self.len += 1;
        match self.blocks.front_mut() {
            Some(block) if block.len() < BLOCK => block.push_front(report),
            _ => self.blocks.push_front(block_of(report)),
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Report> {
        let block = self.blocks.front_mut()?;
        let report = block.pop_front()?;
        self.len -= 1;
        // The last block stays, so that a queue that is mostly empty asks for no memory.
        if block.is_empty() && self.blocks.len() > 1 {
            self.blocks.pop_front();
        }
        Some(report)
    }
}

fn block_of(report: Report) -> VecDeque<Report> {
    let mut block = VecDeque::with_capacity(BLOCK);
    block.push_back(report);
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Body;

    fn report(seq: u64) -> Report {
        Report {
            seq,
            at_ms: 0,
            body: Body::Proxy(Box::default()),
        }
    }

    #[test]
    fn first_in_first_out_from_either_end() {
        let mut queue = Queue::default();
        let mut expected = VecDeque::new();
        for seq in 0..1_000 {
            if seq % 7 == 3 {
                queue.push_front(report(seq));
                expected.push_front(seq);
            } else {
                queue.push_back(report(seq));
                expected.push_back(seq);
            }
            if seq % 5 == 0 {
                assert_eq!(queue.pop_front().map(|r| r.seq), expected.pop_front());
            }
            assert_eq!(queue.front().map(|r| r.seq), expected.front().copied());
            assert_eq!(queue.len(), expected.len());
        }
        while let Some(report) = queue.pop_front() {
            assert_eq!(Some(report.seq), expected.pop_front());
        }
        assert_eq!((queue.len(), queue.front(), expected.len()), (0, None, 0));
        queue.push_front(report(1));
        assert_eq!(queue.pop_front().map(|r| r.seq), Some(1));
    }
}
