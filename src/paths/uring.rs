//! io_uring, with blocks of memory that the kernel knows (registered), and its few operations that move
//! bytes. What is asked for here is handed over by one call, [`Uring::go`] or [`Uring::finish`], however much
//! it is.
//!
//! The kernel may read and write a block until what was asked with it is done. The blocks are a mapping of their own.
//! It is unmapped once nothing is under way, and never where the kernel does not say so: a send names a block by its
//! address, at which there would be somebody else's memory.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode};
use memmap2::{MmapOptions, MmapRaw};

use super::insist::{BOUND, insist};

/// Longest wait of [`Uring::go`].
const NAP: Duration = Duration::from_millis(100);

/// Entries of the submission queue: requests that may wait to be handed over, and be under way at once.
const ENTRIES: u32 = 64;

/// SEND_ZC's wish to be told in the notice whether the kernel copied, and the notice's bit that says so.
#[cfg(feature = "ladder")]
const REPORT_USAGE: u16 = 1 << 3;
const COPIED: u32 = 1 << 31;

/// Bits of what the kernel is given to tell a request by that are the caller's token; the others count.
const TOKEN_BITS: u32 = 16;

/// A ring, and its blocks.
///
/// Nothing here is asked for without end: what the kernel refuses to take for a second is an error.
pub(crate) struct Uring {
    ring: IoUring,
    /// Goes after the ring, and stays where the kernel may go on using it.
    memory: Option<MmapRaw>,
    block: usize,
    /// Completions not given to the caller yet, told apart by their tokens: bytes done, or what went wrong.
    done: Vec<Done>,
    /// Requests so far, so that a late notice of one is not taken for the next one's with its token; and
    /// how many of them are done.
    asked: u64,
    ended: u64,
    /// Those of which a notice is to come.
    lent: HashSet<u64>,
}

/// Something that was asked for is done.
#[derive(Debug)]
pub(crate) struct Done {
    /// The token of the request.
    pub token: u64,
    /// Bytes.
    pub result: io::Result<usize>,
    /// A notice follows, when the kernel needs the block no more.
    pub more: bool,
    /// Set on that notice: true if the kernel copied after all, as far as it says.
    pub notice: Option<bool>,
}

#[cfg(feature = "ladder")]
impl Done {
    /// Returns whether something has come to pass, other than that it is to be asked for again.
    pub fn is_progress(&self) -> bool {
        self.notice.is_some() || matches!(self.result, Ok(1..))
    }
}

impl Uring {
    /// A ring with `count` blocks of `block` bytes.
    pub fn new(count: usize, block: usize) -> io::Result<Self> {
        let ring = IoUring::new(ENTRIES)?;
        let memory = (count > 0)
            .then(|| MmapOptions::new().len(count * block).map_anon())
            .transpose()?
            .map(MmapRaw::from);
        if let Some(memory) = &memory {
            let block_at = |index: usize| libc::iovec {
                iov_base: memory.as_mut_ptr().wrapping_add(index * block).cast(),
                iov_len: block,
            };
            let blocks: Vec<_> = (0..count).map(block_at).collect();
            // SAFETY: the mapping outlives the ring, which is dropped before it, and nothing here reads or
            // writes it but by the ring.
            unsafe { ring.submitter().register_buffers(&blocks) }?;
        }
        Ok(Self {
            ring,
            memory,
            block,
            done: Vec::new(),
            asked: 0,
            ended: 0,
            lent: HashSet::new(),
        })
    }

    /// Asks for `range` of block `index` to be read from byte `offset` of `file`; where it is `linked`, what is
    /// asked for next begins only once this is done in full.
    pub fn read(
        &mut self,
        token: u64,
        (index, range): (usize, Range<usize>),
        (file, offset): (BorrowedFd<'_>, u64),
        linked: bool,
    ) -> io::Result<()> {
        let (at, len) = self.place(index, range);
        let read = opcode::ReadFixed::new(Fd(file.as_raw_fd()), at, len, index as u16);
        self.push(token, link(read.offset(offset).build(), linked))
    }

    /// Hands over what was asked for, and waits until something is done, or for a tenth of a second. Gives
    /// what is done.
    pub fn go(&mut self) -> io::Result<Vec<Done>> {
        let nap = Timespec::from(NAP);
        let submitted = self
            .ring
            .submitter()
            .submit_with_args(1, &SubmitArgs::new().timespec(&nap));
        match submitted.map_err(|error| (error.raw_os_error(), error)) {
            Ok(_) | Err((Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN), _)) => {}
            Err((_, error)) => return Err(error),
        }
        self.reap();
        Ok(std::mem::take(&mut self.done))
    }

    /// Takes back all that is under way, and waits for it, a second at most; gives what it has done by then.
    /// Before Linux 6.0 nothing can be taken back, and it is only waited for.
    pub fn take_back(&mut self) -> Vec<Done> {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut done = Vec::new();
        self.reap();
        if self.ended < self.asked {
            let submitter = self.ring.submitter();
            let bound = Timespec::from(second);
            let _ = submitter.register_sync_cancel(Some(bound), CancelBuilder::any());
        }
        // What a thread of the kernel's does is not there yet when the call returns.
        while self.ended < self.asked && begin.elapsed() < second {
            match self.go() {
                Ok(more) => done.extend(more),
                Err(_) => break,
            }
        }
        done.append(&mut self.done);
        done
    }

    /// Takes what is in the completion queue.
    fn reap(&mut self) {
        for entry in self.ring.completion() {
            let (tag, done) = (entry.user_data(), understand(&entry));
            self.ended += u64::from(done.notice.is_none());
            let is_news = match done.notice {
                // The kernel also gives notice of what it cancelled because of a request before it, and
                // said nothing of that with the result.
                Some(_) => self.lent.remove(&tag),
                None if done.more => self.lent.insert(tag),
                None => true,
            };
            if is_news {
                self.done.push(done);
            }
        }
    }

    fn place(&self, index: usize, range: Range<usize>) -> (*mut u8, u32) {
        assert!(range.end <= self.block, "inside of a block");
        let memory = self.memory.as_ref().expect("a ring with blocks");
        let at = index * self.block + range.start;
        assert!(at + range.len() <= memory.len(), "a block that there is");
        (memory.as_mut_ptr().wrapping_add(at), range.len() as u32)
    }

    /// Puts it into the queue; where that is full, what is in it is handed over first.
    ///
    /// # Errors
    /// The kernel takes nothing.
    fn push(&mut self, token: u64, entry: Entry) -> io::Result<()> {
        assert!(token < 1 << TOKEN_BITS);
        let entry = entry.user_data((self.asked + 1) << TOKEN_BITS | token);
        if self.ring.submission().is_full() {
            insist(BOUND, || {
                let handed = self.ring.submit();
                self.reap();
                handed
            })?;
        }
        // SAFETY: what it reads or writes is a block (or a pipe), which lives as long as the kernel may do
        // so. The kernel looks a linked file up only when its turn has come: who asks keeps it open as long
        // as the ring, whose end takes all back.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        pushed.map_err(io::Error::other)?;
        self.asked += 1;
        Ok(())
    }
}

/// The ladder's operations.
#[cfg(feature = "ladder")]
impl Uring {
    /// Asks for `range` of block `index` to be written to `socket`; `linked` as in [`Uring::read`].
    pub fn write(
        &mut self,
        token: u64,
        (index, range): (usize, Range<usize>),
        socket: BorrowedFd<'_>,
        linked: bool,
    ) -> io::Result<()> {
        let (at, len) = self.place(index, range);
        let write = opcode::WriteFixed::new(Fd(socket.as_raw_fd()), at, len, index as u16);
        self.push(token, link(write.build(), linked))
    }

    /// As [`Uring::write`], from the block itself: until the notice comes, it is the kernel's. With
    /// `report`, the notice says whether it copied after all.
    pub fn send_zc(
        &mut self,
        token: u64,
        (index, range): (usize, Range<usize>),
        socket: BorrowedFd<'_>,
        linked: bool,
        report: bool,
    ) -> io::Result<()> {
        let (at, len) = self.place(index, range);
        let send = opcode::SendZc::new(Fd(socket.as_raw_fd()), at, len)
            .buf_index(Some(index as u16))
            // Else a short one would not break a link.
            .flags(libc::MSG_WAITALL)
            .zc_flags(if report { REPORT_USAGE } else { 0 });
        self.push(token, link(send.build(), linked))
    }

    /// Asks for at most `len` bytes to be spliced: one of the two is a pipe, and has no offset.
    pub fn splice(
        &mut self,
        token: u64,
        (from, offset): (BorrowedFd<'_>, Option<u64>),
        to: BorrowedFd<'_>,
        len: usize,
        linked: bool,
    ) -> io::Result<()> {
        let from_at = offset.map_or(-1, |offset| offset as i64);
        let (from, to) = (Fd(from.as_raw_fd()), Fd(to.as_raw_fd()));
        let len = u32::try_from(len).unwrap_or(u32::MAX / 2);
        let splice = opcode::Splice::new(from, from_at, to, -1, len);
        self.push(token, link(splice.build(), linked))
    }
}

/// The server's operations.
#[cfg(feature = "serve")]
impl Uring {
    /// Asks for `range` of block `index` to be sent to `socket`, with MSG flags; `linked` as in [`Uring::read`].
    pub fn send(
        &mut self,
        token: u64,
        (index, range): (usize, Range<usize>),
        (socket, flags): (BorrowedFd<'_>, i32),
        linked: bool,
    ) -> io::Result<()> {
        let (at, len) = self.place(index, range);
        let send = opcode::Send::new(Fd(socket.as_raw_fd()), at, len).flags(flags);
        self.push(token, link(send.build(), linked))
    }

    /// Hands over what was asked for, and waits until all of it is done; gives what each has done.
    ///
    /// # Errors
    /// The ring itself failed, or the kernel took nothing for a second: some may be under way still, and the
    /// ring is to go.
    pub fn finish(&mut self) -> io::Result<Vec<Done>> {
        while self.ended < self.asked {
            let left = (self.asked - self.ended) as usize;
            insist(BOUND, || self.ring.submit_and_wait(left))?;
            self.reap();
        }
        Ok(std::mem::take(&mut self.done))
    }
}

impl Drop for Uring {
    /// Takes back what is still under way: it has no one to be told, and must not outlive the files that it names.
    /// Where it does not end, the blocks stay mapped.
    fn drop(&mut self) {
        self.take_back();
        if self.ended < self.asked {
            std::mem::forget(self.memory.take());
        }
    }
}

fn link(entry: Entry, linked: bool) -> Entry {
    match linked {
        true => entry.flags(Flags::IO_LINK),
        false => entry,
    }
}

fn understand(entry: &cqueue::Entry) -> Done {
    let (result, flags) = (entry.result(), entry.flags());
    let notice = cqueue::notif(flags).then_some(result as u32 & COPIED != 0);
    Done {
        token: entry.user_data() & ((1 << TOKEN_BITS) - 1),
        result: match notice {
            Some(_) => Ok(0),
            None => usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result)),
        },
        more: cqueue::more(flags),
        notice,
    }
}

/// Returns whether to ask again after `error`. Canceled is what nobody did: the kernel starts a thread for what may
/// wait, and gives up where signals come all the while.
#[cfg(feature = "ladder")]
pub(crate) fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED)
    )
}

// The ladder's rungs splice, the server's chain does not.
#[cfg(all(test, feature = "ladder"))]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    /// A ring of `count` blocks that takes nothing: it is disabled, and nobody enables it.
    fn that_takes_nothing(count: usize) -> Option<Uring> {
        let Ok(mut uring) = Uring::new(count, BLOCK) else {
            println!("SKIPPED: this kernel gives us no io_uring");
            assert!(std::env::var_os("PINWIRE_REQUIRE_ALL").is_none());
            return None;
        };
        uring.ring = IoUring::builder()
            .setup_r_disabled()
            .build(ENTRIES)
            .unwrap();
        Some(uring)
    }

    const BLOCK: usize = 4096;

    /// Returns whether something is mapped at `address`.
    fn is_mapped(address: usize) -> bool {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let mut ranges = maps.lines().map(|line| {
            let (range, _) = line.split_once(' ').unwrap();
            let (begin, end) = range.split_once('-').unwrap();
            [begin, end].map(|word| usize::from_str_radix(word, 16).unwrap())
        });
        ranges.any(|[begin, end]| (begin..end).contains(&address))
    }

    #[test]
    fn blocks_of_which_the_kernel_says_nothing_stay_mapped() {
        let Some(mut uring) = that_takes_nothing(1) else {
            return;
        };
        let address = uring.memory.as_ref().unwrap().as_ptr().addr();
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        let place = (0, 0..BLOCK);
        uring.read(1, place, (file.as_fd(), 0), false).unwrap();
        drop(uring);
        assert!(is_mapped(address));
    }

    #[test]
    fn a_kernel_that_takes_nothing_is_not_asked_for_ever() {
        let Some(mut uring) = that_takes_nothing(0) else {
            return;
        };
        let (from, to) = std::io::pipe().unwrap();
        let mut splice = || uring.splice(1, (from.as_fd(), None), to.as_fd(), 1, false);
        for _ in 0..ENTRIES {
            splice().unwrap();
        }
        assert_eq!(splice().unwrap_err().raw_os_error(), Some(libc::EBADFD));
        // Nobody waits for what was never handed over.
        uring.asked = 0;
    }
}
