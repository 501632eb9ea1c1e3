//! Sends with MSG_ZEROCOPY under way: those that the socket's error queue has not reported as done.

use std::collections::VecDeque;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;

use super::bounds::NAP;
use crate::paths::errqueue::{self, Report};

/// The calls that the kernel has not told of yet.
pub(super) struct Completions {
    space: Vec<u8>,
    /// The number of the first of `calls`.
    first: u32,
    /// Bytes of each; `None`: reported already.
    calls: VecDeque<Option<usize>>,
    /// Bytes that the kernel copied after all.
    copied: usize,
}

impl Default for Completions {
    fn default() -> Self {
        Self {
            space: errqueue::space(),
            first: 0,
            calls: VecDeque::new(),
            copied: 0,
        }
    }
}

impl Completions {
    /// A call with MSG_ZEROCOPY took so many bytes.
    pub fn sent(&mut self, bytes: usize) {
        self.calls.push_back(Some(bytes));
    }

    /// Calls under way.
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Bytes that the kernel copied after all, since this was last asked.
    pub fn copied(&mut self) -> usize {
        std::mem::take(&mut self.copied)
    }

    /// Takes what is in the queue, waiting for a moment where nothing is; gives how many calls are done.
    ///
    /// # Errors
    /// INTR where nothing came; what the socket has met otherwise.
    pub fn wait(&mut self, socket: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        let nap = Timespec::try_from(NAP).expect("a tenth of a second");
        // POLLERR, which need not be asked for.
        let mut queue = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
        poll(&mut queue, Some(&nap))?;
        match self.take(socket)? {
            0 => socket_error(socket)?.and(Err(Errno::INTR)),
            done => Ok(done),
        }
    }

    /// Takes what is in the queue.
    ///
    /// # Errors
    /// Errors of the system.
    pub fn take(&mut self, socket: BorrowedFd<'_>) -> rustix::io::Result<usize> {
        let before = self.calls.len();
        while let Some(report) = errqueue::next(socket, &mut self.space)? {
            self.done(&report);
        }
        Ok(before - self.calls.len())
    }

    fn done(&mut self, report: &Report) {
        // The numbers wrap at 32 bits.
        let [from, to] = [report.first, report.last].map(|call| call.wrapping_sub(self.first));
        for index in from..=to {
            let bytes = self.calls.get_mut(index as usize).and_then(Option::take);
            if report.copied {
                self.copied += bytes.unwrap_or(0);
            }
        }
        while let Some(None) = self.calls.front() {
            self.calls.pop_front();
            self.first = self.first.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Completions, Report};

    #[test]
    fn ranges_in_any_order_are_counted_once_also_where_the_numbers_wrap() {
        let mut calls = Completions {
            first: u32::MAX - 1,
            ..Completions::default()
        };
        (1..=5).for_each(|bytes| calls.sent(bytes));
        let done = |calls: &mut Completions, first, last, copied| {
            calls.done(&Report {
                first,
                last,
                copied,
            });
        };
        // The numbers are MAX-1, MAX, 0, 1, 2.
        done(&mut calls, 1, 2, true);
        assert_eq!((calls.len(), calls.copied()), (5, 4 + 5));
        done(&mut calls, u32::MAX - 1, u32::MAX, false);
        assert_eq!((calls.len(), calls.copied()), (3, 0));
        done(&mut calls, 0, 0, true);
        assert_eq!((calls.len(), calls.copied()), (0, 3));
        assert_eq!(calls.first, 3);
        // Of calls that were never made, or are long done.
        done(&mut calls, 2, 9, true);
        assert_eq!((calls.len(), calls.copied()), (0, 0));
    }
}
