//! The registers of the Intel 82574, in BAR 0.
//!
//! Names and fields are those of the "82574 GbE Controller Family Datasheet" (rev. 3.4), and the order is
//! that of its section 10.2; a § is the group there that a register belongs to. Much looks like the
//! 8254x's and is not quite: EERD has other bits, every queue has its own registers 0x100 further on,
//! interrupts are told apart by queue, and a received frame may be described in more ways.

use bitfield_struct::bitfield;

use crate::mmio::{Reg, WriteOnly};

crate::registers! {
    /// All of them.
    pub TABLE;

    // §10.2.2
    in "general";
    /// device control
    CTRL: Ctrl, ReadWrite, 0x0000, "10.2.2";
    /// device status
    STATUS: Status, ReadOnly, 0x0008, "10.2.2";
    /// EEPROM and flash control
    EEC: Eec, ReadWrite, 0x0010, "10.2.2";
    /// EEPROM read
    EERD: Eerd, ReadWrite, 0x0014, "10.2.2";
    /// extended device control
    CTRL_EXT: CtrlExt, ReadWrite, 0x0018, "10.2.2";
    /// MDI control: the way to the PHY's registers
    MDIC: Mdic, ReadWrite, 0x0020, "10.2.2";
    /// flow control address, low: 0x00c2_8001
    FCAL: u32, ReadWrite, 0x0028, "10.2.2";
    /// flow control address, high: 0x0100
    FCAH: u32, ReadWrite, 0x002c, "10.2.2";
    /// flow control EtherType: 0x8808
    FCT: u32, ReadWrite, 0x0030, "10.2.2";
    /// VLAN EtherType: 0x8100
    VET: u32, ReadWrite, 0x0038, "10.2.2";
    /// flow control transmit timer, in slots of 64 byte times
    FCTTV: u32, ReadWrite, 0x0170, "10.2.2";
    /// who owns the MDIO lines and the EEPROM
    EXTCNF_CTRL: ExtcnfCtrl, ReadWrite, 0x0f00, "10.2.2";
    /// packet buffer allocation
    PBA: Pba, ReadWrite, 0x1000, "10.2.2";

    in "PCIe";
    /// PCIe control
    GCR: Gcr, ReadWrite, 0x5b00, "10.2.3";
    /// PCIe control 2
    GCR2: Gcr2, ReadWrite, 0x5b64, "10.2.3";

    in "interrupts";
    /// interrupt causes; reading clears them all, writing those that are one
    ICR: Interrupts, ReadClear, 0x00c0, "10.2.4";
    /// least time between INTx or MSI interrupts, in 256 ns; 0 is no throttling
    ITR: u32, ReadWrite, 0x00c4, "10.2.4";
    /// interrupt cause set: ones raise
    ICS: Interrupts, WriteOnly, 0x00c8, "10.2.4";
    /// interrupt mask: ones enable, zeros change nothing
    IMS: Interrupts, ReadWrite, 0x00d0, "10.2.4";
    /// interrupt mask clear: ones disable
    IMC: Interrupts, WriteOnly, 0x00d8, "10.2.4";
    /// causes that an MSI-X message clears and masks by itself
    EIAC: Interrupts, ReadWrite, 0x00dc, "10.2.4";
    /// causes that reading or writing ICR masks by itself, with CTRL_EXT.IAME
    IAM: Interrupts, ReadWrite, 0x00e0, "10.2.4";
    /// which MSI-X vector a cause goes to
    IVAR: Ivar, ReadWrite, 0x00e4, "10.2.4";
    /// least time between messages of an MSI-X vector, in 256 ns; 0 is no throttling
    EITR[5, 4]: u32, ReadWrite, 0x00e8, "10.2.4";

    in "receive";
    /// receive control
    RCTL: Rctl, ReadWrite, 0x0100, "10.2.5";
    /// packet split: sizes of the buffers
    PSRCTL: Psrctl, ReadWrite, 0x2170, "10.2.5";
    /// receive ring's IOVA, low; 16-byte aligned
    RDBAL[2, 0x100]: u32, ReadWrite, 0x2800, "10.2.5";
    /// receive ring's IOVA, high
    RDBAH[2, 0x100]: u32, ReadWrite, 0x2804, "10.2.5";
    /// receive ring's bytes, a multiple of 128
    RDLEN[2, 0x100]: u32, ReadWrite, 0x2808, "10.2.5";
    /// receive head: what the device fills next, in 16 bytes
    RDH[2, 0x100]: u32, ReadWrite, 0x2810, "10.2.5";
    /// receive tail: one past what the device may fill, in 16 bytes
    RDT[2, 0x100]: u32, ReadWrite, 0x2818, "10.2.5";
    /// receive interrupt delay
    RDTR: Rdtr, ReadWrite, 0x2820, "10.2.5";
    /// receive descriptor thresholds
    RXDCTL[2, 0x100]: Rxdctl, ReadWrite, 0x2828, "10.2.5";
    /// receive interrupt delay, at most, in 1.024 us; 0 is off
    RADV: u32, ReadWrite, 0x282c, "10.2.5";
    /// small frames, up to this many bytes, interrupt at once
    RSRPD: u32, ReadWrite, 0x2c00, "10.2.5";
    /// TCP acknowledgements: interrupt delay, in 1.024 us
    RAID: u32, ReadWrite, 0x2c08, "10.2.5";
    /// receive checksum offload
    RXCSUM: Rxcsum, ReadWrite, 0x5000, "10.2.5.15";
    /// receive filter control
    RFCTL: Rfctl, ReadWrite, 0x5008, "10.2.5";

    in "filters";
    /// multicast hash, a bit of 4096 each
    MTA[128, 4]: u32, ReadWrite, 0x5200, "10.2.5";
    /// receive address, bytes 0 to 3; number 0 is our own
    RAL[16, 8]: u32, ReadWrite, 0x5400, "10.2.5";
    /// receive address, bytes 4 and 5
    RAH[16, 8]: Rah, ReadWrite, 0x5404, "10.2.5";
    /// VLAN filter, a bit for each of 4096 ids
    VFTA[128, 4]: u32, ReadWrite, 0x5600, "10.2.5";

    in "receive side scaling";
    /// which frames are hashed, and whether the hash picks a queue
    MRQC: Mrqc, ReadWrite, 0x5818, "10.2.5";
    /// redirection table: four of 128 entries each
    RETA[32, 4]: Reta, ReadWrite, 0x5c00, "10.2.5";
    /// key of the hash: four of 40 bytes each
    RSSRK[10, 4]: u32, ReadWrite, 0x5c80, "10.2.5";

    in "transmit";
    /// transmit control
    TCTL: Tctl, ReadWrite, 0x0400, "10.2.6";
    /// gaps between frames
    TIPG: Tipg, ReadWrite, 0x0410, "10.2.6";
    /// transmit ring's IOVA, low; 16-byte aligned
    TDBAL[2, 0x100]: u32, ReadWrite, 0x3800, "10.2.6";
    /// transmit ring's IOVA, high
    TDBAH[2, 0x100]: u32, ReadWrite, 0x3804, "10.2.6";
    /// transmit ring's bytes, a multiple of 128
    TDLEN[2, 0x100]: u32, ReadWrite, 0x3808, "10.2.6";
    /// transmit head: what the device takes next
    TDH[2, 0x100]: u32, ReadWrite, 0x3810, "10.2.6";
    /// transmit tail: one past our last
    TDT[2, 0x100]: u32, ReadWrite, 0x3818, "10.2.6";
    /// transmit interrupt delay, in 1.024 us
    TIDV: u32, ReadWrite, 0x3820, "10.2.6";
    /// transmit descriptor thresholds
    TXDCTL[2, 0x100]: Txdctl, ReadWrite, 0x3828, "10.2.6";
    /// arbitration between the queues
    TARC[2, 0x100]: Tarc, ReadWrite, 0x3840, "10.2.6";
    /// transmit interrupt delay, at most, in 1.024 us; 0 is off
    TADV: u32, ReadWrite, 0x382c, "10.2.6.12";

    // §10.2.7: they stick at all ones. Of a pair, read the low word first: reading the
    // high one clears both.
    in "statistics";
    /// frames received with a bad CRC
    CRCERRS: u32, ReadClear, 0x4000, "10.2.7";
    /// frames received with a broken last byte
    ALGNERRC: u32, ReadClear, 0x4004, "10.2.7";
    /// frames with an error signalled by the PHY
    RXERRC: u32, ReadClear, 0x400c, "10.2.7";
    /// frames missed: the device's receive FIFO was full
    MPC: u32, ReadClear, 0x4010, "10.2.7";
    /// frames sent after one collision
    SCC: u32, ReadClear, 0x4014, "10.2.7";
    /// frames given up after 16 collisions
    ECOL: u32, ReadClear, 0x4018, "10.2.7";
    /// frames sent after several collisions
    MCC: u32, ReadClear, 0x401c, "10.2.7";
    /// collisions past the first 64 bytes
    LATECOL: u32, ReadClear, 0x4020, "10.2.7";
    /// collisions
    COLC: u32, ReadClear, 0x4028, "10.2.7";
    /// frames that had to wait before being sent
    DC: u32, ReadClear, 0x4030, "10.2.7";
    /// frames sent without carrier sense
    TNCRS: u32, ReadClear, 0x4034, "10.2.7";
    /// carrier extension errors
    CEXTERR: u32, ReadClear, 0x403c, "10.2.7";
    /// frames received too short or too long
    RLEC: u32, ReadClear, 0x4040, "10.2.7";
    /// XON received
    XONRXC: u32, ReadClear, 0x4048, "10.2.7";
    /// XON sent
    XONTXC: u32, ReadClear, 0x404c, "10.2.7";
    /// XOFF received
    XOFFRXC: u32, ReadClear, 0x4050, "10.2.7";
    /// XOFF sent
    XOFFTXC: u32, ReadClear, 0x4054, "10.2.7";
    /// flow control of an unknown kind received
    FCRUC: u32, ReadClear, 0x4058, "10.2.7";
    /// frames of 64 bytes received
    PRC64: u32, ReadClear, 0x405c, "10.2.7";
    /// frames of 65 to 127 bytes received
    PRC127: u32, ReadClear, 0x4060, "10.2.7";
    /// frames of 128 to 255 bytes received
    PRC255: u32, ReadClear, 0x4064, "10.2.7";
    /// frames of 256 to 511 bytes received
    PRC511: u32, ReadClear, 0x4068, "10.2.7";
    /// frames of 512 to 1023 bytes received
    PRC1023: u32, ReadClear, 0x406c, "10.2.7";
    /// frames of 1024 bytes and more received
    PRC1522: u32, ReadClear, 0x4070, "10.2.7";
    /// good frames received
    GPRC: u32, ReadClear, 0x4074, "10.2.7";
    /// broadcast frames received
    BPRC: u32, ReadClear, 0x4078, "10.2.7";
    /// multicast frames received
    MPRC: u32, ReadClear, 0x407c, "10.2.7";
    /// good frames sent
    GPTC: u32, ReadClear, 0x4080, "10.2.7";
    /// good bytes received, low
    GORCL: u32, ReadClear, 0x4088, "10.2.7";
    /// good bytes received, high
    GORCH: u32, ReadClear, 0x408c, "10.2.7";
    /// good bytes sent, low
    GOTCL: u32, ReadClear, 0x4090, "10.2.7";
    /// good bytes sent, high
    GOTCH: u32, ReadClear, 0x4094, "10.2.7";
    /// frames that came while the ring had no free descriptor
    RNBC: u32, ReadClear, 0x40a0, "10.2.7";
    /// frames received too short, CRC good
    RUC: u32, ReadClear, 0x40a4, "10.2.7";
    /// frames received too short, CRC bad
    RFC: u32, ReadClear, 0x40a8, "10.2.7";
    /// frames received too long, CRC good
    ROC: u32, ReadClear, 0x40ac, "10.2.7";
    /// frames received too long, CRC bad
    RJC: u32, ReadClear, 0x40b0, "10.2.7";
    /// management frames received
    MNGPRC: u32, ReadClear, 0x40b4, "10.2.7";
    /// management frames dropped
    MPDC: u32, ReadClear, 0x40b8, "10.2.7";
    /// management frames sent
    MNGPTC: u32, ReadClear, 0x40bc, "10.2.7";
    /// bytes received, low
    TORL: u32, ReadClear, 0x40c0, "10.2.7";
    /// bytes received, high
    TORH: u32, ReadClear, 0x40c4, "10.2.7";
    /// bytes sent, low
    TOTL: u32, ReadClear, 0x40c8, "10.2.7";
    /// bytes sent, high
    TOTH: u32, ReadClear, 0x40cc, "10.2.7";
    /// frames received
    TPR: u32, ReadClear, 0x40d0, "10.2.7";
    /// frames sent
    TPT: u32, ReadClear, 0x40d4, "10.2.7";
    /// frames of 64 bytes sent
    PTC64: u32, ReadClear, 0x40d8, "10.2.7";
    /// frames of 65 to 127 bytes sent
    PTC127: u32, ReadClear, 0x40dc, "10.2.7";
    /// frames of 128 to 255 bytes sent
    PTC255: u32, ReadClear, 0x40e0, "10.2.7";
    /// frames of 256 to 511 bytes sent
    PTC511: u32, ReadClear, 0x40e4, "10.2.7";
    /// frames of 512 to 1023 bytes sent
    PTC1023: u32, ReadClear, 0x40e8, "10.2.7";
    /// frames of 1024 bytes and more sent
    PTC1522: u32, ReadClear, 0x40ec, "10.2.7";
    /// multicast frames sent
    MPTC: u32, ReadClear, 0x40f0, "10.2.7";
    /// broadcast frames sent
    BPTC: u32, ReadClear, 0x40f4, "10.2.7";
    /// TCP segmentations done
    TSCTC: u32, ReadClear, 0x40f8, "10.2.7";
    /// TCP segmentations that failed
    TSCTFC: u32, ReadClear, 0x40fc, "10.2.7";
    /// interrupts asserted
    IAC: u32, ReadClear, 0x4100, "10.2.7";
}

/// ICR once more: ones that are written clear their causes, and the other queue's stay, §10.2.4
pub const ICR_CLEAR: Reg<Interrupts, WriteOnly> = Reg::at(0x00c0);

/// Device control, §10.2.2
#[bitfield(u32)]
pub struct Ctrl {
    /// Full duplex
    pub fd: bool,
    __: bool,
    /// No new requests on the bus; STATUS.GIO_MASTER_EN says when the old ones are through
    pub gio_master_disable: bool,
    #[bits(2)]
    __: u8,
    /// Auto-speed detection
    pub asde: bool,
    /// Set link up
    pub slu: bool,
    __: bool,
    /// Forced speed: 10, 100, 1000 Mb/s
    #[bits(2)]
    pub speed: u8,
    __: bool,
    /// Force the speed
    pub frcspd: bool,
    /// Force the duplex
    pub frcdplx: bool,
    #[bits(7)]
    __: u8,
    /// Wake from D3cold
    pub advd3wuc: bool,
    #[bits(5)]
    __: u8,
    /// Device reset, clears itself
    pub rst: bool,
    /// Receive flow control
    pub rfce: bool,
    /// Transmit flow control
    pub tfce: bool,
    /// Reserved: cleared by Intel's own drivers
    pub bit29: bool,
    /// VLAN mode: strip and insert tags
    pub vme: bool,
    /// PHY reset
    pub phy_rst: bool,
}

/// Device status, §10.2.2
#[bitfield(u32)]
pub struct Status {
    /// Full duplex
    pub fd: bool,
    /// Link up
    pub lu: bool,
    #[bits(2)]
    __: u8,
    /// Transmission is paused
    pub txoff: bool,
    __: bool,
    /// Link speed: 10, 100, 1000, 1000 Mb/s
    #[bits(2)]
    pub speed: u8,
    /// Speed as auto-detected
    #[bits(2)]
    pub asdv: u8,
    /// The PHY was reset
    pub phyra: bool,
    __: u8,
    /// Requests on the bus are allowed, or still under way
    pub gio_master_en: bool,
    #[bits(12)]
    __: u16,
}

/// EEPROM and flash control, §10.2.2
#[bitfield(u32)]
pub struct Eec {
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
    /// An EEPROM is there
    pub ee_pres: bool,
    /// The device has read what it needs from it since the reset
    pub auto_rd: bool,
    __: bool,
    /// Size
    #[bits(4)]
    pub nvsize: u8,
    #[bits(17)]
    __: u32,
}

/// EEPROM read, §10.2.2; the 82540 has DONE at bit 4 and ADDR at 15:8
#[bitfield(u32)]
pub struct Eerd {
    /// Start a read
    pub start: bool,
    /// Data is valid
    pub done: bool,
    /// Word to read
    #[bits(14)]
    pub addr: u16,
    /// The word read
    pub data: u16,
}

/// Extended device control, §10.2.2
#[bitfield(u32)]
pub struct CtrlExt {
    #[bits(12)]
    __: u16,
    /// Detect the speed now
    pub asdchk: bool,
    /// Re-read the EEPROM
    pub ee_rst: bool,
    __: bool,
    /// Bypass speed selection
    pub spd_byps: bool,
    __: bool,
    /// No relaxed ordering
    pub ro_dis: bool,
    __: bool,
    /// Gate the DMA clock
    pub dma_gating: bool,
    /// PHY power down
    pub phypden: bool,
    __: bool,
    /// Transmit flow; set by Intel's own drivers
    pub tx_ls_flow: bool,
    /// Cleared by Intel's own drivers
    pub tx_ls: bool,
    /// An MSI-X message masks what IAM says
    pub eiame: bool,
    #[bits(2)]
    __: u8,
    /// Access to ICR masks what IAM says
    pub iame: bool,
    /// A driver has the device
    pub drv_load: bool,
    /// Enabling all interrupts clears the throttling timers
    pub int_timers_clear_ena: bool,
    __: bool,
    /// MSI-X: enabling a cause clears its vector's pending bit
    pub pba_support: bool,
}

/// MDI control, §10.2.2
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

/// Extended configuration control, §10.2.2
#[bitfield(u32)]
pub struct ExtcnfCtrl {
    #[bits(5)]
    __: u8,
    /// MDIO and EEPROM are software's; reads 0 while they are not
    pub mdio_sw_ownership: bool,
    /// ... hardware's
    pub mdio_hw_ownership: bool,
    #[bits(25)]
    __: u32,
}

/// Packet buffer allocation, §10.2.2; takes effect at a reset
#[bitfield(u32)]
pub struct Pba {
    /// Receive buffer in KB
    pub rxa: u16,
    /// Transmit buffer in KB: the rest of 40
    pub txa: u16,
}

/// PCIe control, §10.2.3
#[bitfield(u32)]
pub struct Gcr {
    #[bits(22)]
    __: u32,
    /// Set by Intel's own drivers
    pub bit22: bool,
    #[bits(4)]
    __: u8,
    /// L1 is entered though the receiver is not in L0s; set by Intel's own drivers
    pub l1_act_without_l0s_rx: bool,
    #[bits(4)]
    __: u8,
}

/// PCIe control 2, §10.2.3
#[bitfield(u32)]
pub struct Gcr2 {
    /// Set by Intel's own drivers: completions that come late
    pub bit0: bool,
    #[bits(31)]
    __: u32,
}

/// Interrupt causes of ICR, ICS, IMS, IMC, EIAC and IAM, §10.2.4
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct Interrupts {
    /// Transmit descriptor written back
    pub txdw: bool,
    /// Transmit queue empty
    pub txqe: bool,
    /// Link status change
    pub lsc: bool,
    __: bool,
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
    #[bits(5)]
    __: u8,
    /// Few transmit descriptors left
    pub txd_low: bool,
    /// Small frame received
    pub srpd: bool,
    /// TCP acknowledgement received
    pub ack: bool,
    /// Management
    pub mng: bool,
    __: bool,
    /// MSI-X: receive queue 0
    pub rxq0: bool,
    /// MSI-X: receive queue 1
    pub rxq1: bool,
    /// MSI-X: transmit queue 0
    pub txq0: bool,
    /// MSI-X: transmit queue 1
    pub txq1: bool,
    /// MSI-X: LSC, RXO, MDAC, SRPD, ACK or MNG
    pub other: bool,
    #[bits(6)]
    __: u8,
    /// The interrupt is asserted
    pub int_asserted: bool,
}

/// Interrupt vector allocation, §10.2.4: a vector of MSI-X, with bit 3 set, for each cause
#[bitfield(u32)]
pub struct Ivar {
    /// Receive queue 0
    #[bits(4)]
    pub rxq0: u8,
    /// Receive queue 1
    #[bits(4)]
    pub rxq1: u8,
    /// Transmit queue 0
    #[bits(4)]
    pub txq0: u8,
    /// Transmit queue 1
    #[bits(4)]
    pub txq1: u8,
    /// Other causes
    #[bits(4)]
    pub other: u8,
    #[bits(11)]
    __: u16,
    /// Every write-back of a transmit descriptor interrupts, with RS or without
    pub every_wb: bool,
}

impl Ivar {
    /// An entry for `vector`, 0 to 4, that counts.
    pub const fn to(vector: u8) -> u8 {
        assert!(vector < 5);
        1 << 3 | vector
    }
}

/// Receive control, §10.2.5
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
    /// Loopback: 0 none, 1 in the MAC
    #[bits(2)]
    pub lbm: u8,
    /// RXDMT0 at 1/2, 1/4 or 1/8 of the ring free
    #[bits(2)]
    pub rdmts: u8,
    /// Descriptors: 0 as RFCTL.EXSTEN says, 1 packet split
    #[bits(2)]
    pub dtyp: u8,
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
    /// Buffer size in KB, where it is not 0
    #[bits(4)]
    pub flxbuf: u8,
    __: bool,
}

/// Packet split receive control, §10.2.5
#[bitfield(u32)]
pub struct Psrctl {
    /// Bytes of buffer 0, for headers, in 128
    #[bits(7)]
    pub bsize0: u8,
    __: bool,
    /// Bytes of buffer 1, in 1024
    #[bits(6)]
    pub bsize1: u8,
    #[bits(2)]
    __: u8,
    /// Bytes of buffer 2, in 1024; 0 where there is none
    #[bits(6)]
    pub bsize2: u8,
    #[bits(2)]
    __: u8,
    /// Bytes of buffer 3, in 1024; 0 where there is none
    #[bits(6)]
    pub bsize3: u8,
    #[bits(2)]
    __: u8,
}

/// Receive delay timer, §10.2.5
#[bitfield(u32)]
pub struct Rdtr {
    /// Delay in 1.024 us; prefer ITR
    pub delay: u16,
    #[bits(15)]
    __: u16,
    /// Flush the partial descriptor block
    pub fpd: bool,
}

/// Receive descriptor control, §10.2.5
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

/// Receive checksum control, §10.2.5.15
#[bitfield(u32)]
pub struct Rxcsum {
    /// Start of the packet checksum, in bytes
    pub pcss: u8,
    /// Check IP headers
    pub ipofld: bool,
    /// Check TCP and UDP
    pub tuofld: bool,
    __: bool,
    /// Check CRC32C
    pub crcofl: bool,
    /// The packet checksum is of the IP payload
    pub ippcse: bool,
    /// No packet checksum: the hash of RSS in its place
    pub pcsd: bool,
    #[bits(18)]
    __: u32,
}

/// Receive filter control, §10.2.5
#[bitfield(u32)]
pub struct Rfctl {
    /// No iSCSI filtering
    pub iscsi_dis: bool,
    /// iSCSI words
    #[bits(5)]
    pub iscsi_dwc: u8,
    /// No filtering of NFS writes
    pub nfsw_dis: bool,
    /// No filtering of NFS reads
    pub nfsr_dis: bool,
    /// NFS version
    #[bits(2)]
    pub nfs_ver: u8,
    /// No IPv6
    pub ipv6_dis: bool,
    /// No IPv6 checksums
    pub ipv6_xsum_dis: bool,
    /// TCP acknowledgements do not interrupt
    pub ackdis: bool,
    /// ... only those without data do
    pub ackd_dis: bool,
    /// IP fragments are not split
    pub ipfrsp_dis: bool,
    /// Extended receive descriptors
    pub exsten: bool,
    /// No IPv6 extension headers
    pub ipv6_ex_dis: bool,
    /// ... of the newer kinds
    pub new_ipv6_ext_dis: bool,
    #[bits(14)]
    __: u16,
}

/// Receive address, high, §10.2.5
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

/// Multiple receive queues command, §10.2.5
#[bitfield(u32)]
pub struct Mrqc {
    /// 1: RSS
    #[bits(2)]
    pub mrqe: u8,
    #[bits(14)]
    __: u16,
    /// Hash addresses and ports of TCP over IPv4
    pub tcp_ipv4: bool,
    /// Hash addresses of IPv4
    pub ipv4: bool,
    /// Hash addresses and ports of TCP over IPv6
    pub tcp_ipv6: bool,
    /// Hash addresses of IPv6 with extension headers
    pub ipv6_ex: bool,
    /// Hash addresses of IPv6
    pub ipv6: bool,
    #[bits(11)]
    __: u16,
}

/// Four entries of the redirection table, §10.2.5: bit 7 of each is the queue
#[bitfield(u32)]
pub struct Reta {
    /// Entry 4n
    pub entry0: u8,
    /// Entry 4n + 1
    pub entry1: u8,
    /// Entry 4n + 2
    pub entry2: u8,
    /// Entry 4n + 3
    pub entry3: u8,
}

/// Transmit control, §10.2.6
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
    /// Collision distance; recommended 0x3f
    #[bits(10)]
    pub cold: u16,
    /// Send an XOFF now
    pub swxoff: bool,
    /// Packet burst
    pub pbe: bool,
    /// Retransmit on late collision
    pub rtlc: bool,
    /// No retransmit on underrun
    pub unortx: bool,
    /// Descriptors that may be under way
    #[bits(2)]
    pub txdscmt: u8,
    /// Several reads at once
    pub mulr: bool,
    /// Read request threshold: 2, 4, 8 lines, or none
    #[bits(2)]
    pub rrthresh: u8,
    __: bool,
}

/// Transmit inter-packet gap, in MAC clocks, §10.2.6
#[bitfield(u32)]
pub struct Tipg {
    /// Back to back; 8
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

/// Transmit descriptor control, §10.2.6
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
    /// Must be 1
    pub count_desc: bool,
    __: bool,
    /// Count descriptors, not cache lines
    pub gran: bool,
    /// TXD_LOW at 8 times this many
    #[bits(7)]
    pub lwthresh: u8,
}

/// Transmit arbitration count, §10.2.6
#[bitfield(u32)]
pub struct Tarc {
    /// Frames that the queue may send before the other's turn
    #[bits(7)]
    pub count: u8,
    /// Compensation mode
    pub comp: bool,
    /// Compensation ratio
    #[bits(2)]
    pub ratio: u8,
    /// The queue is on
    pub enable: bool,
    #[bits(15)]
    __: u16,
    /// Set by Intel's own drivers, for queue 0
    pub bit26: bool,
    /// Cleared by Intel's own drivers, for queue 0
    #[bits(4)]
    pub bits30_27: u8,
    __: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mmio::{Access, RegInfo};

    /// Values that public drivers and QEMU's model give these fields.
    #[test]
    fn fields_are_where_the_datasheet_has_them() {
        assert_eq!(
            Ctrl::new().with_gio_master_disable(true).into_bits(),
            1 << 2
        );
        assert_eq!(
            Ctrl::new().with_rst(true).with_vme(true).into_bits(),
            0x4400_0000
        );
        assert_eq!(Ctrl::new().with_bit29(true).into_bits(), 1 << 29);
        assert_eq!(
            ExtcnfCtrl::new().with_mdio_sw_ownership(true).into_bits(),
            0x20
        );
        assert_eq!(
            Gcr::new().with_l1_act_without_l0s_rx(true).into_bits(),
            0x0800_0000
        );
        assert_eq!(Status::new().with_gio_master_en(true).into_bits(), 1 << 19);
        assert_eq!(Eec::new().with_auto_rd(true).into_bits(), 0x200);
        let eerd = Eerd::new().with_start(true).with_done(true).with_addr(0x3f);
        assert_eq!(eerd.with_data(0xbaba).into_bits(), 0xbaba_00ff);
        let ext = CtrlExt::new().with_eiame(true).with_iame(true);
        assert_eq!(ext.into_bits(), 0x0900_0000);
        assert_eq!(CtrlExt::new().with_pba_support(true).into_bits(), 1 << 31);
        assert_eq!(CtrlExt::new().with_tx_ls_flow(true).into_bits(), 1 << 22);
        let queues = Interrupts::new().with_rxq0(true).with_rxq1(true);
        let queues = queues.with_txq0(true).with_txq1(true).with_other(true);
        assert_eq!(queues.into_bits(), 0x01f0_0000);
        let ivar = Ivar::new().with_rxq0(Ivar::to(0)).with_rxq1(Ivar::to(1));
        let ivar = ivar
            .with_txq0(Ivar::to(0))
            .with_txq1(Ivar::to(1))
            .with_other(Ivar::to(0));
        assert_eq!(ivar.into_bits(), 0x0008_9898);
        assert_eq!(Rctl::new().with_dtyp(1).into_bits(), 0x400);
        assert_eq!(
            Rctl::new().with_secrc(true).with_bsex(true).into_bits(),
            0x0600_0000
        );
        let split = Psrctl::new()
            .with_bsize0(2)
            .with_bsize1(4)
            .with_bsize2(4)
            .with_bsize3(4);
        assert_eq!(split.into_bits(), 0x0404_0402);
        assert_eq!(Rxcsum::new().with_pcsd(true).into_bits(), 0x2000);
        assert_eq!(Rfctl::new().with_exsten(true).into_bits(), 0x8000);
        assert_eq!(Rfctl::new().with_ackdis(true).into_bits(), 0x1000);
        let mrqc = Mrqc::new().with_mrqe(1).with_tcp_ipv4(true).with_ipv6(true);
        assert_eq!(mrqc.into_bits(), 0x0011_0001);
        let txdctl = Txdctl::new()
            .with_gran(true)
            .with_wthresh(1)
            .with_count_desc(true);
        assert_eq!(txdctl.into_bits(), 0x0141_0000);
        let tarc = Tarc::new().with_count(3).with_enable(true).with_bit26(true);
        assert_eq!(tarc.into_bits(), 0x0400_0403);
        assert_eq!(Tctl::new().with_mulr(true).into_bits(), 1 << 28);
    }

    #[test]
    fn no_two_registers_share_an_offset_and_queues_are_0x100_apart() {
        let mut offsets: Vec<_> = TABLE
            .iter()
            .flat_map(|info| (0..info.array.0).map(|i| info.offset + i * info.array.1))
            .collect();
        let all = offsets.len();
        offsets.sort_unstable();
        offsets.dedup();
        assert_eq!(offsets.len(), all);
        let (info, index) = RegInfo::find(TABLE, 0x3918).unwrap();
        assert_eq!((info.name, index), ("TDT", 1));
        assert_eq!(RDBAL.index(1).offset(), 0x2900);
    }

    #[test]
    fn statistics_clear_on_read() {
        for info in TABLE {
            let statistic = (0x4000..=0x4100).contains(&info.offset) || info.name == "ICR";
            assert_eq!(info.access == Access::ReadClear, statistic, "{}", info.name);
        }
    }
}
