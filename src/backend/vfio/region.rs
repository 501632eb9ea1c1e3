//! Regions of a device: config space and the BARs.
//!
//! Where the kernel lets a stretch of a BAR be mapped, a register access is one volatile load or
//! store behind a bounds check; everywhere else (sparse areas around an MSI-X table, BARs that cannot
//! be mapped) it is a `pread` or `pwrite`, out of the way of the hot path.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{MmapOptions, MmapRaw};
use vfio_bindings::bindings::vfio::*;

use super::ioctl;
use crate::error::{Error, Result};
use crate::mmio::{Mmio, Width};

/// Place of a region in the device's file.
#[derive(Debug, Clone)]
pub struct Region {
    device: Arc<File>,
    /// Its beginning in the file, in bytes.
    offset: u64,
    /// Length in bytes; 0 where the device has no such region.
    pub size: u64,
    /// Parts that may be mapped: offset and length in bytes, the longest first.
    mappable: Vec<(u64, u64)>,
}

impl Region {
    /// Region `index` of `device`.
    pub fn of(device: &Arc<File>, index: u32) -> io::Result<Self> {
        let (info, capabilities) = ioctl::region_info(device, index)?;
        let whole = (0, info.size);
        let sparse = capabilities.find(VFIO_REGION_INFO_CAP_SPARSE_MMAP);
        let mut mappable = match info.flags & VFIO_REGION_INFO_FLAG_MMAP {
            0 => Vec::new(),
            _ => sparse
                .map_or(Some(vec![whole]), ioctl::pairs)
                .ok_or_else(|| {
                    io::Error::new(io::ErrorKind::InvalidData, "a broken list of sparse areas")
                })?,
        };
        mappable.retain(|&(start, len)| {
            len > 0 && start.checked_add(len).is_some_and(|past| past <= info.size)
        });
        mappable.sort_by_key(|&(_, len)| std::cmp::Reverse(len));
        Ok(Self {
            device: Arc::clone(device),
            offset: info.offset,
            size: info.size,
            mappable,
        })
    }

    /// Reads all of `into` at `offset`.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.device
            .read_exact_at(into, self.place(offset, into.len())?)
    }

    /// Writes all of `from` at `offset`.
    pub fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.device
            .write_all_at(from, self.place(offset, from.len())?)
    }

    /// Place of `len` bytes at `offset` in the file: never in the next region.
    fn place(&self, offset: u64, len: usize) -> io::Result<u64> {
        let past = offset.checked_add(len as u64);
        match past.is_some_and(|past| past <= self.size) {
            true => Ok(self.offset + offset),
            false => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{len} bytes at {offset:#x} of a region of {:#x}", self.size),
            )),
        }
    }
}

/// A BAR over VFIO: memory, or where it is not mapped, the device's file.
#[derive(Clone)]
pub struct VfioBar {
    /// The longest stretch that is mapped: its address, where it begins in the BAR, its length.
    base: NonNull<u8>,
    start: usize,
    len: usize,
    rest: Arc<Rest>,
}

/// All of the BAR, mapped or not; keeps the mappings.
struct Rest {
    region: Region,
    maps: Vec<(usize, MmapRaw)>,
}

// SAFETY: the mapping that `base` points to is kept by `rest` and belongs to the device: a register
// may be read and written from any thread.
unsafe impl Send for VfioBar {}

impl std::fmt::Debug for VfioBar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { start, len, .. } = self;
        write!(
            f,
            "VfioBar(mapped {start:#x} + {len:#x} of {:#x})",
            self.size()
        )
    }
}

impl VfioBar {
    /// Maps what may be mapped of `region`.
    pub fn map(name: &str, region: Region) -> Result<Self> {
        let map = |&(start, len): &(u64, u64)| {
            let map = MmapOptions::new()
                .offset(region.offset + start)
                .len(len as usize)
                .map_raw(&*region.device)?;
            Ok((start as usize, map))
        };
        let maps: io::Result<Vec<_>> = region.mappable.iter().map(map).collect();
        let maps = maps.map_err(|source| Error::io(format!("{name}: mapping a BAR"), source))?;
        let (base, start, len) = match maps.first() {
            Some((start, map)) => (NonNull::new(map.as_mut_ptr()), *start, map.len()),
            None => (None, 0, 0),
        };
        Ok(Self {
            base: base.unwrap_or(NonNull::dangling()),
            start,
            len: len & !3,
            rest: Arc::new(Rest { region, maps }),
        })
    }

    /// The address of the register at `offset`, where it is in the longest stretch.
    #[inline(always)]
    fn register(&self, offset: usize, width: Width) -> Option<*mut u8> {
        let at = offset.wrapping_sub(self.start);
        // `len` is a multiple of 4, so an aligned register that begins inside also ends inside.
        (at < self.len && offset.is_multiple_of(width.bytes()))
            // SAFETY: `at` is inside the mapping of `len` bytes at `base`.
            .then(|| unsafe { self.base.as_ptr().add(at) })
    }
}

impl Mmio for VfioBar {
    fn size(&self) -> usize {
        self.rest.region.size as usize
    }

    #[inline]
    fn read(&self, offset: usize, width: Width) -> u64 {
        match self.register(offset, width) {
            // SAFETY: an aligned register of the mapping, which lives as long as `self`.
            Some(register) => unsafe { load(register, width) },
            None => self.rest.read(offset, width),
        }
    }

    #[inline]
    fn write(&self, offset: usize, width: Width, value: u64) {
        match self.register(offset, width) {
            // SAFETY: as in `read`.
            Some(register) => unsafe { store(register, width, value) },
            None => self.rest.write(offset, width, value),
        }
    }
}

/// One volatile load of `width`.
///
/// # Safety
/// `register` is aligned to `width` and mapped for that many bytes.
#[inline(always)]
unsafe fn load(register: *const u8, width: Width) -> u64 {
    // SAFETY: the caller's word.
    unsafe {
        match width {
            Width::One => register.read_volatile().into(),
            Width::Two => u16::from_le(register.cast::<u16>().read_volatile()).into(),
            Width::Four => u32::from_le(register.cast::<u32>().read_volatile()).into(),
            Width::Eight => u64::from_le(register.cast::<u64>().read_volatile()),
        }
    }
}

/// One volatile store of `width`.
///
/// # Safety
/// As [`load`].
#[inline(always)]
unsafe fn store(register: *mut u8, width: Width, value: u64) {
    // SAFETY: the caller's word.
    unsafe {
        match width {
            Width::One => register.write_volatile(value as u8),
            Width::Two => register
                .cast::<u16>()
                .write_volatile((value as u16).to_le()),
            Width::Four => register
                .cast::<u32>()
                .write_volatile((value as u32).to_le()),
            Width::Eight => register.cast::<u64>().write_volatile(value.to_le()),
        }
    }
}

impl Rest {
    /// The address of the register at `offset`, where it is mapped.
    fn register(&self, offset: usize, width: Width) -> Option<*mut u8> {
        let bytes = width.bytes();
        let fits = offset
            .checked_add(bytes)
            .is_some_and(|past| past as u64 <= self.region.size);
        assert!(
            fits && offset.is_multiple_of(bytes),
            "no register at {offset:#x} of a BAR of {:#x} bytes",
            self.region.size
        );
        self.maps.iter().find_map(|(start, map)| {
            let at = offset.checked_sub(*start)?;
            (at + bytes <= map.len()).then(|| map.as_mut_ptr().wrapping_add(at))
        })
    }

    #[cold]
    #[inline(never)]
    fn read(&self, offset: usize, width: Width) -> u64 {
        let mut bytes = [0; 8];
        match self.register(offset, width) {
            // SAFETY: an aligned register of a mapping that `self` keeps.
            Some(register) => unsafe { load(register, width) },
            None => {
                let into = &mut bytes[..width.bytes()];
                match self.region.read(offset as u64, into) {
                    Ok(()) => u64::from_le_bytes(bytes),
                    // A device that cannot be read gives all ones, as the bus does.
                    Err(_) => width.ones(),
                }
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn write(&self, offset: usize, width: Width, value: u64) {
        match self.register(offset, width) {
            // SAFETY: as in `read`.
            Some(register) => unsafe { store(register, width, value) },
            // A write to a device that is gone is lost, as on the bus; reads will tell.
            None => {
                let bytes = value.to_le_bytes();
                drop(self.region.write(offset as u64, &bytes[..width.bytes()]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A BAR of `size` bytes at 0x1000 of a file, of which `mappable` may be mapped.
    fn bar(size: u64, mappable: &[(u64, u64)]) -> (VfioBar, File) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x10000).unwrap();
        let region = Region {
            device: Arc::new(file.try_clone().unwrap()),
            offset: 0x1000,
            size,
            mappable: mappable.to_vec(),
        };
        (VfioBar::map("test", region).unwrap(), file)
    }

    fn word(file: &File, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        file.read_exact_at(&mut bytes, 0x1000 + offset).unwrap();
        u32::from_le_bytes(bytes)
    }

    #[test]
    fn every_word_is_reached_mapped_or_not() {
        let sparse: &[&[(u64, u64)]] = &[
            &[(0, 0x4000)],
            &[(0x2000, 0x2000), (0, 0x1000)],
            &[(0, 0x1000)],
            &[],
        ];
        for mappable in sparse {
            let (bar, file) = bar(0x4000, mappable);
            assert_eq!(bar.size(), 0x4000);
            for offset in (0..0x4000).step_by(4) {
                bar.write32(offset, 0xa5a5_0000 | offset as u32);
            }
            for offset in (0..0x4000).step_by(4) {
                let value = 0xa5a5_0000 | offset as u32;
                assert_eq!(bar.read32(offset), value, "{mappable:?}");
                assert_eq!(word(&file, offset as u64), value, "{mappable:?}");
            }
            assert_eq!(word(&file, 0x4000), 0);
        }
    }

    #[test]
    fn narrow_registers_leave_their_neighbours_alone() {
        for mappable in [&[(0, 0x1000)][..], &[]] {
            let (bar, file) = bar(0x1000, mappable);
            bar.write32(0x10, 0x4433_2211);
            bar.write(0x11, Width::One, 0xffff_ffaa);
            assert_eq!(word(&file, 0x10), 0x4433_aa11);
            bar.write(0x12, Width::Two, 0xffff_bbcc);
            assert_eq!(word(&file, 0x10), 0xbbcc_aa11);
            assert_eq!(bar.read(0x11, Width::One), 0xaa);
            assert_eq!(bar.read(0x12, Width::Two), 0xbbcc);
        }
    }

    #[test]
    fn a_register_of_64_bits_is_one_access() {
        for mappable in [&[(0, 0x1000)][..], &[]] {
            let (bar, file) = bar(0x1000, mappable);
            bar.write(0x20, Width::Eight, 0x8877_6655_4433_2211);
            assert_eq!(word(&file, 0x20), 0x4433_2211);
            assert_eq!(word(&file, 0x24), 0x8877_6655);
            assert_eq!(bar.read(0x20, Width::Eight), 0x8877_6655_4433_2211);
            assert_eq!(bar.read32(0x24), 0x8877_6655);
        }
    }

    #[test]
    fn a_word_that_is_not_there_is_refused() {
        for mappable in [&[(0, 0x2000)][..], &[]] {
            for offset in [0x2000, 0x1ffd, 2, usize::MAX, usize::MAX - 3] {
                let (bar, _) = bar(0x2000, mappable);
                let read = std::panic::AssertUnwindSafe(|| bar.read32(offset));
                assert!(std::panic::catch_unwind(read).is_err(), "{offset:#x}");
                let write = std::panic::AssertUnwindSafe(|| bar.write32(offset, 0));
                assert!(std::panic::catch_unwind(write).is_err(), "{offset:#x}");
            }
        }
    }

    #[test]
    fn a_region_does_not_reach_into_the_next() {
        let (bar, _) = bar(0x100, &[]);
        assert!(bar.rest.region.read(0xfe, &mut [0; 4]).is_err());
        assert!(bar.rest.region.write(u64::MAX, &[0; 4]).is_err());
        assert!(bar.rest.region.read(0xfc, &mut [0; 4]).is_ok());
    }
}
