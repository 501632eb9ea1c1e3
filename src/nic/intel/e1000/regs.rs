//! The registers of the Intel 8254x family (82540EM, 82544GC, 82545EM), in BAR 0.
//!
//! Names, fields and sections are those of the "PCI/PCI-X Family of Gigabit Ethernet Controllers
//! Software Developer's Manual" (317453, rev. 4.0), and the order is that of its chapter 13: first
//! the table, one line a register, then the types of those that have fields. Where the chips
//! differ, the field says so.

use bitfield_struct::bitfield;

crate::registers! {
    /// All of them.
    pub TABLE;

    // §13.4
    in "general";
    /// device control
    CTRL: Ctrl, ReadWrite, 0x0000, "13.4.1";
    /// device status
    STATUS: Status, ReadOnly, 0x0008, "13.4.2";
    /// EEPROM wires (the only way to the 82544's)
    EECD: Eecd, ReadWrite, 0x0010, "13.4.3";
    /// EEPROM read (not on the 82544)
    EERD: Eerd, ReadWrite, 0x0014, "13.4.4";
    /// extended device control
    CTRL_EXT: CtrlExt, ReadWrite, 0x0018, "13.4.6";
    /// MDI control: the way to the PHY's registers
    MDIC: Mdic, ReadWrite, 0x0020, "13.4.7";
    /// flow control address, low: 0x00c2_8001
    FCAL: u32, ReadWrite, 0x0028, "13.4.8";
    /// flow control address, high: 0x0100
    FCAH: u32, ReadWrite, 0x002c, "13.4.9";
    /// flow control EtherType: 0x8808
    FCT: u32, ReadWrite, 0x0030, "13.4.10";
    /// VLAN EtherType: 0x8100
    VET: u32, ReadWrite, 0x0038, "13.4.11";
    /// flow control transmit timer, in slots of 64 byte times
    FCTTV: u32, ReadWrite, 0x0170, "13.4.12";
    /// packet buffer allocation
    PBA: Pba, ReadWrite, 0x1000, "13.4.16";

    in "interrupts";
    /// interrupt causes; reading clears them all
    ICR: Interrupts, ReadClear, 0x00c0, "13.4.17";
    /// least time between interrupts, in 256 ns; 0 is no throttling (not on the 82544)
    ITR: u32, ReadWrite, 0x00c4, "13.4.18";
    /// interrupt cause set: ones raise
    ICS: Interrupts, WriteOnly, 0x00c8, "13.4.19";
    /// interrupt mask: ones enable, zeros change nothing
    IMS: Interrupts, ReadWrite, 0x00d0, "13.4.20";
    /// interrupt mask clear: ones disable
    IMC: Interrupts, WriteOnly, 0x00d8, "13.4.21";

    in "receive";
    /// receive control
    RCTL: Rctl, ReadWrite, 0x0100, "13.4.22";
    /// flow control: send XON below this
    FCRTL: Fcrtl, ReadWrite, 0x2160, "13.4.23";
    /// flow control: send XOFF above this
    FCRTH: Fcrth, ReadWrite, 0x2168, "13.4.24";
    /// receive ring's IOVA, low; 16-byte aligned
    RDBAL: u32, ReadWrite, 0x2800, "13.4.25";
    /// receive ring's IOVA, high
    RDBAH: u32, ReadWrite, 0x2804, "13.4.26";
    /// receive ring's bytes, a multiple of 128
    RDLEN: u32, ReadWrite, 0x2808, "13.4.27";
    /// receive head: the descriptor the device fills next
    RDH: u32, ReadWrite, 0x2810, "13.4.28";
    /// receive tail: one past the last the device may fill
    RDT: u32, ReadWrite, 0x2818, "13.4.29";
    /// receive interrupt delay
    RDTR: Rdtr, ReadWrite, 0x2820, "13.4.30";
    /// receive interrupt delay, at most, in 1.024 us; 0 is off (not on the 82544)
    RADV: u32, ReadWrite, 0x282c, "13.4.31";

    in "transmit";
    /// transmit control
    TCTL: Tctl, ReadWrite, 0x0400, "13.4.33";
    /// gaps between frames
    TIPG: Tipg, ReadWrite, 0x0410, "13.4.34";
    /// transmit ring's IOVA, low; 16-byte aligned
    TDBAL: u32, ReadWrite, 0x3800, "13.4.36";
    /// transmit ring's IOVA, high
    TDBAH: u32, ReadWrite, 0x3804, "13.4.37";
    /// transmit ring's bytes, a multiple of 128
    TDLEN: u32, ReadWrite, 0x3808, "13.4.38";
    /// transmit head: what the device takes next
    TDH: u32, ReadWrite, 0x3810, "13.4.39";
    /// transmit tail: one past our last
    TDT: u32, ReadWrite, 0x3818, "13.4.40";
    /// transmit interrupt delay, in 1.024 us; 0 is not allowed
    TIDV: u32, ReadWrite, 0x3820, "13.4.41";
    /// transmit descriptor thresholds
    TXDCTL: Txdctl, ReadWrite, 0x3828, "13.4.43";
    /// transmit interrupt delay, at most, in 1.024 us; 0 is off (not on the 82544)
    TADV: u32, ReadWrite, 0x382c, "13.4.44";

    in "receive";
    /// receive descriptor thresholds
    RXDCTL: Rxdctl, ReadWrite, 0x2828, "13.4.46";
    /// receive checksum offload
    RXCSUM: Rxcsum, ReadWrite, 0x5000, "13.4.47";

    // §13.5
    in "filters";
    /// multicast hash, a bit of 4096 each
    MTA[128, 4]: u32, ReadWrite, 0x5200, "13.5.1";
    /// receive address, bytes 0 to 3; number 0 is our own
    RAL[16, 8]: u32, ReadWrite, 0x5400, "13.5.2";
    /// receive address, bytes 4 and 5
    RAH[16, 8]: Rah, ReadWrite, 0x5404, "13.5.3";
    /// VLAN filter, a bit for each of 4096 ids
    VFTA[128, 4]: u32, ReadWrite, 0x5600, "13.5.4";

    // §13.7: they stick at all ones. Of a pair, read the low word first: reading the
    // high one clears both.
    in "statistics";
    /// frames received with a bad CRC
    CRCERRS: u32, ReadClear, 0x4000, "13.7.1";
    /// frames received with a broken last byte
    ALGNERRC: u32, ReadClear, 0x4004, "13.7.2";
    /// bad symbols received
    SYMERRS: u32, ReadClear, 0x4008, "13.7.3";
    /// frames the PHY found wrong
    RXERRC: u32, ReadClear, 0x400c, "13.7.4";
    /// frames missed: the device's receive FIFO was full
    MPC: u32, ReadClear, 0x4010, "13.7.5";
    /// frames sent after one collision
    SCC: u32, ReadClear, 0x4014, "13.7.6";
    /// frames given up after 16 collisions
    ECOL: u32, ReadClear, 0x4018, "13.7.7";
    /// frames sent after several collisions
    MCC: u32, ReadClear, 0x401c, "13.7.8";
    /// collisions past the first 64 bytes
    LATECOL: u32, ReadClear, 0x4020, "13.7.9";
    /// collisions
    COLC: u32, ReadClear, 0x4028, "13.7.10";
    /// frames that had to wait before being sent
    DC: u32, ReadClear, 0x4030, "13.7.11";
    /// frames sent without carrier sense
    TNCRS: u32, ReadClear, 0x4034, "13.7.12";
    /// sequence errors
    SEC: u32, ReadClear, 0x4038, "13.7.13";
    /// carrier extension errors
    CEXTERR: u32, ReadClear, 0x403c, "13.7.14";
    /// frames received too short or too long
    RLEC: u32, ReadClear, 0x4040, "13.7.15";
    /// XON received
    XONRXC: u32, ReadClear, 0x4048, "13.7.16";
    /// XON sent
    XONTXC: u32, ReadClear, 0x404c, "13.7.17";
    /// XOFF received
    XOFFRXC: u32, ReadClear, 0x4050, "13.7.18";
    /// XOFF sent
    XOFFTXC: u32, ReadClear, 0x4054, "13.7.19";
    /// flow control of an unknown kind received
    FCRUC: u32, ReadClear, 0x4058, "13.7.20";
    /// frames of 64 bytes received
    PRC64: u32, ReadClear, 0x405c, "13.7.21";
    /// frames of 65 to 127 bytes received
    PRC127: u32, ReadClear, 0x4060, "13.7.22";
    /// frames of 128 to 255 bytes received
    PRC255: u32, ReadClear, 0x4064, "13.7.23";
    /// frames of 256 to 511 bytes received
    PRC511: u32, ReadClear, 0x4068, "13.7.24";
    /// frames of 512 to 1023 bytes received
    PRC1023: u32, ReadClear, 0x406c, "13.7.25";
    /// frames of 1024 bytes and more received
    PRC1522: u32, ReadClear, 0x4070, "13.7.26";
    /// good frames received
    GPRC: u32, ReadClear, 0x4074, "13.7.27";
    /// broadcast frames received
    BPRC: u32, ReadClear, 0x4078, "13.7.28";
    /// multicast frames received
    MPRC: u32, ReadClear, 0x407c, "13.7.29";
    /// good frames sent
    GPTC: u32, ReadClear, 0x4080, "13.7.30";
    /// good bytes received, low
    GORCL: u32, ReadClear, 0x4088, "13.7.31";
    /// good bytes received, high
    GORCH: u32, ReadClear, 0x408c, "13.7.31";
    /// good bytes sent, low
    GOTCL: u32, ReadClear, 0x4090, "13.7.32";
    /// good bytes sent, high
    GOTCH: u32, ReadClear, 0x4094, "13.7.32";
    /// frames that came while the ring had no free descriptor
    RNBC: u32, ReadClear, 0x40a0, "13.7.33";
    /// frames received too short, CRC good
    RUC: u32, ReadClear, 0x40a4, "13.7.34";
    /// frames received too short, CRC bad
    RFC: u32, ReadClear, 0x40a8, "13.7.35";
    /// frames received too long, CRC good
    ROC: u32, ReadClear, 0x40ac, "13.7.36";
    /// frames received too long, CRC bad
    RJC: u32, ReadClear, 0x40b0, "13.7.37";
    /// management frames received (not on the 82544)
    MGTPRC: u32, ReadClear, 0x40b4, "13.7.38";
    /// management frames dropped (not on the 82544)
    MGTPDC: u32, ReadClear, 0x40b8, "13.7.39";
    /// management frames sent (not on the 82544)
    MGTPTC: u32, ReadClear, 0x40bc, "13.7.40";
    /// bytes received, low
    TORL: u32, ReadClear, 0x40c0, "13.7.41";
    /// bytes received, high
    TORH: u32, ReadClear, 0x40c4, "13.7.41";
    /// bytes sent, low
    TOTL: u32, ReadClear, 0x40c8, "13.7.42";
    /// bytes sent, high
    TOTH: u32, ReadClear, 0x40cc, "13.7.42";
    /// frames received
    TPR: u32, ReadClear, 0x40d0, "13.7.43";
    /// frames sent
    TPT: u32, ReadClear, 0x40d4, "13.7.44";
    /// frames of 64 bytes sent
    PTC64: u32, ReadClear, 0x40d8, "13.7.45";
    /// frames of 65 to 127 bytes sent
    PTC127: u32, ReadClear, 0x40dc, "13.7.46";
    /// frames of 128 to 255 bytes sent
    PTC255: u32, ReadClear, 0x40e0, "13.7.47";
    /// frames of 256 to 511 bytes sent
    PTC511: u32, ReadClear, 0x40e4, "13.7.48";
    /// frames of 512 to 1023 bytes sent
    PTC1023: u32, ReadClear, 0x40e8, "13.7.49";
    /// frames of 1024 bytes and more sent
    PTC1522: u32, ReadClear, 0x40ec, "13.7.50";
    /// multicast frames sent
    MPTC: u32, ReadClear, 0x40f0, "13.7.51";
    /// broadcast frames sent
    BPTC: u32, ReadClear, 0x40f4, "13.7.52";
    /// TCP segmentations done
    TSCTC: u32, ReadClear, 0x40f8, "13.7.53";
    /// TCP segmentations that failed
    TSCTFC: u32, ReadClear, 0x40fc, "13.7.54";
}

/// Device control, §13.4.1
#[bitfield(u32)]
pub struct Ctrl {
    /// Full duplex
    pub fd: bool,
    #[bits(2)]
    __: u8,
    /// Link reset (fibre)
    pub lrst: bool,
    __: bool,
    /// Auto-speed detection
    pub asde: bool,
    /// Set link up
    pub slu: bool,
    /// Invert loss-of-signal
    pub ilos: bool,
    /// Forced speed: 10, 100, 1000 Mb/s
    #[bits(2)]
    pub speed: u8,
    __: bool,
    /// Force the speed
    pub frcspd: bool,
    /// Force the duplex
    pub frcdplx: bool,
    #[bits(5)]
    __: u8,
    /// Software pin 0
    pub sdp0_data: bool,
    /// Software pin 1
    pub sdp1_data: bool,
    /// Wake from D3cold
    pub advd3wuc: bool,
    /// PHY power management
    pub en_phy_pwr_mgmt: bool,
    /// Software pin 0 is an output
    pub sdp0_iodir: bool,
    /// Software pin 1 is an output
    pub sdp1_iodir: bool,
    #[bits(2)]
    __: u8,
    /// Device reset, clears itself
    pub rst: bool,
    /// Receive flow control
    pub rfce: bool,
    /// Transmit flow control
    pub tfce: bool,
    __: bool,
    /// VLAN mode: strip and insert tags
    pub vme: bool,
    /// PHY reset
    pub phy_rst: bool,
}

/// Device status, §13.4.2
#[bitfield(u32)]
pub struct Status {
    /// Full duplex
    pub fd: bool,
    /// Link up
    pub lu: bool,
    /// Which LAN of a dual-port chip
    #[bits(2)]
    pub function_id: u8,
    /// Transmission is paused
    pub txoff: bool,
    /// Fibre (TBI) mode
    pub tbimode: bool,
    /// Link speed: 10, 100, 1000, 1000 Mb/s
    #[bits(2)]
    pub speed: u8,
    /// Speed as auto-detected
    #[bits(2)]
    pub asdv: u8,
    __: bool,
    /// PCI bus at 66 MHz
    pub pci66: bool,
    /// PCI bus of 64 bits
    pub bus64: bool,
    /// PCI-X bus
    pub pcix_mode: bool,
    /// PCI-X speed: 66, 100, 133 MHz
    #[bits(2)]
    pub pcixspd: u8,
    __: u16,
}

/// EEPROM/flash control and data: the EEPROM's wires, §13.4.3
#[bitfield(u32)]
pub struct Eecd {
    /// Clock
    pub ee_sk: bool,
    /// Chip select
    pub ee_cs: bool,
    /// Data in to the EEPROM
    pub ee_di: bool,
    /// Data out of the EEPROM
    pub ee_do: bool,
    /// Flash writes: 1 disabled, 2 enabled
    #[bits(2)]
    pub fwe: u8,
    /// Request the wires
    pub ee_req: bool,
    /// The wires are ours
    pub ee_gnt: bool,
    /// An EEPROM is there (not on the 82544)
    pub ee_pres: bool,
    /// 256 words, not 64
    pub ee_size: bool,
    #[bits(22)]
    __: u32,
}

/// EEPROM read, §13.4.4; the 82541 and 82547 have DONE at bit 1 and ADDR at 15:2
#[bitfield(u32)]
pub struct Eerd {
    /// Start a read
    pub start: bool,
    #[bits(3)]
    __: u8,
    /// Data is valid
    pub done: bool,
    #[bits(3)]
    __: u8,
    /// Word to read
    pub addr: u8,
    /// The word read
    pub data: u16,
}

/// Extended device control, §13.4.6
#[bitfield(u32)]
pub struct CtrlExt {
    /// Interrupts from the software pins (bit 1: from the PHY)
    #[bits(4)]
    pub gpi_en: u8,
    /// Software pins 4 to 7
    #[bits(4)]
    pub sdp_data: u8,
    /// Software pins 4 to 7 are outputs
    #[bits(4)]
    pub sdp_iodir: u8,
    /// Detect the speed now
    pub asdchk: bool,
    /// Re-read the EEPROM
    pub ee_rst: bool,
    /// Invert power state
    pub ips: bool,
    /// Bypass speed selection
    pub spd_byps: bool,
    __: bool,
    /// No relaxed ordering
    pub ro_dis: bool,
    #[bits(4)]
    __: u8,
    /// Link: 0 PHY, 2 SerDes, 3 TBI
    #[bits(2)]
    pub link_mode: u8,
    __: u8,
}

/// MDI control, §13.4.7
#[bitfield(u32)]
pub struct Mdic {
    /// Data to or from the PHY
    pub data: u16,
    /// PHY register
    #[bits(5)]
    pub regadd: u8,
    /// PHY; the internal one is 1
    #[bits(5)]
    pub phyadd: u8,
    /// 1 write, 2 read
    #[bits(2)]
    pub op: u8,
    /// Ready
    pub r: bool,
    /// Interrupt when ready
    pub i: bool,
    /// Error
    pub e: bool,
    __: bool,
}

/// Packet buffer allocation, §13.4.16; takes effect at a reset
#[bitfield(u32)]
pub struct Pba {
    /// Receive buffer in KB, a multiple of 8
    #[bits(7)]
    pub rxa: u8,
    #[bits(9)]
    __: u16,
    /// Transmit buffer in KB: the rest
    pub txa: u16,
}

/// Interrupt causes of ICR, ICS, IMS and IMC, §13.4.17 to §13.4.21
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Interrupts {
    /// Transmit descriptor written back
    pub txdw: bool,
    /// Transmit queue empty
    pub txqe: bool,
    /// Link status change
    pub lsc: bool,
    /// Receive sequence error (fibre)
    pub rxseq: bool,
    /// Few receive descriptors left (RCTL.RDMTS)
    pub rxdmt0: bool,
    __: bool,
    /// Receiver overrun
    pub rxo: bool,
    /// Receive timer: frames have come
    pub rxt0: bool,
    __: bool,
    /// MDI access complete
    pub mdac: bool,
    /// /C/ ordered sets received (fibre)
    pub rxcfg: bool,
    __: bool,
    /// PHY
    pub phyint: bool,
    /// Software pins (82544: with 12:11)
    #[bits(2)]
    pub gpi: u8,
    /// Few transmit descriptors left (not on the 82544)
    pub txd_low: bool,
    /// Small frame received (not on the 82544)
    pub srpd: bool,
    #[bits(15)]
    __: u16,
}

/// Receive control, §13.4.22
#[bitfield(u32)]
pub struct Rctl {
    __: bool,
    /// Receiver on
    pub en: bool,
    /// Store bad frames
    pub sbp: bool,
    /// Unicast promiscuous
    pub upe: bool,
    /// Multicast promiscuous
    pub mpe: bool,
    /// Long frames, past 1522 bytes
    pub lpe: bool,
    /// Loopback: 0 none, 3 in the PHY or transceiver
    #[bits(2)]
    pub lbm: u8,
    /// RXDMT0 at 1/2, 1/4 or 1/8 of the ring free
    #[bits(2)]
    pub rdmts: u8,
    #[bits(2)]
    __: u8,
    /// Multicast hash: address bits 47:36, 46:35, 45:34 or 43:32
    #[bits(2)]
    pub mo: u8,
    __: bool,
    /// Accept broadcast
    pub bam: bool,
    /// Buffer size: 2048, 1024, 512, 256; times 16 with BSEX
    #[bits(2)]
    pub bsize: u8,
    /// VLAN filter on
    pub vfe: bool,
    /// Filter on the CFI bit
    pub cfien: bool,
    /// The CFI bit to accept
    pub cfi: bool,
    __: bool,
    /// Discard pause frames
    pub dpf: bool,
    /// Pass MAC control frames
    pub pmcf: bool,
    __: bool,
    /// Buffer size extension: times 16
    pub bsex: bool,
    /// Strip the CRC
    pub secrc: bool,
    #[bits(5)]
    __: u8,
}

impl Rctl {
    /// BSIZE and BSEX for buffers of `bytes`: 256, 512, 1024, 2048, 4096, 8192 or 16384; `None` for
    /// any other.
    pub const fn with_buffer(self, bytes: usize) -> Option<Self> {
        let (bsize, bsex) = match bytes {
            2048 => (0, false),
            1024 => (1, false),
            512 => (2, false),
            256 => (3, false),
            16384 => (1, true),
            8192 => (2, true),
            4096 => (3, true),
            _ => return None,
        };
        Some(self.with_bsize(bsize).with_bsex(bsex))
    }

    /// Bytes of a receive buffer, from BSIZE and BSEX; `None` for BSIZE 0 with BSEX, which is
    /// reserved.
    pub const fn buffer(self) -> Option<usize> {
        match (self.bsize(), self.bsex()) {
            (0, true) => None,
            (bsize, true) => Some((16 * 2048) >> bsize),
            (bsize, false) => Some(2048 >> bsize),
        }
    }
}

/// Flow control receive threshold, low, §13.4.23
#[bitfield(u32)]
pub struct Fcrtl {
    #[bits(3)]
    __: u8,
    /// Low water mark, in 8 bytes
    #[bits(13)]
    pub rtl: u16,
    #[bits(15)]
    __: u16,
    /// Send XON (82544 only)
    pub xone: bool,
}

/// Flow control receive threshold, high, §13.4.24
#[bitfield(u32)]
pub struct Fcrth {
    #[bits(3)]
    __: u8,
    /// High water mark, in 8 bytes
    #[bits(13)]
    pub rth: u16,
    #[bits(15)]
    __: u16,
    /// XOFF and XON by pins (82544 only)
    pub xfce: bool,
}

/// Receive delay timer, §13.4.30
#[bitfield(u32)]
pub struct Rdtr {
    /// Delay in 1.024 us; prefer ITR
    pub delay: u16,
    #[bits(15)]
    __: u16,
    /// Flush the partial descriptor block
    pub fpd: bool,
}

/// Transmit control, §13.4.33
#[bitfield(u32)]
pub struct Tctl {
    __: bool,
    /// Transmitter on
    pub en: bool,
    __: bool,
    /// Pad short frames to 64 bytes
    pub psp: bool,
    /// Collision threshold; recommended 0x0f
    pub ct: u8,
    /// Collision distance; full duplex 0x40, half 0x200
    #[bits(10)]
    pub cold: u16,
    /// Send an XOFF now
    pub swxoff: bool,
    __: bool,
    /// Retransmit on late collision
    pub rtlc: bool,
    /// No retransmit on underrun (82544 only)
    pub nrtu: bool,
    #[bits(6)]
    __: u8,
}

/// Transmit inter-packet gap, in MAC clocks, §13.4.34
#[bitfield(u32)]
pub struct Tipg {
    /// Back to back; copper 10 (82544: 8)
    #[bits(10)]
    pub ipgt: u16,
    /// Half duplex, first part; 8
    #[bits(10)]
    pub ipgr1: u16,
    /// Half duplex, all of it; 6
    #[bits(10)]
    pub ipgr2: u16,
    #[bits(2)]
    __: u8,
}

/// Transmit descriptor control, §13.4.43
#[bitfield(u32)]
pub struct Txdctl {
    /// Prefetch below this many on chip
    #[bits(6)]
    pub pthresh: u8,
    #[bits(2)]
    __: u8,
    /// ... when this many are in the ring
    #[bits(6)]
    pub hthresh: u8,
    #[bits(2)]
    __: u8,
    /// Write back this many at once
    #[bits(6)]
    pub wthresh: u8,
    #[bits(2)]
    __: u8,
    /// Count descriptors, not cache lines
    pub gran: bool,
    /// TXD_LOW at 8 times this many (not on the 82544)
    #[bits(7)]
    pub lwthresh: u8,
}

/// Receive descriptor control, §13.4.46
#[bitfield(u32)]
pub struct Rxdctl {
    /// Prefetch below this many on chip
    #[bits(6)]
    pub pthresh: u8,
    #[bits(2)]
    __: u8,
    /// ... when this many are in the ring
    #[bits(6)]
    pub hthresh: u8,
    #[bits(2)]
    __: u8,
    /// Write back this many at once
    #[bits(6)]
    pub wthresh: u8,
    #[bits(2)]
    __: u8,
    /// Count descriptors, not cache lines
    pub gran: bool,
    #[bits(7)]
    __: u8,
}

/// Receive checksum control, §13.4.47
#[bitfield(u32)]
pub struct Rxcsum {
    /// Start of the packet checksum, in bytes
    pub pcss: u8,
    /// Check IP headers
    pub ipofld: bool,
    /// Check TCP and UDP
    pub tuofld: bool,
    #[bits(22)]
    __: u32,
}

/// Receive address, high, §13.5.3
#[bitfield(u32)]
pub struct Rah {
    /// Bytes 4 and 5 of the address
    pub rah: u16,
    /// Address select (the manual's AS): 0 destination, 1 source
    #[bits(2)]
    pub asel: u8,
    #[bits(13)]
    __: u16,
    /// Address valid
    pub av: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::{Access, RegInfo, fields};

    /// Checks which field each bit belongs to: `(low, high, name)`; a bit of none has no name.
    fn check<T: From<u32> + std::fmt::Debug>(layout: &[(u32, u32, &str)]) {
        for bit in 0..32 {
            let expected = layout
                .iter()
                .find(|(low, high, _)| (*low..=*high).contains(&bit))
                .map(|(low, _, name)| (name.to_string(), 1u32 << bit.abs_diff(*low)));
            let value = T::from(1 << bit);
            let found = fields(&value).into_iter().next();
            let found = found.map(|(name, value)| (name, value.parse().unwrap_or(1)));
            assert_eq!(found, expected, "bit {bit} of {value:?}");
        }
    }

    #[test]
    #[rustfmt::skip]
    fn every_bit_is_where_the_manual_has_it() {
        check::<Ctrl>(&[
            (0, 0, "fd"), (3, 3, "lrst"), (5, 5, "asde"), (6, 6, "slu"), (7, 7, "ilos"),
            (8, 9, "speed"), (11, 11, "frcspd"), (12, 12, "frcdplx"), (18, 18, "sdp0_data"),
            (19, 19, "sdp1_data"), (20, 20, "advd3wuc"), (21, 21, "en_phy_pwr_mgmt"),
            (22, 22, "sdp0_iodir"), (23, 23, "sdp1_iodir"), (26, 26, "rst"), (27, 27, "rfce"),
            (28, 28, "tfce"), (30, 30, "vme"), (31, 31, "phy_rst"),
        ]);
        check::<Status>(&[
            (0, 0, "fd"), (1, 1, "lu"), (2, 3, "function_id"), (4, 4, "txoff"), (5, 5, "tbimode"),
            (6, 7, "speed"), (8, 9, "asdv"), (11, 11, "pci66"), (12, 12, "bus64"),
            (13, 13, "pcix_mode"), (14, 15, "pcixspd"),
        ]);
        check::<Eecd>(&[
            (0, 0, "ee_sk"), (1, 1, "ee_cs"), (2, 2, "ee_di"), (3, 3, "ee_do"), (4, 5, "fwe"),
            (6, 6, "ee_req"), (7, 7, "ee_gnt"), (8, 8, "ee_pres"), (9, 9, "ee_size"),
        ]);
        check::<Eerd>(&[(0, 0, "start"), (4, 4, "done"), (8, 15, "addr"), (16, 31, "data")]);
        check::<CtrlExt>(&[
            (0, 3, "gpi_en"), (4, 7, "sdp_data"), (8, 11, "sdp_iodir"), (12, 12, "asdchk"),
            (13, 13, "ee_rst"), (14, 14, "ips"), (15, 15, "spd_byps"), (17, 17, "ro_dis"),
            (22, 23, "link_mode"),
        ]);
        check::<Mdic>(&[
            (0, 15, "data"), (16, 20, "regadd"), (21, 25, "phyadd"), (26, 27, "op"),
            (28, 28, "r"), (29, 29, "i"), (30, 30, "e"),
        ]);
        check::<Pba>(&[(0, 6, "rxa"), (16, 31, "txa")]);
        check::<Interrupts>(&[
            (0, 0, "txdw"), (1, 1, "txqe"), (2, 2, "lsc"), (3, 3, "rxseq"), (4, 4, "rxdmt0"),
            (6, 6, "rxo"), (7, 7, "rxt0"), (9, 9, "mdac"), (10, 10, "rxcfg"), (12, 12, "phyint"),
            (13, 14, "gpi"), (15, 15, "txd_low"), (16, 16, "srpd"),
        ]);
        check::<Rctl>(&[
            (1, 1, "en"), (2, 2, "sbp"), (3, 3, "upe"), (4, 4, "mpe"), (5, 5, "lpe"),
            (6, 7, "lbm"), (8, 9, "rdmts"), (12, 13, "mo"), (15, 15, "bam"), (16, 17, "bsize"),
            (18, 18, "vfe"), (19, 19, "cfien"), (20, 20, "cfi"), (22, 22, "dpf"),
            (23, 23, "pmcf"), (25, 25, "bsex"), (26, 26, "secrc"),
        ]);
        check::<Fcrtl>(&[(3, 15, "rtl"), (31, 31, "xone")]);
        check::<Fcrth>(&[(3, 15, "rth"), (31, 31, "xfce")]);
        check::<Rdtr>(&[(0, 15, "delay"), (31, 31, "fpd")]);
        check::<Tctl>(&[
            (1, 1, "en"), (3, 3, "psp"), (4, 11, "ct"), (12, 21, "cold"), (22, 22, "swxoff"),
            (24, 24, "rtlc"), (25, 25, "nrtu"),
        ]);
        check::<Tipg>(&[(0, 9, "ipgt"), (10, 19, "ipgr1"), (20, 29, "ipgr2")]);
        check::<Txdctl>(&[
            (0, 5, "pthresh"), (8, 13, "hthresh"), (16, 21, "wthresh"), (24, 24, "gran"),
            (25, 31, "lwthresh"),
        ]);
        check::<Rxdctl>(&[
            (0, 5, "pthresh"), (8, 13, "hthresh"), (16, 21, "wthresh"), (24, 24, "gran"),
        ]);
        check::<Rxcsum>(&[(0, 7, "pcss"), (8, 8, "ipofld"), (9, 9, "tuofld")]);
        check::<Rah>(&[(0, 15, "rah"), (16, 17, "asel"), (31, 31, "av")]);
    }

    #[test]
    fn no_two_registers_share_an_offset() {
        let mut offsets: Vec<_> = TABLE
            .iter()
            .flat_map(|info| (0..info.array.0).map(|i| info.offset + i * info.array.1))
            .collect();
        let all = offsets.len();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), all);
        let (info, index) = RegInfo::find(TABLE, 0x547c).unwrap();
        assert_eq!((info.name, index), ("RAH", 15));
        assert_eq!(MTA.index(127).offset(), 0x53fc);
        assert_eq!(VFTA.index(127).offset(), 0x57fc);
    }

    #[test]
    fn the_table_is_in_the_order_of_chapter_13() {
        let section = |info: &RegInfo| -> Vec<u32> {
            info.section
                .split('.')
                .map(|n| n.parse().unwrap())
                .collect()
        };
        assert!(TABLE.is_sorted_by_key(section));
    }

    #[test]
    fn statistics_clear_on_read() {
        for info in TABLE {
            let statistic = (0x4000..0x4100).contains(&info.offset) || info.name == "ICR";
            assert_eq!(info.access == Access::ReadClear, statistic, "{}", info.name);
        }
    }

    #[test]
    fn buffer_sizes_round_trip() {
        for bytes in [256, 512, 1024, 2048, 4096, 8192, 16384] {
            let rctl = Rctl::new().with_buffer(bytes).unwrap();
            assert_eq!(rctl.buffer(), Some(bytes));
        }
        assert!(Rctl::new().with_buffer(1500).is_none());
        assert!(Rctl::new().with_bsex(true).buffer().is_none());
        assert_eq!(
            Rctl::new().with_buffer(4096).unwrap().into_bits(),
            0x0203_0000
        );
    }
}
