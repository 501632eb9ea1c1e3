//! An AF_XDP socket that sends, in copy mode (Documentation/networking/af_xdp.rst): frames lie in memory
//! of ours that the kernel has pinned (UMEM), one ring says which are to go, another which have gone.
//!
//! What sends only needs no program in the kernel, and no fill ring, but the kernel insists on its size.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use memmap2::{MmapMut, MmapOptions, MmapRaw};
use rustix::io::Errno;
use rustix::net::xdp::{
    SocketAddrXdp, SocketAddrXdpFlags, XDP_PGOFF_TX_RING, XDP_UMEM_PGOFF_COMPLETION_RING, XdpDesc,
    XdpDescOptions, XdpRingOffset, XdpUmemReg, XdpUmemRegFlags,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};

use super::frames::{self, FrameRing};
use super::{Why, unsupported};

/// Frames under way at most, and entries of each ring: a power of two. So a free frame has a free entry.
const FRAMES: u32 = 1024;
/// Bytes of each.
const CHUNK: usize = 2048;
/// Longest time for the kernel to let the interface's queue go, which it does after a socket is closed.
const LET_GO: Duration = Duration::from_secs(5);

const THROWN_AWAY: &str = "the interface has thrown a frame away (EBUSY)\n  \
    a datagram must fit into its MTU, and its link be up: see ip link";

/// The socket, its memory and its rings.
pub(super) struct Xsk {
    // Closed first.
    socket: OwnedFd,
    umem: MmapMut,
    send: Ring<XdpDesc>,
    done: Ring<u64>,
    /// Offsets in the umem of the frames that are ours.
    free: Vec<u64>,
}

impl Xsk {
    /// Opens a socket on the first queue of the interface `index`.
    ///
    /// # Errors
    /// Missing privilege (CAP_NET_RAW), a kernel or an interface without it, too little memory that may be locked:
    /// [`Why::Missing`]; no such interface; somebody else has the queue.
    pub fn new(index: u32) -> Result<Self, Why> {
        let failed = |call| {
            move |errno: Errno| {
                let source = errno.into();
                let why = Why::Call { call, source };
                why.or_missing(&unsupported::NET_RAW)
                    .or_missing(&unsupported::AF_XDP)
            }
        };
        let map = |source| Why::Call {
            call: "mmap of an AF_XDP ring",
            source,
        };
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, flags, None);
        let socket = socket.map_err(failed("opening an AF_XDP socket"))?;
        let len = FRAMES as usize * CHUNK;
        let umem = MmapOptions::new().len(len).map_anon().map_err(map)?;
        let region = XdpUmemReg {
            addr: umem.as_ptr() as u64,
            len: len as u64,
            chunk_size: CHUNK as u32,
            headroom: 0,
            flags: XdpUmemRegFlags::empty(),
            tx_metadata_len: 0,
        };
        sockopt::set_xdp_umem_reg(&socket, region).map_err(|errno| match errno {
            Errno::NOBUFS => Why::Missing(format!(
                "AF_XDP pins {} MiB, and less may be locked: ulimit -l, or run it as root",
                len >> 20
            )),
            errno => failed("XDP_UMEM_REG")(errno),
        })?;
        sockopt::set_xdp_umem_fill_ring_size(&socket, FRAMES)
            .and_then(|()| sockopt::set_xdp_umem_completion_ring_size(&socket, FRAMES))
            .and_then(|()| sockopt::set_xdp_tx_ring_size(&socket, FRAMES))
            .map_err(failed("making the AF_XDP rings"))?;
        let offsets = sockopt::xdp_mmap_offsets(&socket).map_err(failed("XDP_MMAP_OFFSETS"))?;
        let send = Ring::map(&socket, XDP_PGOFF_TX_RING, offsets.tx).map_err(map)?;
        let done = Ring::map(&socket, XDP_UMEM_PGOFF_COMPLETION_RING, offsets.cr).map_err(map)?;
        // Copy mode needs a call for each batch, whatever XDP_USE_NEED_WAKEUP might say.
        let address = SocketAddrXdp::new(SocketAddrXdpFlags::XDP_COPY, index, 0);
        let begin = Instant::now();
        while let Err(errno) = bind(&socket, &address) {
            if errno != Errno::BUSY || begin.elapsed() > LET_GO {
                return Err(failed("binding the AF_XDP socket to the interface's queue")(errno));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self {
            socket,
            umem,
            send,
            done,
            free: (0..FRAMES)
                .rev()
                .map(|frame| u64::from(frame) * CHUNK as u64)
                .collect(),
        })
    }

    /// Takes back what has gone.
    fn reap(&mut self) {
        while self.done.ours != self.done.producer().load(Ordering::Acquire) {
            // SAFETY: the kernel has written this entry (Acquire), and writes it again only when it is
            // given back below.
            let begin = unsafe { self.done.entry().read() };
            self.free.push(begin);
            self.done.ours = self.done.ours.wrapping_add(1);
            // Release: it is read before it is given back.
            let consumer = self.done.consumer();
            consumer.store(self.done.ours, Ordering::Release);
        }
    }
}

impl FrameRing for Xsk {
    const ROOM: usize = CHUNK;

    fn slot(&mut self) -> Option<&mut [u8]> {
        if self.free.is_empty() {
            self.reap();
        }
        let begin = *self.free.last()? as usize;
        Some(&mut self.umem[begin..begin + CHUNK])
    }

    fn push(&mut self, len: usize) {
        let addr = self.free.pop().expect("a slot");
        assert!(len <= CHUNK);
        let frame = XdpDesc {
            addr,
            len: len as u32,
            options: XdpDescOptions::empty(),
        };
        // SAFETY: the entry is free, since a frame was: no more frames are under way than it has entries.
        unsafe { self.send.entry().write(frame) };
        self.send.ours = self.send.ours.wrapping_add(1);
        // Release: the frame and its entry before the index that hands it over.
        let producer = self.send.producer();
        producer.store(self.send.ours, Ordering::Release);
    }

    fn kick(&mut self) -> io::Result<bool> {
        frames::kick(self.socket.as_fd()).map_err(|error| match error.kind() {
            io::ErrorKind::ResourceBusy => io::Error::other(THROWN_AWAY),
            _ => error,
        })?;
        Ok(self.send.consumer().load(Ordering::Acquire) == self.send.ours)
    }

    fn is_idle(&mut self) -> bool {
        self.reap();
        self.free.len() == FRAMES as usize
    }
}

impl AsFd for Xsk {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// The kernel has the memory pinned until it needs it no more: what goes here is our way to it.
impl Drop for Xsk {
    fn drop(&mut self) {
        frames::quiesce(self);
    }
}

/// One of the kernel's rings, of [`FRAMES`] entries.
struct Ring<T> {
    map: MmapRaw,
    offsets: XdpRingOffset,
    /// The index that we move: it counts on, and is taken modulo the entries.
    ours: u32,
    entries: std::marker::PhantomData<T>,
}

impl<T> Ring<T> {
    fn map(socket: &OwnedFd, place: u64, offsets: XdpRingOffset) -> io::Result<Self> {
        let len = offsets.desc as usize + FRAMES as usize * size_of::<T>();
        let index = |offset| offset + 4 <= offsets.desc && offset % 4 == 0;
        let there = [offsets.producer, offsets.consumer].into_iter().all(index);
        if !there || !offsets.desc.is_multiple_of(align_of::<T>() as u64) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self {
            map: MmapOptions::new().offset(place).len(len).map_raw(socket)?,
            offsets,
            ours: 0,
            entries: std::marker::PhantomData,
        })
    }

    /// Returns the address of the next entry.
    fn entry(&self) -> *mut T {
        let entries = self
            .map
            .as_mut_ptr()
            .wrapping_add(self.offsets.desc as usize);
        // Inside the mapping, which is as long as that, and aligned.
        entries
            .cast::<T>()
            .wrapping_add((self.ours % FRAMES) as usize)
    }

    fn producer(&self) -> &AtomicU32 {
        self.index(self.offsets.producer)
    }

    fn consumer(&self) -> &AtomicU32 {
        self.index(self.offsets.consumer)
    }

    fn index(&self, offset: u64) -> &AtomicU32 {
        let index = self.map.as_mut_ptr().wrapping_add(offset as usize).cast();
        // SAFETY: inside the mapping and aligned (`map` looked); the kernel shares it, hence atomics.
        unsafe { AtomicU32::from_ptr(index) }
    }
}
