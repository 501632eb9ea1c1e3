//! The ioctls of VFIO, each as a function that cannot be called with the wrong structure.
//!
//! Numbers and structures are those of `linux/vfio.h`. Some answers carry a chain of capabilities
//! behind the structure: those come back with [`Capabilities`], which walks it.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};

use vfio_bindings::bindings::vfio::*;
use vmm_sys_util::ioctl::{
    ioctl, ioctl_with_mut_ref, ioctl_with_ptr, ioctl_with_ref, ioctl_with_val,
};
use vmm_sys_util::ioctl_io_nr;

const TYPE: u32 = VFIO_TYPE as u32;

ioctl_io_nr!(VFIO_GET_API_VERSION, TYPE, VFIO_BASE);
ioctl_io_nr!(VFIO_CHECK_EXTENSION, TYPE, VFIO_BASE + 1);
ioctl_io_nr!(VFIO_SET_IOMMU, TYPE, VFIO_BASE + 2);
ioctl_io_nr!(VFIO_GROUP_GET_STATUS, TYPE, VFIO_BASE + 3);
ioctl_io_nr!(VFIO_GROUP_SET_CONTAINER, TYPE, VFIO_BASE + 4);
ioctl_io_nr!(VFIO_GROUP_GET_DEVICE_FD, TYPE, VFIO_BASE + 6);
ioctl_io_nr!(VFIO_DEVICE_GET_INFO, TYPE, VFIO_BASE + 7);
ioctl_io_nr!(VFIO_DEVICE_GET_REGION_INFO, TYPE, VFIO_BASE + 8);
ioctl_io_nr!(VFIO_DEVICE_GET_IRQ_INFO, TYPE, VFIO_BASE + 9);
ioctl_io_nr!(VFIO_DEVICE_SET_IRQS, TYPE, VFIO_BASE + 10);
ioctl_io_nr!(VFIO_DEVICE_RESET, TYPE, VFIO_BASE + 11);
ioctl_io_nr!(VFIO_IOMMU_GET_INFO, TYPE, VFIO_BASE + 12);
ioctl_io_nr!(VFIO_IOMMU_MAP_DMA, TYPE, VFIO_BASE + 13);
ioctl_io_nr!(VFIO_IOMMU_UNMAP_DMA, TYPE, VFIO_BASE + 14);

/// Bytes of a structure, for its `argsz`.
fn argsz<T>() -> u32 {
    size_of::<T>() as u32
}

fn check(result: i32) -> io::Result<i32> {
    match result {
        ..0 => Err(io::Error::last_os_error()),
        _ => Ok(result),
    }
}

/// Returns the version of the interface that the kernel speaks; there is only 0.
pub fn api_version(container: &File) -> io::Result<i32> {
    // SAFETY: takes no argument.
    check(unsafe { ioctl(container, VFIO_GET_API_VERSION()) })
}

/// Returns whether the kernel has this kind of IOMMU.
pub fn has_extension(container: &File, kind: u32) -> io::Result<bool> {
    // SAFETY: takes a number.
    let found = check(unsafe { ioctl_with_val(container, VFIO_CHECK_EXTENSION(), kind.into()) })?;
    Ok(found > 0)
}

/// Gives the container its kind of IOMMU; it must have a group.
pub fn set_iommu(container: &File, kind: u32) -> io::Result<()> {
    // SAFETY: takes a number.
    check(unsafe { ioctl_with_val(container, VFIO_SET_IOMMU(), kind.into()) }).map(drop)
}

/// The group's flags.
pub fn group_flags(group: &File) -> io::Result<u32> {
    let mut status = vfio_group_status {
        argsz: argsz::<vfio_group_status>(),
        flags: 0,
    };
    // SAFETY: takes this structure, whose size is in it.
    check(unsafe { ioctl_with_mut_ref(group, VFIO_GROUP_GET_STATUS(), &mut status) })?;
    Ok(status.flags)
}

/// Puts the group into the container.
pub fn set_container(group: &File, container: &File) -> io::Result<()> {
    let fd: RawFd = container.as_raw_fd();
    // SAFETY: takes a pointer to a descriptor, which is open.
    check(unsafe { ioctl_with_ref(group, VFIO_GROUP_SET_CONTAINER(), &fd) }).map(drop)
}

/// Opens the device of that name in the group.
pub fn device(group: &File, name: &std::ffi::CStr) -> io::Result<File> {
    // SAFETY: takes a string that ends in a zero byte.
    let fd = check(unsafe { ioctl_with_ptr(group, VFIO_GROUP_GET_DEVICE_FD(), name.as_ptr()) })?;
    // SAFETY: the kernel has just opened it for us alone.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// The device's flags.
pub fn device_flags(device: &File) -> io::Result<u32> {
    let mut info = vfio_device_info {
        argsz: argsz::<vfio_device_info>(),
        ..Default::default()
    };
    // SAFETY: takes this structure, whose size is in it.
    check(unsafe { ioctl_with_mut_ref(device, VFIO_DEVICE_GET_INFO(), &mut info) })?;
    Ok(info.flags)
}

/// Resets the function, and waits until it is done.
pub fn reset(device: &File) -> io::Result<()> {
    // SAFETY: takes no argument.
    check(unsafe { ioctl(device, VFIO_DEVICE_RESET()) }).map(drop)
}

/// Reads the description of region `index`.
pub fn region_info(device: &File, index: u32) -> io::Result<(vfio_region_info, Capabilities)> {
    let head = vfio_region_info {
        argsz: argsz::<Question<vfio_region_info>>(),
        index,
        ..Default::default()
    };
    let mut question = Question::new(head);
    // SAFETY: takes this structure with room behind it; the size of both is in it.
    check(unsafe { ioctl_with_mut_ref(device, VFIO_DEVICE_GET_REGION_INFO(), &mut *question) })?;
    question.answer(question.head.argsz, question.head.cap_offset)
}

/// Reads the IOMMU's abilities.
pub fn iommu_info(container: &File) -> io::Result<(vfio_iommu_type1_info, Capabilities)> {
    let head = vfio_iommu_type1_info {
        argsz: argsz::<Question<vfio_iommu_type1_info>>(),
        ..Default::default()
    };
    let mut question = Question::new(head);
    // SAFETY: takes this structure with room behind it; the size of both is in it.
    check(unsafe { ioctl_with_mut_ref(container, VFIO_IOMMU_GET_INFO(), &mut *question) })?;
    question.answer(question.head.argsz, question.head.cap_offset)
}

/// Reads the description of interrupts of kind `index`.
pub fn irq_info(device: &File, index: u32) -> io::Result<vfio_irq_info> {
    let mut info = vfio_irq_info {
        argsz: argsz::<vfio_irq_info>(),
        index,
        ..Default::default()
    };
    // SAFETY: takes this structure, whose size is in it.
    check(unsafe { ioctl_with_mut_ref(device, VFIO_DEVICE_GET_IRQ_INFO(), &mut info) })?;
    Ok(info)
}

/// `vfio_irq_set` is five words; what its flags announce follows.
const IRQ_SET_WORDS: usize = 5;
const _: () = assert!(size_of::<vfio_irq_set>() == IRQ_SET_WORDS * 4);

/// Turns on the first vectors of kind `index`, one for each of `events`.
pub fn trigger_events(device: &File, index: u32, events: &[RawFd]) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    set_irqs(device, flags, index, events.len(), events)
}

/// Turns off all vectors of kind `index`.
pub fn disable_irqs(device: &File, index: u32) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    set_irqs(device, flags, index, 0, &[])
}

/// Lets the first vector of kind `index` fire again.
pub fn unmask_irq(device: &File, index: u32) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_UNMASK;
    set_irqs(device, flags, index, 1, &[])
}

fn set_irqs(
    device: &File,
    flags: u32,
    index: u32,
    count: usize,
    events: &[RawFd],
) -> io::Result<()> {
    let size = 4 * (IRQ_SET_WORDS + events.len());
    let mut words = vec![size as u32, flags, index, 0, count as u32];
    words.extend(events.iter().map(|&event| event as u32));
    // SAFETY: takes a `vfio_irq_set` and the descriptors behind it; the size of both is in it.
    check(unsafe { ioctl_with_ptr(device, VFIO_DEVICE_SET_IRQS(), words.as_ptr()) }).map(drop)
}

/// Maps `len` bytes at `address` for the device at `iova`; pins them.
///
/// # Safety
/// The memory must not go, nor be used for anything that minds the device, until it is unmapped.
pub unsafe fn map_dma(
    container: &File,
    flags: u32,
    address: *const u8,
    iova: u64,
    len: usize,
) -> io::Result<()> {
    let map = vfio_iommu_type1_dma_map {
        argsz: argsz::<vfio_iommu_type1_dma_map>(),
        flags,
        vaddr: address as u64,
        iova,
        size: len as u64,
    };
    // SAFETY: takes this structure, whose size is in it; the caller vouches for the memory.
    check(unsafe { ioctl_with_ref(container, VFIO_IOMMU_MAP_DMA(), &map) }).map(drop)
}

/// Unmaps `len` bytes at `iova`; gives how many were unmapped.
pub fn unmap_dma(container: &File, iova: u64, len: usize) -> io::Result<u64> {
    let mut unmap = vfio_iommu_type1_dma_unmap {
        argsz: argsz::<vfio_iommu_type1_dma_unmap>(),
        iova,
        size: len as u64,
        ..Default::default()
    };
    // SAFETY: takes this structure, whose size is in it.
    check(unsafe { ioctl_with_mut_ref(container, VFIO_IOMMU_UNMAP_DMA(), &mut unmap) })?;
    Ok(unmap.size)
}

/// Words of room behind a [`Question`]: 64 KiB, thousands of IOVA ranges. Kernels use a hundred bytes.
const ROOM: usize = 8192;

/// A structure for the kernel to fill, and room for the capabilities that it puts behind it.
#[repr(C)]
struct Question<T> {
    head: T,
    room: [u64; ROOM],
}

impl<T: Copy> Question<T> {
    fn new(head: T) -> Box<Self> {
        // `room` begins where `head` ends: offsets in the chain are counted from `head`.
        const { assert!(size_of::<Self>() == size_of::<T>() + 8 * ROOM) };
        let room = [0; ROOM];
        Box::new(Self { head, room })
    }

    /// The kernel's answer, its chain beginning at `first` bytes (0: there is none).
    fn answer(&self, argsz: u32, first: u32) -> io::Result<(T, Capabilities)> {
        if argsz as usize > size_of::<Self>() {
            let what = format!("an answer of {argsz} bytes, longer than any known kernel's");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let bytes = self.room.iter().flat_map(|word| word.to_ne_bytes());
        let capabilities = Capabilities {
            bytes: bytes.collect(),
            base: size_of::<T>(),
            first: first as usize,
        };
        Ok((self.head, capabilities))
    }
}

/// A chain of capabilities: each has an id, a version, and the offset of the next.
#[derive(Debug)]
pub struct Capabilities {
    bytes: Vec<u8>,
    /// Offset of the first of `bytes`.
    base: usize,
    first: usize,
}

impl Capabilities {
    /// The header: id and version, 2 bytes each, and the next one's offset, 4 bytes.
    const HEADER: usize = size_of::<vfio_info_cap_header>();

    /// The bytes behind the header of the first capability with this id.
    pub fn find(&self, id: u32) -> Option<&[u8]> {
        let mut offset = self.first;
        // As many as there is room for: a longer chain is a loop.
        for _ in 0..self.bytes.len() / Self::HEADER {
            let bytes = self.bytes.get(offset.checked_sub(self.base)?..)?;
            let (header, rest) = bytes.split_at_checked(Self::HEADER)?;
            if u32::from(u16::from_ne_bytes([header[0], header[1]])) == id {
                return Some(rest);
            }
            offset = word(header, 4)? as usize;
        }
        None
    }
}

/// Four bytes at `offset`.
pub fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset + 4)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// A list as VFIO writes it behind a header: how many (4 bytes), 4 bytes reserved, then pairs.
pub fn pairs(bytes: &[u8]) -> Option<Vec<(u64, u64)>> {
    let count = word(bytes, 0)? as usize;
    let (pairs, _) = bytes.get(8..)?.as_chunks::<16>();
    let pair = |bytes: &[u8; 16]| {
        let (first, second) = bytes.split_at(8);
        let number = |bytes: &[u8]| Some(u64::from_ne_bytes(bytes.try_into().ok()?));
        Some((number(first)?, number(second)?))
    };
    pairs.get(..count)?.iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capabilities(first: usize, chain: &[(u32, u32, &[u32])]) -> Capabilities {
        let words = chain.iter().flat_map(|&(id, next, payload)| {
            let head = [id | 1 << 16, next];
            head.into_iter().chain(payload.iter().copied())
        });
        Capabilities {
            bytes: words.flat_map(u32::to_ne_bytes).collect(),
            base: 32,
            first,
        }
    }

    #[test]
    fn a_capability_is_found_behind_another() {
        let chain = capabilities(32, &[(3, 44, &[9]), (1, 0, &[1, 0, 0x1000, 0, 0x2000, 0])]);
        assert_eq!(pairs(chain.find(1).unwrap()), Some(vec![(0x1000, 0x2000)]));
        assert_eq!(word(chain.find(3).unwrap(), 0), Some(9));
        assert!(chain.find(2).is_none());
    }

    #[test]
    fn no_chain_has_nothing() {
        assert!(capabilities(0, &[(1, 0, &[])]).find(1).is_none());
    }

    #[test]
    fn a_chain_that_loops_or_leaves_its_room_ends() {
        assert!(capabilities(32, &[(3, 32, &[])]).find(1).is_none());
        assert!(capabilities(32, &[(3, 4000, &[])]).find(1).is_none());
        assert!(capabilities(36, &[(3, 0, &[])]).find(0).is_none());
    }

    #[test]
    fn a_list_longer_than_its_room_is_no_list() {
        let chain = capabilities(32, &[(1, 0, &[2, 0, 0x1000, 0, 0x2000, 0])]);
        assert!(pairs(chain.find(1).unwrap()).is_none());
    }
}
