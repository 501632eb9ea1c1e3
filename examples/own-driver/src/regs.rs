//! The registers that the driver uses, by their names in chapter 6 of the RTL8139C+ datasheet. They lie in BAR 1.

pinwire::registers! {
    /// All of them.
    pub TABLE;
    in "general";
    /// Ethernet address, 4 bytes and 2
    IDR[2, 4]: u32, ReadWrite, 0x00, "6";
    /// command
    CR: u32 as One, ReadWrite, 0x37, "6";
    /// media status
    MSR: u32 as One, ReadOnly, 0x58, "6";
    /// what auto-negotiation advertises
    ANAR: u32 as Two, ReadOnly, 0x66, "6";
    /// what the link's partner can do
    ANLPAR: u32 as Two, ReadOnly, 0x68, "6";
    /// C+ command
    CPCR: u32 as Two, ReadWrite, 0xe0, "6.33";
    in "interrupt";
    /// interrupt mask
    IMR: u32 as Two, ReadWrite, 0x3c, "6";
    /// interrupt status: writing a 1 clears what it stands for
    ISR: u32 as Two, ReadWrite, 0x3e, "6";
    in "transmit";
    /// descriptors of normal priority: address, low half and high
    TNPDS[2, 4]: u32, ReadWrite, 0x20, "6";
    /// descriptors of high priority
    THPDS[2, 4]: u32, ReadWrite, 0x28, "6";
    /// transmit configuration
    TCR: u32, ReadWrite, 0x40, "6";
    /// transmit priority polling: the doorbell
    TPPOLL: u32 as One, WriteOnly, 0xd9, "6";
    in "receive";
    /// multicast filter: a bit for each of 64 hashes
    MAR[2, 4]: u32, ReadWrite, 0x08, "6";
    /// receive configuration
    RCR: u32, ReadWrite, 0x44, "6";
    /// frames missed, 24 bits; writing clears it
    MPC: u32, ReadWrite, 0x4c, "6";
    /// descriptors: address, low half and high
    RDSAR[2, 4]: u32, ReadWrite, 0xe4, "6";
}

/// CR: reset; the chip clears it when it is through.
pub const CR_RST: u32 = 1 << 4;
/// CR: receiver on.
pub const CR_RE: u32 = 1 << 3;
/// CR: transmitter on.
pub const CR_TE: u32 = 1 << 2;
/// MSR: no link.
pub const MSR_LINKB: u32 = 1 << 2;
/// CPCR: receiver and transmitter in C+ mode; addresses of 64 bits, where the upper half is not 0.
pub const CPCR_CPRX_CPTX_DAC: u32 = 1 << 1 | 1 << 0 | 1 << 4;
/// ISR, IMR: a frame came in, or one with an error; no descriptor was left; link change; FIFO overrun.
pub const RECEIVE: u32 = 1 << 0 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 6;
/// ISR, IMR: a frame left, or could not.
pub const TRANSMIT: u32 = 1 << 2 | 1 << 3;
/// TPPOLL: look at the ring of normal priority.
pub const TPPOLL_NPQ: u32 = 1 << 6;
/// TCR: the standard's gap between frames, DMA in bursts of up to 1024 bytes.
pub const TCR_IFG_1024: u32 = 3 << 24 | 6 << 8;
/// RCR: whole frames, DMA in bursts of up to 1024 bytes; frames to all, to groups (MAR chooses), to our address.
pub const RCR_BASE: u32 = 7 << 13 | 6 << 8 | 1 << 3 | 1 << 2 | 1 << 1;
/// RCR: frames to any address.
pub const RCR_AAP: u32 = 1 << 0;
