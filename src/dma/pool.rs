//! Packet buffers: one region cut into pieces of one size.
//!
//! A [`DmaBuf`] is owned by one place at a time: the caller, or the ring it was moved into.
//!
//! A pool gives place and length of its memory, and no way to write what its buffers' owners have:
//!
//! ```compile_fail,E0599
//! # use pinwire::dma::Pool;
//! fn write_a_buffer_that_another_owns(pool: &Pool) {
//!     pool.region().write(0, b"whose memory?");
//! }
//! ```
//!
//! A buffer's bytes can be seen as atomics ([`DmaBuf::atomic_bytes`]): the one view of memory that a device, or another
//! thread, may write meanwhile. As long as there is one, nothing else reaches the buffer, since copies are not atomic:
//!
//! ```compile_fail,E0502
//! # use pinwire::dma::DmaBuf;
//! # use std::sync::atomic::Ordering::Relaxed;
//! fn copy_what_another_may_write(buf: &mut DmaBuf) {
//!     let bytes = buf.atomic_bytes();
//!     buf.to_vec();
//!     bytes[0].store(1, Relaxed);
//! }
//! ```
//!
//! ```compile_fail,E0596
//! # use pinwire::dma::DmaBuf;
//! fn write_what_is_only_lent(buf: &DmaBuf) {
//!     buf.atomic_bytes();
//! }
//! ```
//!
//! What is quarantined is gone for good:
//!
//! ```compile_fail,E0382
//! # use pinwire::dma::DmaBuf;
//! fn use_what_a_device_may_still_reach(mut buf: DmaBuf) {
//!     buf.quarantine();
//!     buf.fill(b"too late");
//! }
//! ```

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering, compiler_fence};

use super::free_list::{FreeList, MOST};
use super::region::bytes_of;
use super::{DmaRegion, DmaSpace, Iova, Mapping, Segment, SpaceId};
use crate::error::{Error, Result};

/// Bytes before each packet buffer that belong to it: room for what a device wants in front of a
/// frame, in one piece with it (virtio-net's header).
pub const HEADROOM: usize = 64;
const _: () = assert!(HEADROOM < 0x7f, "`early` has seven bits");
/// Bytes of a page, as devices count them.
const PAGE: usize = 4096;

/// Packet buffers of one size in pinned, mapped memory.
///
/// A buffer may be dropped on any thread; they are taken on one at a time. The memory lives until
/// the pool and all its buffers are gone.
pub struct Pool {
    list: FreeList,
    capacity: usize,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} x {})", self.list.total(), self.capacity)
    }
}

impl Pool {
    /// `count` buffers of `capacity` bytes each.
    ///
    /// # Errors
    /// As [`DmaRegion::alloc`]; [`Error::Usage`] for more buffers, or longer ones, than can be counted.
    pub fn new(space: &Arc<dyn DmaSpace>, count: usize, capacity: usize) -> Result<Self> {
        Self::check(count, capacity)?;
        // Whole cache lines, so that two owners do not share one.
        let stride = HEADROOM + capacity.next_multiple_of(64);
        Self::cut(space, count, (HEADROOM, capacity, stride))
    }

    /// `count` buffers of `capacity` bytes each that begin on a page of 4 KiB, with no headroom: what a disk takes.
    ///
    /// # Errors
    /// As [`Pool::new`].
    pub fn pages(space: &Arc<dyn DmaSpace>, count: usize, capacity: usize) -> Result<Self> {
        Self::check(count, capacity)?;
        Self::cut(space, count, (0, capacity, capacity.next_multiple_of(PAGE)))
    }

    /// A region of `count` pieces, which are `stride` bytes apart and begin `headroom` bytes late.
    fn cut(
        space: &Arc<dyn DmaSpace>,
        count: usize,
        (headroom, capacity, stride): (usize, usize, usize),
    ) -> Result<Self> {
        let region = DmaRegion::alloc(space, bytes_of(count, stride)?)?;
        let list = FreeList::new(
            Some(region),
            (count as u32, headroom == HEADROOM),
            |region, index| {
                let offset = index as usize * stride + headroom;
                let mapping = region.mapping();
                // SAFETY: `count * stride` bytes were allocated, so the sum stays inside.
                let ptr = unsafe { mapping.ptr.add(offset) };
                (ptr, Iova(mapping.iova.0 + offset as u64), capacity as u32)
            },
        );
        Ok(Self { list, capacity })
    }

    fn check(count: usize, capacity: usize) -> Result<()> {
        match count > MOST || capacity > MOST {
            false => Ok(()),
            true => Err(Error::Usage(format!(
                "a pool of {count} buffers of {capacity} bytes: it has up to {MOST} of up to {MOST} bytes\n  \
                 take fewer, or shorter ones"
            ))),
        }
    }

    /// Bytes that a buffer can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Number of buffers, at hand or out.
    pub fn count(&self) -> usize {
        self.list.total() as usize
    }

    /// Place and length of the memory behind it: for showing.
    pub fn mapping(&self) -> Mapping {
        let region = self.list.region().expect("a pool has a region");
        region.mapping()
    }

    /// The space that its buffers' IOVAs belong to.
    pub fn space(&self) -> SpaceId {
        let region = self.list.region().expect("a pool has a region");
        region.space()
    }

    /// Leaves the memory to [`DmaSpace::quarantine`] once the pool and all its buffers are gone: a device that did
    /// not stop may go on reaching it.
    pub fn quarantine(&self) {
        self.list.quarantine();
    }

    /// A buffer of length 0; `None` where all are out.
    #[inline]
    pub fn alloc(&self) -> Option<DmaBuf> {
        self.list.alloc().map(DmaBuf)
    }

    /// As [`Pool::alloc`], one after the other until all are out: for whoever takes many, as a ring does.
    #[inline]
    pub fn alloc_each(&self) -> impl Iterator<Item = DmaBuf> {
        self.list.alloc_each().map(DmaBuf)
    }
}

/// One packet buffer; given back to its pool when dropped.
#[derive(Debug)]
pub struct DmaBuf(pub(super) Segment);

impl DmaBuf {
    /// Bytes that it can hold.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.0.buf_header().capacity as usize
    }

    /// Bytes that count.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Address of its first byte for the device.
    #[inline]
    pub fn iova(&self) -> Iova {
        self.0.iova()
    }

    /// Address in this process: for showing, not for touching.
    pub fn address(&self) -> usize {
        self.0.address()
    }

    /// The `N` bytes right before the buffer, in its [`HEADROOM`].
    ///
    /// # Panics
    /// If the headroom is a part of the buffer ([`DmaBuf::prepend`]).
    #[inline]
    pub fn headroom<const N: usize>(&self) -> [u8; N] {
        self.headroom_at(N)
    }

    /// The `N` bytes that begin `before` bytes before the buffer, in its [`HEADROOM`].
    ///
    /// # Panics
    /// As [`DmaBuf::headroom`], and where they are not all before it.
    #[inline]
    pub fn headroom_at<const N: usize>(&self, before: usize) -> [u8; N] {
        self.0.before(before).expect("headroom before the buffer")
    }

    /// Begins `bytes` earlier, in the headroom: a device that was given the buffer with some of its
    /// headroom has filled it from there on. Until the buffer goes back to its pool.
    ///
    /// # Panics
    /// If it did so before, or has no headroom ([`Pool::pages`]).
    #[inline]
    pub fn prepend(&mut self, bytes: usize) {
        let header = self.0.buf_header_mut();
        assert!(header.early == 0 && bytes <= HEADROOM);
        // SAFETY: as `early` says, the buffer has all of its `HEADROOM` bytes before it, which go with it.
        header.ptr = unsafe { header.ptr.sub(bytes) };
        header.iova.0 -= bytes as u64;
        header.capacity += bytes as u32;
        header.early = bytes as u8;
    }

    /// Gives it up: see [`Segment::quarantine`].
    pub fn quarantine(self) {
        self.0.quarantine();
    }

    /// Sets how many bytes count.
    ///
    /// # Panics
    /// If the buffer is shorter.
    #[inline]
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity());
        self.0.buf_header_mut().len = len as u32;
    }

    /// Makes `from` its content.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn fill(&mut self, from: &[u8]) {
        self.set_len(from.len());
        self.put(0, from);
    }

    /// Copies `from` in at `offset`.
    ///
    /// # Panics
    /// If it does not fit into its length.
    pub fn put(&mut self, offset: usize, from: &[u8]) {
        self.0.put(offset, from);
    }

    /// Makes all its bytes 0.
    pub fn zero(&mut self) {
        // SAFETY: the whole length of the buffer, which we own; raw, as in `put`.
        unsafe { self.0.buf_header().ptr.as_ptr().write_bytes(0, self.len()) };
    }

    /// Its bytes as atomics, in place and without a copy, for as many threads as want them. What a device wrote, or may
    /// still write, is loaded once and judged by what was loaded: the next load may give another value.
    #[inline]
    pub fn atomic_bytes(&mut self) -> &[AtomicU8] {
        self.0.atomic_bytes().expect("a buffer is of a pool")
    }

    /// Makes the kernel copy `len` bytes of `file`, from byte `from` on, in at `offset`: one `pread`. Returns the
    /// number of bytes read.
    ///
    /// # Errors
    /// If the file cannot be read.
    ///
    /// # Panics
    /// If they do not fit into its length.
    pub fn read_at(
        &mut self,
        offset: usize,
        len: usize,
        file: &File,
        from: u64,
    ) -> io::Result<usize> {
        assert!(
            offset
                .checked_add(len)
                .is_some_and(|past| past <= self.len())
        );
        // SAFETY: inside of the buffer, which we own: no device writes it, and nobody else looks at it.
        let read = unsafe {
            let into = self.0.buf_header().ptr.as_ptr().add(offset);
            libc::pread(file.as_raw_fd(), into.cast(), len, from as libc::off_t)
        };
        usize::try_from(read).map_err(|_| io::Error::last_os_error())
    }

    /// Copies out from `offset` on.
    ///
    /// # Panics
    /// If its length is shorter.
    pub fn get(&self, offset: usize, into: &mut [u8]) {
        copy_out(&self.0, offset, into);
    }

    /// `N` bytes at `offset`; `None` where its length is shorter.
    #[inline]
    pub fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.0.array(offset)
    }

    /// Its content, copied.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        copy_out(&self.0, 0, &mut bytes);
        bytes
    }
}

impl Segment {
    /// The `N` bytes right before it; `None` where it has none: a slice of a file, or a buffer that
    /// begins in its [`HEADROOM`].
    #[inline]
    pub fn headroom<const N: usize>(&self) -> Option<[u8; N]> {
        self.before(N)
    }

    /// The `N` bytes that begin `before` bytes before it, as [`Segment::headroom`].
    #[inline]
    fn before<const N: usize>(&self, before: usize) -> Option<[u8; N]> {
        let early = usize::from(self.buf_header().early);
        (N <= before && before <= HEADROOM && early <= HEADROOM - before).then(|| {
            let mut bytes = [0; N];
            // SAFETY: as `early` says, the buffer has so many bytes before it, which go with it; a raw copy, as in `put`.
            unsafe {
                let from = self.buf_header().ptr.as_ptr().sub(before);
                from.copy_to_nonoverlapping(bytes.as_mut_ptr(), N);
            }
            bytes
        })
    }

    /// Copies `from` in at `offset`; `false` where it does not fit, or is a slice of a file.
    #[inline]
    pub fn put(&mut self, offset: usize, from: &[u8]) -> bool {
        let past = offset.checked_add(from.len());
        let fits = self.is_buffer() && past.is_some_and(|past| past <= self.len());
        if fits {
            // SAFETY: inside the buffer, which we own; a raw copy, as in `DmaBuf::put`.
            unsafe {
                let to = self.buf_header().ptr.as_ptr().add(offset);
                to.copy_from_nonoverlapping(from.as_ptr(), from.len());
            }
        }
        fits
    }

    /// `N` bytes at `offset`; `None` where its length is shorter, or it is no packet buffer.
    #[inline]
    pub fn array<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let past = offset.checked_add(N)?;
        (self.is_buffer() && past <= self.len()).then(|| {
            let mut bytes = [0; N];
            copy_out(self, offset, &mut bytes);
            bytes
        })
    }

    /// [`DmaBuf::atomic_bytes`]; `None` for a slice of a file, which the processor may not reach.
    #[inline]
    pub fn atomic_bytes(&mut self) -> Option<&[AtomicU8]> {
        self.is_buffer().then(|| {
            let first = self.buf_header().ptr.as_ptr().cast::<AtomicU8>();
            // SAFETY: inside the buffer, whose owner is borrowed as its only user for as long as the slice lives: no
            // copy that is not atomic, of which `get` and `put` are, happens meanwhile. What a device or another thread
            // writes is expected behind an atomic.
            unsafe { std::slice::from_raw_parts(first, self.len()) }
        })
    }

    /// Copies its beginning out, as much as `into` holds; gives how many bytes that is. What a device may
    /// still write is looked at in such a copy, and not read again: else it may be another thing by then.
    /// Nothing of a slice of a file.
    #[inline]
    pub fn copy_prefix(&self, into: &mut [u8]) -> usize {
        let len = if self.is_buffer() {
            self.len().min(into.len())
        } else {
            0
        };
        if len > 0 {
            copy_out(self, 0, &mut into[..len]);
        }
        len
    }

    /// Writes `header` right before the segment, into its [`HEADROOM`]; gives where the device sees
    /// it. `None` where there is no room: a slice of a file has none.
    #[inline]
    pub fn put_header<const N: usize>(&mut self, header: [u8; N]) -> Option<Iova> {
        let buf = self.buf_header_mut();
        if N + usize::from(buf.early) > HEADROOM {
            return None;
        }
        // SAFETY: as `early` says, the buffer has so many bytes before it, which go with it; a raw copy, as in `put`.
        unsafe {
            let to = buf.ptr.as_ptr().sub(N);
            to.copy_from_nonoverlapping(header.as_ptr(), N);
        }
        Some(Iova(buf.iova.0 - N as u64))
    }
}

/// Copies bytes of a packet buffer out.
#[inline]
pub(super) fn copy_out(segment: &Segment, offset: usize, into: &mut [u8]) {
    let past = offset.checked_add(into.len());
    assert!(segment.is_buffer() && past.is_some_and(|past| past <= segment.len()));
    // SAFETY: inside the buffer, whose owner is borrowed; a raw copy, as in `put`.
    unsafe {
        let from = segment.buf_header().ptr.as_ptr().add(offset);
        from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len());
    }
    // The copy is what counts from here on: the compiler must not go back to the buffer for it, which a
    // device may write.
    compiler_fence(Ordering::SeqCst);
}
