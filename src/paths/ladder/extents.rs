//! A file's extents (FIEMAP), and whether another file shares them.

use std::fs::File;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// `struct fiemap` of linux/fiemap.h.
#[repr(C)]
#[derive(Default)]
struct Fiemap {
    start: u64,
    length: u64,
    flags: u32,
    mapped_extents: u32,
    extent_count: u32,
    reserved: u32,
}

/// `struct fiemap_extent`.
#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Extent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved: [u64; 2],
    flags: u32,
    reserved_too: [u32; 3],
}

const _: () = assert!(size_of::<Fiemap>() == 32 && size_of::<Extent>() == 56);

const FS_IOC_FIEMAP: Opcode = opcode::read_write::<Fiemap>(b'f', 11);
const FIEMAP_EXTENT_LAST: u32 = 0x0001;
const FIEMAP_EXTENT_SHARED: u32 = 0x2000;

#[repr(C)]
#[derive(Default)]
struct Request {
    head: Fiemap,
    extents: [Extent; 32],
}

/// Returns whether all blocks of the `len` bytes from `begin` on are shared with another file. A hole has no blocks.
/// False where the file system does not tell.
pub(super) fn are_shared(file: &File, begin: u64, len: u64) -> bool {
    let (mut at, end) = (begin, begin + len);
    while at < end {
        let mut request = Request::default();
        request.head.start = at;
        request.head.length = end - at;
        request.head.extent_count = request.extents.len() as u32;
        // SAFETY: the opcode is FIEMAP's, which writes a header and `extent_count` extents: a `Request`.
        let asked = unsafe {
            let ask = Updater::<FS_IOC_FIEMAP, Request>::new(&mut request);
            ioctl(file, ask)
        };
        let told = request.head.mapped_extents as usize;
        let extents = &request.extents[..told.min(request.extents.len())];
        if asked.is_err()
            || extents
                .iter()
                .any(|extent| extent.flags & FIEMAP_EXTENT_SHARED == 0)
        {
            return false;
        }
        match extents.last() {
            Some(last) if last.flags & FIEMAP_EXTENT_LAST == 0 => at = last.logical + last.length,
            _ => return true,
        }
    }
    true
}
