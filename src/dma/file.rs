//! A file's page cache, for the device to read: the userspace `sendfile`.
//!
//! The file is mapped shared and read-only, and its pages are pinned where they are, so the NIC
//! reads what the kernel caches: no copy, and a `write` to the file is in the next frame. There is no
//! way to read the bytes through a [`DmaFile`], so no copy can be made by accident;
//! [`DmaFile::deny_cpu`] makes the processor itself refuse.

use std::fs::File;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;

use super::free_list::FreeList;
use super::{DmaRegion, DmaSpace, Iova, Mapping, Segment};
use crate::error::{Error, Result};

/// A file, or a part of one, whose page cache is pinned and mapped for the device to read.
pub struct DmaFile {
    list: FreeList,
    file: File,
    /// Its beginning in the file, in bytes.
    offset: u64,
    len: u64,
}

impl std::fmt::Debug for DmaFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DmaFile({} bytes)", self.len)
    }
}

impl DmaFile {
    /// Alignment of a part's beginning, in bytes: no system has larger base pages.
    pub const ALIGN: u64 = 64 << 10;

    /// Maps all of `file`; at most `in_flight` slices of it can be out at a time. An empty file has
    /// nothing to map and gives no slices.
    ///
    /// # Errors
    /// As [`DmaSpace::map_file`].
    pub fn map(space: &Arc<dyn DmaSpace>, file: &File, in_flight: usize) -> Result<Self> {
        Self::map_part(space, file, (0, file_len(file)?), in_flight)
    }

    /// Maps `len` bytes from `offset` on, which is a multiple of [`DmaFile::ALIGN`], for a file of which
    /// not all can be pinned at once. What is in flight of a part stays pinned when the part is dropped.
    ///
    /// # Errors
    /// As [`DmaSpace::map_file`].
    ///
    /// # Panics
    /// At another `offset`.
    pub fn map_part(
        space: &Arc<dyn DmaSpace>,
        file: &File,
        (offset, len): (u64, u64),
        in_flight: usize,
    ) -> Result<Self> {
        assert!(
            offset.is_multiple_of(Self::ALIGN),
            "a part begins at {offset}"
        );
        let size = usize::try_from(len)
            .map_err(|_| Error::Usage(format!("a file of {len} bytes is too long to map")))?;
        let region = (len > 0)
            .then(|| DmaRegion::map_file(space, file, offset, size))
            .transpose()?;
        let count = if len > 0 { in_flight as u32 } else { 0 };
        let list = FreeList::new(region, (count, false), |region, _| {
            let mapping = region.mapping();
            (mapping.ptr, mapping.iova, 0)
        });
        let file = file
            .as_fd()
            .try_clone_to_owned()
            .map_err(|source| Error::io("duplicating the file's descriptor", source))?;
        Ok(Self {
            list,
            file: file.into(),
            offset,
            len,
        })
    }

    /// Bytes that are mapped: of a whole file, its length when it was.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Length of the file now: less where somebody has truncated it. The pages that were mapped
    /// stay pinned, so what is in flight is still what was in them.
    ///
    /// # Errors
    /// If the system cannot tell.
    pub fn len_now(&self) -> Result<u64> {
        file_len(&self.file)
    }

    /// Takes this process's access to the mapping away (`mprotect(PROT_NONE)`): from here on a copy
    /// of the payload by the CPU would end the program with a segmentation fault, while the device,
    /// which goes through the IOMMU, still reads it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn deny_cpu(&self) -> Result<()> {
        let Some(region) = self.list.region() else {
            return Ok(());
        };
        let mapping = region.mapping();
        // SAFETY: a whole mapping that we own; there is no function that reads through it.
        let done =
            unsafe { libc::mprotect(mapping.ptr.as_ptr().cast(), mapping.len, libc::PROT_NONE) };
        match done {
            0 => Ok(()),
            _ => Err(Error::last_os("mprotect(PROT_NONE) of the file's mapping")),
        }
    }

    /// Its mapping, for showing: never to be read through.
    pub fn mapping(&self) -> Option<Mapping> {
        self.list.region().map(DmaRegion::mapping)
    }

    /// `len` bytes from byte `offset` of the file on; `None` where `in_flight` slices are out already.
    ///
    /// # Panics
    /// If that is not inside what was mapped, or is empty.
    #[inline]
    pub fn slice(&self, offset: u64, len: usize) -> Option<FileSlice> {
        let offset = offset
            .checked_sub(self.offset)
            .expect("a place in this part");
        let past = offset.checked_add(len as u64);
        assert!(len > 0 && past.is_some_and(|past| past <= self.len));
        let mapping = self.list.region()?.mapping();
        let mut segment = self.list.alloc()?;
        let header = segment.buf_header_mut();
        header.iova = Iova(mapping.iova.0 + offset);
        // An address for `show`, never read through.
        header.ptr =
            NonNull::new(mapping.ptr.as_ptr().wrapping_add(offset as usize)).unwrap_or(mapping.ptr);
        header.len = u32::try_from(len).expect("a slice of at most 4 GiB");
        Some(FileSlice(segment))
    }
}

/// Length in bytes.
fn file_len(file: &File) -> Result<u64> {
    let metadata = file.metadata();
    let os = |source| Error::io("reading the file's length", source);
    Ok(metadata.map_err(os)?.len())
}

/// A stretch of a [`DmaFile`]; the CPU cannot read or write it.
#[derive(Debug)]
pub struct FileSlice(pub(super) Segment);

impl FileSlice {
    /// Length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Address of its first byte for the device.
    pub fn iova(&self) -> Iova {
        self.0.iova()
    }
}
