//! One error for the whole library.
//!
//! Each variant says what was found and, on the lines after, what to do about it: an error is read
//! by somebody who wants to go on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::Address;

/// Result of the library's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, with the remedy.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A device spec that does not parse.
    #[error(
        "{spec:?} is not a device: {why}\n  write a PCI address (0000:00:03.0) or a device model of QEMU on this host (qtest:e1000)"
    )]
    BadDevice {
        /// The text given.
        spec: String,
        /// The fault in it.
        why: String,
    },

    /// No function at this address.
    #[error("{0}: there is no such PCI function\n  try: pinwire list")]
    NoSuchDevice(Address),

    /// The function is there, but no driver of ours knows it.
    #[error("{device}: no driver for PCI device {vendor:04x}:{id:04x}\n  drivers here: {known}")]
    Unsupported {
        /// Device.
        device: String,
        /// PCI vendor id.
        vendor: u16,
        /// PCI device id.
        id: u16,
        /// Devices that would have been taken.
        known: String,
    },

    /// The function belongs to another driver, or to none.
    #[error("{address} is bound to {}, not to vfio-pci\n  try: pinwire bind {address}", driver.as_deref().unwrap_or("no driver"))]
    NotBound {
        /// Function.
        address: Address,
        /// The driver that has it.
        driver: Option<String>,
    },

    /// Some function of the IOMMU group is still the kernel's.
    #[error("{address} cannot be used: IOMMU group {group} is not viable\n{}\n  every function of a group must be on vfio-pci or on no driver",
        members.iter().map(|(member, driver)| format!("  {member} is bound to {driver}; try: pinwire bind {member}")).collect::<Vec<_>>().join("\n"))]
    GroupNotViable {
        /// Function asked for.
        address: Address,
        /// Its group.
        group: u32,
        /// The members in the way, with the driver of each.
        members: Vec<(Address, String)>,
    },

    /// No IOMMU guards the function.
    #[error(
        "{0}: no IOMMU is active for this function, so nothing would keep it from reaching all memory\n  enable VT-d or AMD-Vi in the firmware and boot with intel_iommu=on (AMD: on by itself); in a VM, add an emulated one (qemu/vm does)"
    )]
    NoIommu(Address),

    /// A virtio device that the IOMMU does not guard.
    #[error(
        "{0}: it does not offer VIRTIO_F_ACCESS_PLATFORM, so it would reach memory around the IOMMU, at addresses that are not ours\n  QEMU: give the device iommu_platform=on,disable-legacy=on"
    )]
    AroundIommu(Address),

    /// A kernel module or option is missing.
    #[error("{what}\n  try: {remedy}")]
    KernelLacks {
        /// The missing part.
        what: String,
        /// Command to type.
        remedy: String,
    },

    /// The files of the group belong to somebody else.
    #[error(
        "{path}: permission denied\n  it belongs to {owner} (mode {mode:03o}); run as root, or give it away once: sudo chown $USER {path}"
    )]
    NotPermitted {
        /// The file.
        path: String,
        /// Its owner.
        owner: String,
        /// Its permission bits.
        mode: u32,
    },

    /// Only root may do this.
    #[error("{what}: permission denied\n  this needs root; try: sudo {command}")]
    NeedsRoot {
        /// The attempt.
        what: String,
        /// Command to type.
        command: String,
    },

    /// Taking the function from its driver would break what the system uses it for.
    #[error("{address} is in use: {usage}\n  end that first")]
    InUse {
        /// Function.
        address: Address,
        /// User and use.
        usage: String,
    },

    /// A disk of the function is in use.
    #[error(
        "{address} is in use: {usage}\n  end that first: a disk that is in use is never taken away"
    )]
    DiskInUse {
        /// Function.
        address: Address,
        /// User and use.
        usage: String,
    },

    /// A function that is neither a network card nor an NVMe disk.
    #[error(
        "{address} is {class}, neither a network card nor an NVMe disk{}\n  it can be taken all the same, and what it does for the system ends",
        driver.as_ref().map(|driver| format!("; {driver} has it")).unwrap_or_default()
    )]
    NotNetwork {
        /// Function.
        address: Address,
        /// The kind of thing that it is.
        class: &'static str,
        /// The driver that has it.
        driver: Option<String>,
    },

    /// A function that is not as it was before it was bound.
    #[error("{address} is not given back: {what}\n  try: {remedy}")]
    NotGivenBack {
        /// Function.
        address: Address,
        /// Difference to its former state.
        what: String,
        /// Command to type.
        remedy: String,
    },

    /// A function that did not change its driver. What had been changed was put back.
    #[error("{address} cannot be given to {driver}: {why}")]
    Rebind {
        /// Function.
        address: Address,
        /// The driver that should have had it.
        driver: String,
        /// The failure, and the function's state now.
        why: String,
    },

    /// The locked-memory limit is too low for what must be pinned.
    #[error("cannot pin {needed} bytes of memory: the locked-memory limit is {limit} bytes\n  raise it to at least {} KiB: ulimit -l {} (or set memlock in /etc/security/limits.conf), or run as root", needed.div_ceil(1024), needed.div_ceil(1024))]
    MemlockLimit {
        /// Bytes that must be lockable.
        needed: u64,
        /// Bytes that are.
        limit: u64,
    },

    /// Another process has the group.
    #[error("{address}: IOMMU group {group} is in use{}\n  end that program first: a group has one owner at a time", holder.as_ref().map(|who| format!(" by {who}")).unwrap_or_default())]
    GroupBusy {
        /// Function asked for.
        address: Address,
        /// Its group.
        group: u32,
        /// Holder of the group, if that could be found out.
        holder: Option<String>,
    },

    /// Config space reads all ones, or the kernel takes the function back.
    #[error(
        "{0} is gone: its config space reads all ones, or the kernel wants it back\n  it was unplugged, powered off, or its bridge is down; plug it in again and run: pinwire list"
    )]
    DeviceGone(String),

    /// The kernel tells of an error of the device's, or of its link's, by Advanced Error Reporting.
    #[error(
        "{0} met an error that PCI Express does not correct (AER): what it read or wrote last may be lost\n  the kernel says more: dmesg | grep -i aer; open the device again, which resets it; where it comes again, the card or its slot is at fault"
    )]
    BusError(String),

    /// A BAR that has not got the registers that its driver needs.
    #[error(
        "{device}: BAR {bar} has {size:#x} bytes, and {needed:#x} bytes of memory are needed: {why}\n  see what it has: lspci -vv; a BAR that no address was given to has none (dmesg says why): boot with pci=realloc, or remove the function and rescan"
    )]
    UnusableBar {
        /// Device.
        device: String,
        /// Index of the BAR.
        bar: u8,
        /// Its length in bytes; 0 where there is none.
        size: u64,
        /// Bytes that the driver needs.
        needed: u64,
        /// The fault.
        why: &'static str,
    },

    /// The device wrote something that cannot be true.
    #[error(
        "{device}: the device wrote what cannot be true: {what}\n  it was stopped, and nothing it says is used; start it again before using it (Nic::restart)"
    )]
    ProtocolViolation {
        /// Device.
        device: String,
        /// The words that it wrote, and those that would have been right.
        what: String,
    },

    /// The device is stopped, and nothing may be asked of its rings.
    #[error(
        "{device} is stopped: nothing goes into its rings or comes out of them\n  start it again first (Nic::restart)"
    )]
    Stopped {
        /// Device.
        device: String,
    },

    /// The device has given up.
    #[error(
        "{device} has given up: it asks to be reset (DEVICE_NEEDS_RESET)\n  it found something wrong with a queue and does nothing more; start it again (Nic::restart), and see what its log says (QEMU: on its standard error)"
    )]
    NeedsReset {
        /// Device.
        device: String,
    },

    /// The device was reset behind our back.
    #[error(
        "{device} was reset, but not by its driver here: its rings are off\n  another program did it, or whoever runs the machine; start it again (Nic::restart)"
    )]
    WasReset {
        /// Device.
        device: String,
    },

    /// A wait on the device ran into its bound.
    #[error("{device}: {what} did not happen within {} ms\n  {remedy}", bound.as_millis())]
    Timeout {
        /// Device.
        device: String,
        /// The awaited event.
        what: &'static str,
        /// Length of the wait.
        bound: Duration,
        /// Remedy.
        remedy: &'static str,
    },

    /// A frame that the device cannot send.
    #[error(
        "a frame of {length} bytes cannot be sent: {device} takes {min} to {max} bytes\n  {remedy}"
    )]
    FrameLength {
        /// Device.
        device: String,
        /// Bytes of the frame, without the frame check sequence.
        length: usize,
        /// The shortest that it takes.
        min: usize,
        /// The longest that it takes.
        max: usize,
        /// Remedy.
        remedy: &'static str,
    },

    /// A transmit ring without room.
    #[error(
        "{device}: no room in the transmit ring: {in_flight} frames are in flight\n  wait until the card has sent some (Nic::wait), then send again; or start it with a longer ring (NicConfig::tx_ring)"
    )]
    RingFull {
        /// Device.
        device: String,
        /// Frames that it has still to send.
        in_flight: usize,
    },

    /// A pool whose buffers are all out.
    #[error(
        "{device}: all {count} buffers of its pool are out\n  drop received frames that are done with, or wait until the card has sent some (Nic::wait); or use a pool of your own (Pool::new, in the space of Nic::dma)"
    )]
    NoBuffer {
        /// Device.
        device: String,
        /// Buffers of the pool.
        count: usize,
    },

    /// An error of one packet of many.
    #[error("packet {number}: {source}")]
    Packet {
        /// Its number, from 1.
        number: u64,
        /// The error.
        source: Box<Error>,
    },

    /// Nobody says that an address is his.
    #[error(
        "nobody answered ARP for {address} within {} ms\n  is it on this wire, and up? else say where its packets go: the receiver's Ethernet address, or the gateway's",
        bound.as_millis()
    )]
    NoAnswer {
        /// Address asked for.
        address: std::net::Ipv4Addr,
        /// Length of the wait.
        bound: Duration,
    },

    /// A frame in memory that the device does not reach.
    #[error(
        "{device}: the frame lies in memory of another device's address space, where its addresses mean something else\n  take buffers from a pool in the card's own space (Nic::dma), or open both in one (DeviceSpec::open_all)"
    )]
    ForeignMemory {
        /// Device.
        device: String,
    },

    /// A frame asks for what the device cannot do.
    #[error("{device} cannot do this: {what}")]
    NotOffered {
        /// Device.
        device: String,
        /// The request.
        what: String,
    },

    /// A request that the disk cannot do, or that cannot be.
    #[error("{device} cannot {what}: {why}")]
    BadRequest {
        /// Device.
        device: String,
        /// The request, and where.
        what: String,
        /// The fault in it.
        why: String,
    },

    /// The disk did not do what it was asked.
    #[error("{what} failed: {failure}")]
    RequestFailed {
        /// The request, and where.
        what: String,
        /// The disk's answer.
        failure: String,
    },

    /// No IOVA range is left that is long enough.
    #[error(
        "no I/O virtual address range of {len} bytes is left for {device}\n  the IOMMU allows {ranges}; unmap something, or map less at once"
    )]
    NoIova {
        /// Device.
        device: String,
        /// Bytes wanted.
        len: u64,
        /// The IOMMU's report.
        ranges: String,
    },

    /// A device whose address lines do not reach all that is in its address space.
    #[error(
        "{device} reaches addresses up to {last:#x}, and memory in its address space ends at {end:#x}\n  open this device before others allocate, or in an address space of its own"
    )]
    OutOfReach {
        /// Device.
        device: String,
        /// The last address that it reaches.
        last: u64,
        /// End of what is mapped beyond.
        end: u64,
    },

    /// QEMU is not there or did not come up.
    #[error("{what}\n  {remedy}")]
    Qemu {
        /// The event.
        what: String,
        /// Remedy.
        remedy: String,
    },

    /// A capture file that cannot be read.
    #[error("{}: not a capture that can be sent: {why}", path.display())]
    BadCapture {
        /// The file.
        path: PathBuf,
        /// The fault, and its packet.
        why: String,
    },

    /// A file changed under us.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Event and progress.
        what: String,
    },

    /// Something that is wrong in what the caller asked for.
    #[error("{0}")]
    Usage(String),

    /// Interrupted by the user (Ctrl-C).
    #[error("interrupted")]
    Interrupted,

    /// An operating system call failed.
    #[error("{what}: {source}{}", remedy(source))]
    Io {
        /// The attempt.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
}

/// Remedy for a system's answer whose reason lies around the process, whatever was tried: no descriptor is left, or
/// the kernel's own filesystems are not mounted. Every [`Error::Io`] ends with it.
fn remedy(source: &io::Error) -> String {
    let lines = match source.raw_os_error() {
        Some(libc::EMFILE) => {
            "\n  this process may open no more files; raise its limit: ulimit -n 1024"
        }
        Some(libc::ENFILE) => {
            "\n  the whole machine may open no more files; raise its limit: sudo sysctl fs.file-max=1000000"
        }
        // The standard library has errors of its own where it looks for /proc/self/exe.
        Some(libc::ENOENT) | None => return unmounted(&["/proc/self", "/sys/kernel"]),
        _ => "",
    };
    lines.to_owned()
}

/// The first of these that is not mounted, with the command to type.
fn unmounted(places: &[&str]) -> String {
    let missing = places.iter().filter(|place| !Path::new(place).exists());
    missing
        .filter_map(|place| place.split('/').nth(1))
        .map(|name| {
            format!(
                "\n  /{name} is not mounted: sudo mount -t {name}{} none /{name}",
                if name == "sys" { "fs" } else { "" }
            )
        })
        .collect()
}

/// As people read it: a program whose `main` returns this error shows it in this form.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Error {
    /// An operating system error, with what was tried.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io {
            what: what.into(),
            source,
        }
    }

    /// The last operating system error (`errno`), with what was tried.
    pub fn last_os(what: impl Into<String>) -> Self {
        Self::io(what, io::Error::last_os_error())
    }
}
