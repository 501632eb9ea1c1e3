//! Quirks: what a chip needs beyond the plain words of its manual. One table, a constant a chip.
//!
//! The rule: a driver asks this table and never the model, and the line that obeys an entry names the
//! erratum by its field here. A chip is described once, by [`I82540EM`], [`I82544GC`], [`I82545EM`] or
//! [`I82574L`], so that a driver for the next chip of the family writes one constant more and no `if`.
//!
//! Emulators forgive all of this; `tests/e1000_chips.rs` and `tests/e1000e_chips.rs` hold each entry
//! against a device that refuses what the silicon refuses. Numbers are those of Intel's specification
//! updates where one could be read; else the entry says which public drivers work around it.

use std::time::Duration;

/// A frame on the wire has at least so many bytes before its check sequence (IEEE 802.3, §3.2.7).
pub(in crate::nic) const SHORTEST_ON_THE_WIRE: usize = 60;

/// The reload of the registers from the EEPROM after a reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::nic) enum Reload {
    /// Only when CTRL_EXT.EE_RST asks for it; through after this long (82544: Linux and DPDK, 2 ms).
    Asked(Duration),
    /// By itself, and nothing tells when; through after this long (82540, 82545: Linux and DPDK, 5 ms).
    /// Registers written before are overwritten.
    ByItself(Duration),
    /// By itself, and EEC.AUTO_RD tells when. The PHY is configured from it after that, for this long
    /// (82574: Linux and DPDK, 25 ms); its registers must be left alone until then.
    Told(Duration),
}

/// The way in which software reads the EEPROM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::nic) enum Eeprom {
    /// A word on request, by EERD.
    Eerd,
    /// By moving the Microwire's lines in EECD. Each level is held this long: the manual allows 1 MHz
    /// (§5.3), but the parts on the cards differ, and both Linux and DPDK hold 50 us on the 82544. It has no
    /// EE_REQ and EE_GNT (they ask for the grant from the 82540 on), so none is waited for.
    Microwire(Duration),
}

/// Quirks of one chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::nic) struct Quirks {
    /// 82545EM, erratum 23 (the number that Linux gives, for the first 82545 and 82546): nothing that the
    /// card writes may go across a multiple of this, or it lands at a wrong address. That is
    /// descriptors, which are written back, of either ring, and receive buffers.
    pub writes_within: Option<usize>,
    /// All on PCI and PCI-X (Linux: the hardware may corrupt a frame while it pads it): frames are made [`SHORTEST_ON_THE_WIRE`] bytes long by software. The 82543GC's specification update has
    /// the kind as erratum 19 (transmit packet corruption of small packets).
    pub pads_badly: bool,
    /// "LSO premature descriptor write back" (82546GB specification update, erratum 1; Linux has it for
    /// the whole family): a descriptor of a frame to be cut is reported before all its data is read,
    /// and its buffer is used again too early. A descriptor of the last 4 bytes is reported in time.
    pub early_report: bool,
    /// The same of the first frame that is not cut after one that was; not on the 82544 (Linux).
    pub early_report_after: bool,
    /// All on PCI and PCI-X (Linux): whether the FIFO has room for a buffer to be cut is computed as if none
    /// had more than 4 segments, so that a longer one overruns it. At most 4 x MSS bytes a descriptor;
    /// since a header may not be in parts (§3.5.6), 4 x MSS holds the headers, too.
    pub four_segments: bool,
    /// In PCI-X mode, erratum 10 (the number that Linux gives, for all of the family): the first
    /// descriptor of a frame has at most so many bytes (2048 - 16 - 16 is too many), or the card hangs.
    pub pcix_first: usize,
    /// 82544 in PCI-X mode (Linux, FreeBSD): a buffer of more than 4 bytes whose last byte lies in the lower
    /// half of 8 aligned ones may hang the card. 4 bytes less, and it ends in the upper half.
    pub pcix_end: bool,
    /// 82540, 82544 and 82545 (Linux and DPDK; the 82545GM and 82546GB have CTRL_DUP instead): a chip that
    /// resets does not acknowledge the write that asked for it where the bus made 64 bits of it. Through
    /// the I/O ports (§13.2.2) it has 32.
    pub reset_by_ports: bool,
    /// Between stopping the units and resetting them, so that what is on the bus ends (Linux and DPDK,
    /// all chips: 10 ms). A master that is reset within a transaction hangs the bus.
    pub before_reset: Duration,
    /// Reload of the EEPROM's content after a reset.
    pub reload: Reload,
    /// The way to read it.
    pub eeprom: Eeprom,
    /// 82574 (Linux and DPDK; datasheet, EXTCNF_CTRL): the MDIO lines, and the EEPROM, belong to the
    /// firmware until software takes them; whoever resets or reads without is in the middle of the
    /// firmware's access to the PHY. A reset gives them to the firmware again.
    pub mdio_owner: bool,
    /// 82574 (specification update; Linux turns both off): with ASPM L0s or L1 the link loses completions,
    /// and the transmitter hangs.
    pub no_aspm: bool,
    /// Packet buffer for reception, in KB (PBA, §13.4.16, and for the 82574 §10.2.2): else, and where frames
    /// are longer than [`LONG_FRAME`], which leaves more for transmission (Linux). The rest must hold a
    /// whole frame and 80 bytes (§3.3.6), or it never leaves. A reset keeps what the kernel's driver left
    /// there, and makes what is written before it count, so it is always written, before the reset.
    pub receive_kb: (u8, u8),
    /// Collision distance, full and half duplex (TCTL.COLD, §13.4.33, table 13-76: 40h and 200h). With that of
    /// full duplex a collision that is late, but legal, is taken for an error and the frame is lost.
    pub cold: (u16, u16),
}

/// Frames longer than this need [`Quirks::receive_kb`]'s second figure.
pub(in crate::nic) const LONG_FRAME: usize = 8192;

/// A PCI part: 32 bits, 66 MHz.
pub(in crate::nic) const I82540EM: Quirks = Quirks {
    writes_within: None,
    pads_badly: true,
    early_report: true,
    early_report_after: true,
    four_segments: true,
    pcix_first: 2015,
    pcix_end: false,
    reset_by_ports: true,
    before_reset: Duration::from_millis(10),
    reload: Reload::ByItself(Duration::from_millis(5)),
    eeprom: Eeprom::Eerd,
    mdio_owner: false,
    no_aspm: false,
    receive_kb: (48, 40),
    cold: (0x40, 0x200),
};

/// A PCI-X part, the oldest here.
pub(in crate::nic) const I82544GC: Quirks = Quirks {
    early_report_after: false,
    pcix_end: true,
    reload: Reload::Asked(Duration::from_millis(2)),
    eeprom: Eeprom::Microwire(Duration::from_micros(50)),
    ..I82540EM
};

/// A PCI-X part.
pub(in crate::nic) const I82545EM: Quirks = Quirks {
    writes_within: Some(64 << 10),
    receive_kb: (48, 32),
    ..I82540EM
};

/// A PCI Express part.
pub(in crate::nic) const I82574L: Quirks = Quirks {
    writes_within: None,
    pads_badly: false,
    early_report: false,
    early_report_after: false,
    four_segments: false,
    pcix_first: usize::MAX,
    pcix_end: false,
    reset_by_ports: false,
    before_reset: Duration::from_millis(10),
    reload: Reload::Told(Duration::from_millis(25)),
    eeprom: Eeprom::Eerd,
    mdio_owner: true,
    no_aspm: true,
    receive_kb: (20, 20),
    cold: (0x3f, 0x3f),
};

/// Quirks of transmit descriptors, on the bus that the card is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::nic) struct TxQuirks {
    /// [`Quirks::pads_badly`]
    pub pads_badly: bool,
    /// [`Quirks::early_report`]
    pub early_report: bool,
    /// [`Quirks::early_report_after`]
    pub early_report_after: bool,
    /// [`Quirks::four_segments`]
    pub four_segments: bool,
    /// [`Quirks::pcix_first`]; all that a descriptor takes where the bus is not PCI-X.
    pub first: usize,
    /// [`Quirks::pcix_end`], where the bus is PCI-X.
    pub ends_high: bool,
}

impl Quirks {
    /// Returns the quirks of transmit descriptors, on a PCI-X bus or another.
    pub const fn transmit(&self, pcix: bool) -> TxQuirks {
        TxQuirks {
            pads_badly: self.pads_badly,
            early_report: self.early_report,
            early_report_after: self.early_report_after,
            four_segments: self.four_segments,
            first: if pcix { self.pcix_first } else { usize::MAX },
            ends_high: pcix && self.pcix_end,
        }
    }

    /// Packet buffer for reception, in KB, for frames of up to `max_frame` bytes.
    pub const fn receive_kb_for(&self, max_frame: usize) -> u8 {
        match max_frame {
            ..=LONG_FRAME => self.receive_kb.0,
            _ => self.receive_kb.1,
        }
    }

    /// Collision distance of a link.
    pub const fn cold_for(&self, full_duplex: bool) -> u16 {
        if full_duplex {
            self.cold.0
        } else {
            self.cold.1
        }
    }
}
