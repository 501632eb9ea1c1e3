//! The registers of an NVMe controller, in BAR 0.
//!
//! Names, fields and sections are those of the "NVM Express Base Specification", revision 1.4, chapter 3.1, in its
//! order: first the table, one line a register, then the types of those that have fields. The doorbells follow at
//! 0x1000, as far apart as CAP says ([`doorbell`]).

use bitfield_struct::bitfield;

crate::registers! {
    /// All of them, but for the doorbells.
    pub TABLE;

    // §3.1
    in "controller";
    /// capabilities
    CAP: Cap as Eight, ReadOnly, 0x0000, "3.1.1";
    /// version
    VS: Vs, ReadOnly, 0x0008, "3.1.2";
    /// interrupt mask set: not with MSI-X
    INTMS: u32, ReadWrite, 0x000c, "3.1.3";
    /// interrupt mask clear: not with MSI-X
    INTMC: u32, ReadWrite, 0x0010, "3.1.4";
    /// configuration
    CC: Cc, ReadWrite, 0x0014, "3.1.5";
    /// status
    CSTS: Csts, ReadOnly, 0x001c, "3.1.6";

    in "admin queue";
    /// admin queue attributes: lengths
    AQA: Aqa, ReadWrite, 0x0024, "3.1.8";
    /// admin submission queue's IOVA, page-aligned
    ASQ: u64 as Eight, ReadWrite, 0x0028, "3.1.9";
    /// admin completion queue's IOVA, page-aligned
    ACQ: u64 as Eight, ReadWrite, 0x0030, "3.1.10";

    in "controller memory buffer";
    /// where it is
    CMBLOC: Cmbloc, ReadOnly, 0x0038, "3.1.11";
    /// how long it is, and what for
    CMBSZ: Cmbsz, ReadOnly, 0x003c, "3.1.12";
    /// the addresses at which the controller takes it for its own
    CMBMSC: Cmbmsc as Eight, ReadWrite, 0x0050, "3.1.16";
    /// status of the buffer
    CMBSTS: u32, ReadOnly, 0x0058, "3.1.17";

    in "persistent memory region";
    /// capabilities
    PMRCAP: Pmrcap, ReadOnly, 0x0e00, "3.1.18";
    /// control: bit 0 on
    PMRCTL: u32, ReadWrite, 0x0e04, "3.1.19";
    /// status
    PMRSTS: Pmrsts, ReadOnly, 0x0e08, "3.1.20";
}

/// Where the doorbells begin, §3.1.24.
pub const DOORBELLS: usize = 0x1000;

/// Offset of a doorbell: the tail of submission queue `queue`, or the head of its completion queue; `stride` is
/// CAP.DSTRD (§3.1.24, §3.1.25).
pub const fn doorbell(queue: u16, is_completion: bool, stride: u8) -> usize {
    DOORBELLS + (2 * queue as usize + is_completion as usize) * (4 << stride)
}

/// Capabilities, §3.1.1
#[bitfield(u64)]
pub struct Cap {
    /// Most entries of an I/O queue, less one
    pub mqes: u16,
    /// Queues must be contiguous
    pub cqr: bool,
    /// Arbitration: weighted round robin, vendor's own
    #[bits(2)]
    pub ams: u8,
    #[bits(5)]
    __: u8,
    /// Longest wait for RDY after EN has changed, in 500 ms
    pub to: u8,
    /// Doorbells are 4 << this apart
    #[bits(4)]
    pub dstrd: u8,
    /// Subsystem reset
    pub nssrs: bool,
    /// Command sets: bit 0 NVM, bit 6 one of several, bit 7 none but admin
    pub css: u8,
    /// Boot partitions
    pub bps: bool,
    #[bits(2)]
    __: u8,
    /// Least page: 4096 << this
    #[bits(4)]
    pub mpsmin: u8,
    /// Largest page
    #[bits(4)]
    pub mpsmax: u8,
    /// There is a persistent memory region
    pub pmrs: bool,
    /// There is a controller memory buffer
    pub cmbs: bool,
    #[bits(6)]
    __: u8,
}

/// Version, §3.1.2
#[bitfield(u32)]
pub struct Vs {
    /// Tertiary
    pub ter: u8,
    /// Minor
    pub mnr: u8,
    /// Major
    pub mjr: u16,
}

/// Configuration, §3.1.5
#[bitfield(u32)]
pub struct Cc {
    /// Enabled: queues are worked on
    pub en: bool,
    #[bits(3)]
    __: u8,
    /// Command set: 0 is NVM
    #[bits(3)]
    pub css: u8,
    /// Pages of 4096 << this
    #[bits(4)]
    pub mps: u8,
    /// Arbitration: 0 is round robin
    #[bits(3)]
    pub ams: u8,
    /// Shutdown: 1 normal, 2 abrupt
    #[bits(2)]
    pub shn: u8,
    /// Submission queue entries have 2 to the power of this many bytes
    #[bits(4)]
    pub iosqes: u8,
    /// Completion queue entries likewise
    #[bits(4)]
    pub iocqes: u8,
    __: u8,
}

/// Status, §3.1.6
#[bitfield(u32)]
pub struct Csts {
    /// Ready: follows CC.EN
    pub rdy: bool,
    /// Fatal: the controller has failed, and says so
    pub cfs: bool,
    /// Shutdown: 1 under way, 2 done
    #[bits(2)]
    pub shst: u8,
    /// A subsystem reset has happened
    pub nssro: bool,
    /// Processing is paused
    pub pp: bool,
    #[bits(26)]
    __: u32,
}

/// Admin queue attributes, §3.1.8
#[bitfield(u32)]
pub struct Aqa {
    /// Entries of the submission queue, less one
    #[bits(12)]
    pub asqs: u16,
    #[bits(4)]
    __: u8,
    /// Entries of the completion queue, less one
    #[bits(12)]
    pub acqs: u16,
    #[bits(4)]
    __: u8,
}

/// Location of the controller memory buffer, §3.1.11
#[bitfield(u32)]
pub struct Cmbloc {
    /// Its BAR
    #[bits(3)]
    pub bir: u8,
    #[bits(9)]
    __: u16,
    /// Its offset there, in units of CMBSZ.SZU
    #[bits(20)]
    pub ofst: u32,
}

/// Size of the controller memory buffer, §3.1.12
#[bitfield(u32)]
pub struct Cmbsz {
    /// Submission queues may lie in it
    pub sqs: bool,
    /// Completion queues
    pub cqs: bool,
    /// PRP and SGL lists
    pub lists: bool,
    /// Data that is read from it: of reads
    pub rds: bool,
    /// Data that is written from it
    pub wds: bool,
    #[bits(3)]
    __: u8,
    /// Units: 4 KiB << 4 times this
    #[bits(4)]
    pub szu: u8,
    /// Length in units
    #[bits(20)]
    pub sz: u32,
}

/// Memory space control of the controller memory buffer, §3.1.16
#[bitfield(u64)]
pub struct Cmbmsc {
    /// CMBLOC and CMBSZ say what is there
    pub cre: bool,
    /// The controller takes accesses at CBA for its buffer
    pub cmse: bool,
    #[bits(10)]
    __: u16,
    /// The address, in 4 KiB
    #[bits(52)]
    pub cba: u64,
}

/// Capabilities of the persistent memory region, §3.1.18
#[bitfield(u32)]
pub struct Pmrcap {
    #[bits(3)]
    __: u8,
    /// Reads may put data there
    pub rds: bool,
    /// Writes may take data from there
    pub wds: bool,
    /// Its BAR
    #[bits(3)]
    pub bir: u8,
    /// Units of PMRTO: 0 500 ms, 1 minutes
    #[bits(2)]
    pub pmrtu: u8,
    /// Write barrier mechanisms
    #[bits(4)]
    pub pmrwbm: u8,
    #[bits(2)]
    __: u8,
    /// Longest wait for it to be ready
    pub pmrto: u8,
    /// Data there survives: controller memory space is supported
    pub cmss: bool,
    #[bits(7)]
    __: u8,
}

/// Status of the persistent memory region, §3.1.20
#[bitfield(u32)]
pub struct Pmrsts {
    /// An error happened
    pub err: u8,
    /// Not ready
    pub nrdy: bool,
    /// Health: 0 is well
    #[bits(3)]
    pub hsts: u8,
    /// Its addresses are not valid
    pub cbai: bool,
    #[bits(19)]
    __: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_where_the_specification_has_them() {
        // What QEMU 7.2's model says.
        let cap = Cap::from(0x0040_1820_0f01_07ff);
        assert_eq!((cap.mqes(), cap.cqr(), cap.to()), (2047, true, 15));
        assert_eq!((cap.dstrd(), cap.mpsmin(), cap.mpsmax()), (0, 0, 4));
        assert_eq!(cap.css() & 1, 1);
    }

    #[test]
    fn doorbells_are_as_far_apart_as_the_controller_says() {
        assert_eq!(doorbell(0, false, 0), 0x1000);
        assert_eq!(doorbell(0, true, 0), 0x1004);
        assert_eq!(doorbell(3, false, 0), 0x1018);
        assert_eq!(doorbell(3, true, 2), 0x1000 + 7 * 16);
    }
}
