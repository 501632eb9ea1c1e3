//! A file's page cache as memory of QEMU's machine, so that the device reads it with no copy.
//!
//! QEMU maps the file itself and plugs it in as a DIMM above the RAM. Nobody runs a guest that would
//! let a DIMM go, so we are the guest in this one thing: its ejection is a write to the ACPI memory
//! hotplug ports (QEMU, `docs/specs/acpi_mem_hotplug.rst`).
//!
//! A file's last page is seldom full, and QEMU refuses to map a page that the file only half covers;
//! the hardware and the kernel have nothing against it. It compares lengths only where it can find
//! out the file's, by `lseek(SEEK_END)`, so that call is made to fail for the descriptors that it
//! opens files with: see [`in_the_child`]. A file must not be truncated while it is mapped: the read
//! of a page that is gone ends QEMU, and the device counts as gone.

use std::fs::File;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use memmap2::{MmapOptions, MmapRaw};

use super::memory::{PAGE, RAM};
use super::monitor::Monitor;
use super::wire::{Wire, lock};
use crate::dma::{Iova, IovaAllocator, Mapping};
use crate::error::{Error, Result};

/// Largest number of files that can be mapped at once.
pub(super) const SLOTS: usize = 64;

/// Memory that the machine may have at most, files included. Costs nothing.
pub(super) const MAX_MEMORY: u64 = 512 << 30;

/// Address of the first DIMM: QEMU puts them above 4 GiB if the RAM is small.
const FIRST: u64 = 4 << 30;

/// Each at a multiple of this, whatever pages the file is cached in.
const ALIGN: u64 = 2 << 20;

/// From this descriptor on, QEMU cannot find out how long a file is. It must do so while it starts,
/// with some 20 descriptors.
const FENCE: u32 = 64;

/// The files that are mapped for the device.
pub(super) struct Files {
    wire: Arc<Wire>,
    inner: Mutex<Inner>,
}

struct Inner {
    monitor: Arc<Mutex<Monitor>>,
    iovas: IovaAllocator,
    slots: [Option<Dimm>; SLOTS],
    /// All of QEMU's descriptors below `FENCE` are taken.
    fenced: bool,
}

/// A file that is plugged in.
struct Dimm {
    base: Iova,
    /// The address handed out: that of the DIMM, or of its end.
    iova: Iova,
    /// This process's view.
    _map: MmapRaw,
}

impl Files {
    pub fn new(wire: Arc<Wire>, monitor: Arc<Mutex<Monitor>>) -> Self {
        let inner = Inner {
            monitor,
            iovas: IovaAllocator::new([FIRST..=FIRST + MAX_MEMORY - RAM as u64 - 1]),
            slots: [const { None }; SLOTS],
            fenced: false,
        };
        Self {
            wire,
            inner: Mutex::new(inner),
        }
    }

    /// Maps nothing behind `last` from here on.
    pub fn limit(&self, last: Iova) -> Result<(), Iova> {
        lock(&self.inner).iovas.limit(last)
    }

    pub fn map(&self, device: &str, file: &File, offset: u64, len: usize) -> Result<Mapping> {
        let os = |what: &str| {
            let what = what.to_owned();
            move |source| Error::io(what, source)
        };
        let has = file
            .metadata()
            .map_err(os("reading the file's length"))?
            .len();
        let past = offset.checked_add(len as u64);
        let past =
            past.filter(|past| len > 0 && offset.is_multiple_of(PAGE as u64) && *past <= has);
        let past = past.ok_or_else(|| {
            Error::Usage(format!(
                "{len} bytes at {offset} of a file of {has} cannot be mapped: whole pages from its start on can, and what it has"
            ))
        })?;
        // DIMMs begin where their files do.
        let size = past.next_multiple_of(PAGE as u64);
        let map = MmapOptions::new()
            .offset(offset)
            .len((size - offset) as usize)
            .map_raw_read_only(file)
            .map_err(os("mapping the file"))?;

        let mut inner = lock(&self.inner);
        let inner = &mut *inner;
        let full = |what: String| Error::Qemu {
            what,
            remedy: "drop a mapped file first, or use the VM (qemu/vm)".to_owned(),
        };
        let slot = inner.slots.iter().position(Option::is_none);
        let slot = slot.ok_or_else(|| {
            full(format!(
                "QEMU's machine has {SLOTS} files mapped, which is all it takes"
            ))
        })?;
        let base = inner.iovas.alloc(size, ALIGN);
        let base = base.ok_or_else(|| match inner.iovas.ranges().is_empty() {
            // QEMU has no place for a DIMM below, whatever is free there.
            true => Error::NotOffered {
                device: device.to_owned(),
                what: "map a file where a device of up to 32 address lines reaches it: QEMU's machine has files above \
                    4 GiB; use the VM (qemu/vm), where the IOMMU gives it an address below"
                    .to_owned(),
            },
            false => full(format!(
                "no {size} bytes of address space are left for a file"
            )),
        })?;
        if let Err(why) = inner.plug(slot, base, size, file, size > has) {
            inner.iovas.free(base);
            return Err(Error::Qemu {
                what: format!("QEMU cannot map the file for its device: {why}"),
                remedy: "use the VM instead (qemu/vm): VFIO maps what the kernel can".to_owned(),
            });
        }
        let iova = Iova(base.0 + offset);
        let mapping = Mapping {
            ptr: NonNull::new(map.as_mut_ptr()).expect("mmap never gives null"),
            len: map.len(),
            iova,
            page: PAGE,
        };
        inner.slots[slot] = Some(Dimm {
            base,
            iova,
            _map: map,
        });
        Ok(mapping)
    }

    pub fn unmap(&self, mapping: &Mapping) {
        let mut inner = lock(&self.inner);
        let inner = &mut *inner;
        let ours = |dimm: &Option<Dimm>| dimm.as_ref().is_some_and(|d| d.iova == mapping.iova);
        let Some(slot) = inner.slots.iter().position(ours) else {
            return;
        };
        // Selects the slot (offset 0), then ejects (bit 3 of the control byte at offset 0x14).
        self.wire.post(format_args!("outl 0xa00 {slot:#x}"));
        self.wire.post(format_args!("outb 0xa14 0x8"));
        self.wire.flush();
        let delete = format!(r#"{{"execute": "object-del", "arguments": {{"id": "file{slot}"}}}}"#);
        match lock(&inner.monitor).run(&delete, None) {
            Ok(()) => {
                if let Some(dimm) = inner.slots[slot].take() {
                    inner.iovas.free(dimm.base);
                }
            }
            // The slot and the addresses stay taken: the device may still see the file there.
            Err(why) => tracing::debug!("QEMU keeps the file in slot {slot}: {why}"),
        }
    }
}

impl Inner {
    fn plug(
        &mut self,
        slot: usize,
        base: Iova,
        size: u64,
        file: &File,
        half_page: bool,
    ) -> Result<(), String> {
        if half_page && !self.fenced {
            self.fence()?;
        }
        // QEMU opens the file through our descriptor: its path may be gone, or closed to it.
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        lock(&self.monitor).run(
            &format!(
                r#"{{"execute": "object-add", "arguments": {{"qom-type": "memory-backend-file", "id": "file{slot}", "size": {size}, "mem-path": "{path}", "share": true, "readonly": true}}}}"#
            ),
            None,
        )?;
        let plugged = lock(&self.monitor).run(
            &format!(
                r#"{{"execute": "device_add", "arguments": {{"driver": "pc-dimm", "id": "dimm{slot}", "memdev": "file{slot}", "slot": {slot}, "addr": {}}}}}"#,
                base.0
            ),
            None,
        );
        if plugged.is_err() {
            let delete =
                format!(r#"{{"execute": "object-del", "arguments": {{"id": "file{slot}"}}}}"#);
            lock(&self.monitor).run(&delete, None)?;
        }
        plugged
    }

    /// Gives QEMU so many descriptors to keep that the next it opens is `FENCE` or above: each
    /// takes the lowest number that is free.
    fn fence(&mut self) -> Result<(), String> {
        let null = File::open("/dev/null").map_err(|error| format!("/dev/null: {error}"))?;
        for number in 0..FENCE {
            lock(&self.monitor).run(
                &format!(r#"{{"execute": "getfd", "arguments": {{"fdname": "fence{number}"}}}}"#),
                Some(null.as_raw_fd()),
            )?;
        }
        self.fenced = true;
        Ok(())
    }
}

/// In QEMU, before it starts: from descriptor `FENCE` on, `lseek(SEEK_END)` fails with `ESPIPE`.
///
/// Where the kernel has no seccomp filters nothing happens, and QEMU refuses files whose last page
/// is not full.
pub(super) fn in_the_child() {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const NUMBER: u32 = offset_of!(libc::seccomp_data, nr) as u32;
    /// The low half of an argument.
    const fn argument(index: u32) -> u32 {
        let high_first = cfg!(target_endian = "big") as u32;
        offset_of!(libc::seccomp_data, args) as u32 + 8 * index + 4 * high_first
    }
    /// `else_skip`: how many instructions to skip where the condition does not hold.
    const fn step(code: u16, k: u32, else_skip: u8) -> libc::sock_filter {
        libc::sock_filter {
            code,
            jt: 0,
            jf: else_skip,
            k,
        }
    }
    let mut filter = [
        step(LOAD, NUMBER, 0),
        step(EQUAL, libc::SYS_lseek as u32, 5),
        step(LOAD, argument(2), 0),
        step(EQUAL, libc::SEEK_END as u32, 3),
        step(LOAD, argument(0), 0),
        step(AT_LEAST, FENCE, 1),
        step(RETURN, libc::SECCOMP_RET_ERRNO | libc::ESPIPE as u32, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: the program and its instructions live on the stack until the calls return.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const program,
        );
    }
}
