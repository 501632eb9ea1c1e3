//! A stretch of memory that is pinned and mapped for a device.
//!
//! The device may write it at any moment, so it is reached through atomics ([`DmaArray`]) or raw
//! copies, never through a reference to plain bytes. It is unmapped from the IOMMU first and given
//! back to the system after, in that order, when its owner goes.

use std::fs::File;
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use super::Iova;
use crate::error::{Error, Result};

/// Identity of a [`DmaSpace`]: the same IOVA means other memory in another space, so regions, buffers and
/// chains carry the identity of theirs, and a ring refuses what is of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpaceId(u32);

impl SpaceId {
    /// The space of a buffer with no memory: the slices of an empty file.
    pub(super) const NOWHERE: Self = Self(0);

    /// An identity that no other space has.
    ///
    /// # Panics
    /// After 2^32 of them: an identity is never given twice.
    #[allow(clippy::new_without_default)] // each is another
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let next = NEXT.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |id| id.checked_add(1));
        Self(next.expect("fewer than 2^32 spaces"))
    }

    #[inline]
    pub(super) fn number(self) -> u32 {
        self.0
    }

    #[inline]
    pub(super) fn of_number(number: u32) -> Self {
        Self(number)
    }
}

/// An I/O address space, from which DMA memory comes: a backend gives one to its drivers.
///
/// # Safety
/// A [`Mapping`] must be valid memory of its length until [`DmaSpace::unmap`] or
/// [`DmaSpace::quarantine`], owned by nobody else, page-aligned, and readable (and writable, but for a
/// file) by this process. [`DmaSpace::id`] is always the same, and no other space's. Memory is freed as
/// each of the two says: nothing else decides that a device cannot reach it.
pub unsafe trait DmaSpace: Send + Sync {
    /// Its identity.
    fn id(&self) -> SpaceId;

    /// Hands out no address behind `last` from here on, neither for memory nor for files: the device named so reaches no
    /// further. Of several devices in one space the narrowest counts, since each may be given what is in it.
    ///
    /// # Errors
    /// [`Error::OutOfReach`] where something is handed out beyond already.
    fn limit(&self, device: &str, last: Iova) -> Result<()>;

    /// Pins at least `len` bytes of zeroed memory and maps them for reading and writing.
    ///
    /// # Errors
    /// No memory, no IOVA range, or the locked-memory limit.
    fn alloc(&self, len: usize) -> Result<Mapping>;

    /// Maps `len` bytes of `file` from `offset` (a multiple of the page size) for the device to
    /// read, straight from the page cache.
    ///
    /// # Errors
    /// As [`DmaSpace::alloc`], and where the file cannot be mapped.
    fn map_file(&self, file: &File, offset: u64, len: usize) -> Result<Mapping>;

    /// Undoes `mapping`: from here on the device cannot reach the memory, and it is freed. Its IOVAs may
    /// be handed out again.
    ///
    /// # Safety
    /// `mapping` came from this space, is undone once, and nobody uses its memory any more: neither this
    /// process nor a device.
    unsafe fn unmap(&self, mapping: &Mapping);

    /// Undoes `mapping` of a device that did not stop. Where an IOMMU cuts the device off, the memory is
    /// freed after that; where none does, never. Its IOVAs are never handed out again: the device may go
    /// on using them, and would reach somebody else's memory.
    ///
    /// # Safety
    /// `mapping` came from this space, is undone once, and this process does not use its memory any more.
    unsafe fn quarantine(&self, mapping: &Mapping);
}

/// Bytes of `count` pieces of `each`; no more than there are addresses, and room to round them up.
pub(super) fn bytes_of(count: usize, each: usize) -> Result<usize> {
    let bytes = count.checked_mul(each);
    bytes
        .filter(|bytes| *bytes <= isize::MAX as usize / 2)
        .ok_or_else(|| {
            Error::Usage(format!(
                "{count} times {each} bytes are more memory than there are addresses\n  \
                 take fewer, or shorter ones"
            ))
        })
}

/// Memory that a [`DmaSpace`] hands out.
#[derive(Debug, Clone, Copy)]
pub struct Mapping {
    /// Its first byte in this process.
    pub ptr: NonNull<u8>,
    /// Length in bytes: a multiple of `page`.
    pub len: usize,
    /// Address of its first byte for the device.
    pub iova: Iova,
    /// Size of the pages behind it, in bytes.
    pub page: usize,
}

// SAFETY: a `Mapping` is an address and three numbers; what may be done with the memory is the
// business of the types that own one.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// Pinned memory mapped at an IOVA; unmapped and freed when dropped.
///
/// One owner writes it at a time, so that no two threads race on plain bytes:
///
/// ```compile_fail,E0596
/// # use pinwire::dma::DmaRegion;
/// fn write_what_others_read(region: &DmaRegion) {
///     region.write(0, b"who else?");
/// }
/// ```
pub struct DmaRegion {
    mapping: Mapping,
    space: Arc<dyn DmaSpace>,
    is_quarantined: bool,
}

impl std::fmt::Debug for DmaRegion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.mapping.fmt(f)
    }
}

impl Drop for DmaRegion {
    fn drop(&mut self) {
        // SAFETY: the mapping came from this space and this is its only owner, which ends here. Who had a
        // device use it has stopped the device, or said `quarantine`.
        unsafe {
            match self.is_quarantined {
                false => self.space.unmap(&self.mapping),
                true => self.space.quarantine(&self.mapping),
            }
        }
    }
}

impl DmaRegion {
    /// At least `len` bytes of zeroed memory.
    ///
    /// # Errors
    /// As [`DmaSpace::alloc`]; [`Error::Usage`] for more than there are addresses.
    pub fn alloc(space: &Arc<dyn DmaSpace>, len: usize) -> Result<Self> {
        Ok(Self {
            mapping: space.alloc(bytes_of(1, len)?)?,
            space: Arc::clone(space),
            is_quarantined: false,
        })
    }

    /// The page cache of `file`, for the device to read; see [`DmaSpace::map_file`].
    pub(super) fn map_file(
        space: &Arc<dyn DmaSpace>,
        file: &File,
        offset: u64,
        len: usize,
    ) -> Result<Self> {
        Ok(Self {
            mapping: space.map_file(file, offset, len)?,
            space: Arc::clone(space),
            is_quarantined: false,
        })
    }

    /// Leaves it to [`DmaSpace::quarantine`] when it is dropped: a device that did not stop may go on reaching it.
    pub fn quarantine(&mut self) {
        self.is_quarantined = true;
    }

    /// The space that its IOVA belongs to.
    pub fn space(&self) -> SpaceId {
        self.space.id()
    }

    /// Its place and length: for showing.
    pub fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// Address of its first byte for the device.
    pub fn iova(&self) -> Iova {
        self.mapping.iova
    }

    /// Length in bytes.
    pub fn size(&self) -> usize {
        self.mapping.len
    }

    /// Its bytes as atomics: as [`DmaBuf::atomic_bytes`](super::DmaBuf::atomic_bytes).
    pub fn atomic_bytes(&mut self) -> &[AtomicU8] {
        let first = self.mapping.ptr.as_ptr().cast::<AtomicU8>();
        // SAFETY: the whole mapping, whose only owner is borrowed as its only user for as long as the slice lives: no
        // copy that is not atomic happens meanwhile. What a device or another thread writes is expected behind an atomic.
        unsafe { std::slice::from_raw_parts(first, self.mapping.len) }
    }

    /// Copies `from` in at `offset` bytes.
    ///
    /// # Panics
    /// If it does not fit.
    pub fn write(&mut self, offset: usize, from: &[u8]) {
        let past = offset.checked_add(from.len());
        assert!(past.is_some_and(|past| past <= self.mapping.len));
        // SAFETY: inside the mapping, whose only owner is borrowed: no other thread of this process
        // looks. A raw copy, since the device may write the same bytes.
        unsafe {
            let to = self.mapping.ptr.as_ptr().add(offset);
            to.copy_from_nonoverlapping(from.as_ptr(), from.len());
        }
    }

    /// Copies out from `offset` bytes on.
    ///
    /// # Panics
    /// If the region is shorter.
    pub fn read(&self, offset: usize, into: &mut [u8]) {
        let past = offset.checked_add(into.len());
        assert!(past.is_some_and(|past| past <= self.mapping.len));
        // SAFETY: inside the mapping; whoever writes it must borrow the region, as this does. A raw
        // copy, since the device may write the same bytes.
        unsafe {
            let from = self.mapping.ptr.as_ptr().add(offset);
            from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len());
        }
    }
}

/// Types that may lie in memory which the device also writes: any bit pattern is a value, and access is atomic.
///
/// # Safety
/// Valid for all bit patterns, no padding, no destructor, all access through atomics.
pub unsafe trait Shared {}

// SAFETY: an atomic integer is valid for all bit patterns.
unsafe impl Shared for AtomicU8 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU16 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU32 {}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {}
// SAFETY: an array of such.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {}

/// Declares a descriptor: a tuple struct of [`Shared`] words, so that a driver needs no `unsafe`.
///
/// ```
/// pinwire::descriptor! {
///     /// A buffer's IOVA, and the rest.
///     #[repr(C, align(16))]
///     pub struct Desc([std::sync::atomic::AtomicU64; 2]);
/// }
/// ```
#[macro_export]
macro_rules! descriptor {
    ($(#[$meta:meta])* pub struct $name:ident($words:ty);) => {
        $(#[$meta])*
        #[derive(Debug)]
        pub struct $name($words);

        const _: () = {
            const fn words_are_shared<T: $crate::dma::Shared>() {}
            words_are_shared::<$words>();
            assert!(size_of::<$name>() == size_of::<$words>(), "padding");
        };

        // SAFETY: its only field is `Shared`, and the size says that there is no padding.
        unsafe impl $crate::dma::Shared for $name {}
    };
}

/// A region seen as `T`s, such as a ring's descriptors.
#[derive(Debug)]
pub struct DmaArray<T> {
    region: DmaRegion,
    first: NonNull<T>,
    /// Address of the first item for the device.
    iova: Iova,
    len: usize,
    items: PhantomData<T>,
}

// SAFETY: it owns its region, and `T: Shared` is reached through atomics only.
unsafe impl<T: Shared> Send for DmaArray<T> {}

impl<T: Shared> DmaArray<T> {
    /// `len` zeroed items at the beginning of a fresh region.
    ///
    /// # Errors
    /// As [`DmaRegion::alloc`].
    pub fn alloc(space: &Arc<dyn DmaSpace>, len: usize) -> Result<Self> {
        Self::alloc_within(space, len, None)
    }

    /// As [`DmaArray::alloc`], but what the device sees does not go across a multiple of `boundary` bytes,
    /// for devices that cannot write there. Twice the memory is taken, and the half that does is used.
    ///
    /// # Errors
    /// As [`DmaArray::alloc`]; [`Error::Usage`] where the items are longer than `boundary`.
    pub fn alloc_within(
        space: &Arc<dyn DmaSpace>,
        len: usize,
        boundary: Option<usize>,
    ) -> Result<Self> {
        let bytes = bytes_of(len, size_of::<T>())?;
        let Some(boundary) = boundary else {
            return Self::at(DmaRegion::alloc(space, bytes)?, 0, len);
        };
        if bytes > boundary {
            return Err(Error::Usage(format!(
                "{bytes} bytes that do not go across a multiple of {boundary}\n  take fewer items"
            )));
        }
        let region = DmaRegion::alloc(space, bytes_of(2, bytes)?)?;
        // Where they would go across one from the start on, they begin at it: it is within `bytes`.
        let past = (region.iova().0 % boundary as u64) as usize;
        let offset = match past + bytes > boundary {
            true => boundary - past,
            false => 0,
        };
        Self::at(region, offset, len)
    }

    /// `len` items from byte `offset` of `region` on.
    fn at(region: DmaRegion, offset: usize, len: usize) -> Result<Self> {
        let mapping = region.mapping();
        let past = bytes_of(len, size_of::<T>())?.checked_add(offset);
        assert!(past.is_some_and(|past| past <= mapping.len));
        // SAFETY: the offset is inside of the mapping, as just seen.
        let first = unsafe { mapping.ptr.add(offset) }.cast::<T>();
        assert!(first.is_aligned());
        Ok(Self {
            first,
            iova: Iova(mapping.iova.0 + offset as u64),
            region,
            len,
            items: PhantomData,
        })
    }

    /// As [`DmaRegion::quarantine`].
    pub fn quarantine(&mut self) {
        self.region.quarantine();
    }

    /// The space that its IOVAs belong to.
    pub fn space(&self) -> SpaceId {
        self.region.space()
    }

    /// Address of item `index` for the device.
    pub fn iova(&self, index: usize) -> Iova {
        Iova(self.iova.0 + (index * size_of::<T>()) as u64)
    }
}

impl<T: Shared> Deref for DmaArray<T> {
    type Target = [T];

    #[inline]
    fn deref(&self) -> &[T] {
        // SAFETY: the region holds `len` aligned `T`s (checked in `at`), any bit pattern is one,
        // and `T: Shared` expects writes behind a shared reference.
        unsafe { std::slice::from_raw_parts(self.first.as_ptr(), self.len) }
    }
}
