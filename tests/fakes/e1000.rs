//! A fake 8254x: enough of chapters 3 and 13 to send and receive, written from the
//! manual with its own constants so that it can disagree with the driver, and able to lie.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use pinwire::backend::{Fake, FakeDevice, FakeMemory};
use pinwire::mmio::Place;
use vmm_sys_util::eventfd::EventFd;

use super::silicon::{self, Silicon};

pub const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

const CTRL: usize = 0x0000;
const STATUS: usize = 0x0008;
const EERD: usize = 0x0014;
const MDIC: usize = 0x0020;
const ICR: usize = 0x00c0;
const ICS: usize = 0x00c8;
const IMS: usize = 0x00d0;
const IMC: usize = 0x00d8;
const RCTL: usize = 0x0100;
const TCTL: usize = 0x0400;
const RDBAL: usize = 0x2800;
const RDLEN: usize = 0x2808;
const RDH: usize = 0x2810;
const RDT: usize = 0x2818;
const TDBAL: usize = 0x3800;
const TDLEN: usize = 0x3808;
const TDH: usize = 0x3810;
const TDT: usize = 0x3818;

/// What the device does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lie {
    #[default]
    None,
    /// CTRL.RST stays set.
    ResetNeverEnds,
    /// STATUS.LU stays clear.
    NoLink,
    /// Every register, and config space, reads all ones.
    Gone,
    /// A received length of this many bytes.
    Length(u16),
    /// No received frame ever ends.
    NoEop,
    /// DD in every descriptor of the transmit ring, sent or not.
    AllDone,
    /// The head registers read this.
    Head(u32),
    /// Nothing is ever written back.
    Silent,
    /// The EEPROM does not answer.
    NoEeprom,
    /// Every statistics register reads all ones.
    CountsAll,
    /// It is gone after the next read of STATUS.
    GoneSoon,
}

/// What a test has its device do beside its work.
pub type Also = Box<dyn FnMut(&FakeMemory) + Send>;

pub struct FakeE1000 {
    regs: Vec<u32>,
    config: [u8; 256],
    irq: Option<EventFd>,
    line: bool,
    /// What went out, frame by frame.
    pub sent: Vec<Vec<u8>>,
    /// Descriptors of the frame under way.
    partial: Vec<u8>,
    /// Where each context has the IP and the TCP or UDP checksum.
    pub sums: Vec<[u8; 2]>,
    /// What is to come in.
    pub inbox: VecDeque<Vec<u8>>,
    /// Work as soon as the tail moves; else only in `step`.
    pub eager: bool,
    pub lie: Lie,
    /// Status and error bits that received descriptors get besides DD and EOP.
    pub rx_word: (u8, u8),
    /// What else the device does whenever the transmit tail was written.
    pub on_doorbell: Option<Also>,
    /// How often the transmit tail was written.
    pub doorbells: usize,
    /// How often DD was written.
    pub write_backs: usize,
    /// What the chip refuses.
    pub silicon: Silicon,
    /// Header length and MSS of the last context.
    context: (usize, usize),
    /// The I/O ports are there and do nothing.
    pub dead_ports: bool,
    /// The register that the I/O ports reach.
    ioaddr: u32,
}

impl FakeE1000 {
    pub fn new(device_id: u16) -> Arc<Mutex<Self>> {
        let mut config = [0; 256];
        config[0..2].copy_from_slice(&0x8086u16.to_le_bytes());
        config[2..4].copy_from_slice(&device_id.to_le_bytes());
        // BAR 1 is I/O ports.
        config[0x14] = 1;
        Arc::new(Mutex::new(Self {
            regs: vec![0; 0x20000 / 4],
            config,
            irq: None,
            line: false,
            sent: Vec::new(),
            partial: Vec::new(),
            sums: Vec::new(),
            inbox: VecDeque::new(),
            eager: true,
            lie: Lie::None,
            rx_word: (0, 0),
            on_doorbell: None,
            doorbells: 0,
            write_backs: 0,
            silicon: Silicon::new(device_id),
            context: (0, 0),
            dead_ports: false,
            ioaddr: 0,
        }))
    }

    /// A fake function with this device, and the device.
    pub fn fake() -> (Fake, Arc<Mutex<Self>>) {
        Self::chip(silicon::I82540EM)
    }

    /// The same with the chip of this device id.
    pub fn chip(device_id: u16) -> (Fake, Arc<Mutex<Self>>) {
        let device = Self::new(device_id);
        (Fake::new(device.clone(), 0x20000), device)
    }

    /// Two functions with such devices in one IOMMU domain, and the devices.
    pub fn fake_pair() -> [(Fake, Arc<Mutex<Self>>); 2] {
        let (first, device) = Self::fake();
        let beside = Self::new(0x100e);
        let second = Fake::beside(beside.clone(), 0x20000, first.memory());
        [(first, device), (second, beside)]
    }

    /// Has the statistics register at `offset` count `more`.
    pub fn count(&mut self, offset: usize, more: u32) {
        self.regs[offset / 4] += more;
    }

    fn reg(&self, offset: usize) -> u32 {
        self.regs[offset / 4]
    }

    /// Does it send or receive?
    pub fn is_on(&self) -> bool {
        (self.reg(RCTL) | self.reg(TCTL)) & 2 != 0
    }

    fn base(&self, low: usize) -> u64 {
        u64::from(self.reg(low)) | u64::from(self.reg(low + 4)) << 32
    }

    /// ICR.LSC
    pub fn link_changes(&mut self) {
        self.raise(4);
    }

    fn raise(&mut self, causes: u32) {
        self.regs[ICR / 4] |= causes;
        self.update_line();
    }

    fn update_line(&mut self) {
        let high = self.reg(ICR) & self.reg(IMS) != 0;
        if high
            && !self.line
            && let Some(irq) = &self.irq
        {
            irq.write(1).unwrap();
        }
        self.line = high;
    }

    /// Takes up to `most` transmit descriptors; gives how many.
    pub fn step_tx(&mut self, memory: &FakeMemory, most: usize) -> usize {
        let count = self.reg(TDLEN) / 16;
        let mut taken = 0;
        while taken < most && self.reg(TCTL) & 2 != 0 && self.reg(TDH) != self.reg(TDT) {
            let at = self.base(TDBAL) + u64::from(self.reg(TDH)) * 16;
            let mut desc = [0; 16];
            assert!(
                memory.read(at, &mut desc),
                "descriptor outside mapped memory"
            );
            let buffer = u64::from_le_bytes(desc[..8].try_into().unwrap());
            let (command, extended) = (desc[11], desc[11] & 0x20 != 0);
            let is_context = extended && desc[10] >> 4 == 0;
            if !is_context {
                let low = u16::from_le_bytes([desc[8], desc[9]]);
                let length = usize::from(low)
                    | if extended {
                        usize::from(desc[10] & 15) << 16
                    } else {
                        0
                    };
                let context = (extended && command & 4 != 0).then_some(self.context);
                let last = command & 1 != 0;
                self.silicon.data(buffer, length, context, last);
                let mut bytes = vec![0; length];
                memory.read(buffer, &mut bytes);
                self.partial.append(&mut bytes);
                if last {
                    self.sent.push(std::mem::take(&mut self.partial));
                }
            } else {
                let mss = u16::from_le_bytes([desc[14], desc[15]]);
                self.context = (desc[13].into(), mss.into());
                self.sums.push([desc[1], desc[5]]);
            }
            if command & 8 != 0 && self.lie != Lie::Silent {
                desc[12] |= 1;
                memory.write(at, &desc);
                let ring = self.base(TDBAL);
                self.silicon
                    .written("the transmit ring", ring, 16 * count as usize);
                self.write_backs += 1;
                self.raise(1);
            }
            self.regs[TDH / 4] = (self.reg(TDH) + 1) % count;
            taken += 1;
        }
        if self.lie == Lie::AllDone {
            for index in 0..u64::from(count) {
                memory.write(self.base(TDBAL) + index * 16 + 12, &[1]);
            }
        }
        taken
    }

    /// Delivers what is in the inbox while there are buffers.
    pub fn step_rx(&mut self, memory: &FakeMemory) {
        let buffer = 2048;
        while self.reg(RCTL) & 2 != 0 && !self.inbox.is_empty() {
            let count = self.reg(RDLEN) / 16;
            let free = (self.reg(RDT) + count - self.reg(RDH)) % count;
            let needed = self.inbox[0].len().div_ceil(buffer).max(1);
            if (free as usize) < needed {
                // MPC and RNBC: this device has no FIFO to keep the frame in.
                self.regs[0x4010 / 4] += 1;
                self.regs[0x40a0 / 4] += 1;
                break;
            }
            let frame = self.inbox.pop_front().unwrap();
            for (nth, piece) in frame.chunks(buffer).enumerate() {
                let at = self.base(RDBAL) + u64::from(self.reg(RDH)) * 16;
                let mut desc = [0; 16];
                memory.read(at, &mut desc);
                let address = u64::from_le_bytes(desc[..8].try_into().unwrap());
                memory.write(address, piece);
                let ring = self.base(RDBAL);
                self.silicon.written("a buffer", address, buffer);
                self.silicon
                    .written("the receive ring", ring, 16 * count as usize);
                let length = match self.lie {
                    Lie::Length(length) => length,
                    _ => piece.len() as u16,
                };
                desc[8..10].copy_from_slice(&length.to_le_bytes());
                let last = nth + 1 == needed && self.lie != Lie::NoEop;
                desc[12] = 1 | if last { 2 } else { 0 } | self.rx_word.0;
                desc[13] = self.rx_word.1;
                memory.write(at, &desc);
                self.regs[RDH / 4] = (self.reg(RDH) + 1) % count;
            }
            self.raise(0x80);
        }
    }
}

/// Its registers, which have 32 bits at most.
impl FakeE1000 {
    fn get(&mut self, place: Place) -> u32 {
        let offset = place.offset;
        if self.lie == Lie::Gone {
            return u32::MAX;
        }
        if place.bar == 1 {
            return 0;
        }
        if let Some(value) = self.silicon.read(offset) {
            return value;
        }
        match (self.lie, offset) {
            (Lie::NoLink, STATUS) => 0,
            (Lie::CountsAll, 0x4000..=0x40ff) => u32::MAX,
            (Lie::GoneSoon, STATUS) => {
                self.lie = Lie::Gone;
                0x83
            }
            (Lie::Head(head), TDH | RDH) => head,
            (_, STATUS) => self.silicon.status(),
            (_, ICR) => {
                let causes = std::mem::take(&mut self.regs[ICR / 4]);
                self.update_line();
                causes
            }
            (_, 0x4000..=0x40ff) => std::mem::take(&mut self.regs[offset / 4]),
            _ => self.reg(offset),
        }
    }

    fn set(&mut self, place: Place, value: u32, memory: &FakeMemory) {
        let mut offset = place.offset;
        let by_ports = place.bar == 1;
        if by_ports && self.dead_ports {
            return;
        }
        if by_ports {
            // IOADDR, and then IODATA.
            if offset == 0 {
                self.ioaddr = value;
                return;
            }
            offset = self.ioaddr as usize;
        }
        let reset = self.silicon.write(offset, value, &self.regs, by_ports);
        match offset {
            CTRL if self.lie != Lie::ResetNeverEnds => {
                self.regs[0] = value & !(1 << 26);
                if reset {
                    self.regs.fill(0);
                    self.update_line();
                }
            }
            EERD if self.lie == Lie::NoEeprom || self.silicon.id == silicon::I82544GC => {}
            MDIC => {
                if value & 1 << 26 != 0 {
                    self.silicon.bmcr = value as u16;
                }
                let data = u32::from(self.silicon.bmcr);
                self.regs[MDIC / 4] = value & 0xffff_0000 | 1 << 28 | data;
            }
            EERD => {
                let word = eeprom(usize::from((value >> 8) as u8));
                self.regs[EERD / 4] = value & !1 | 1 << 4 | u32::from(word) << 16;
            }
            ICS => self.raise(value),
            IMS => {
                self.regs[IMS / 4] |= value;
                self.update_line();
            }
            IMC => {
                self.regs[IMS / 4] &= !value;
                self.update_line();
            }
            _ => self.regs[offset / 4] = value,
        }
        if offset == TDT && self.reg(TCTL) & 2 != 0 {
            self.doorbells += 1;
            if self.eager {
                self.step_tx(memory, usize::MAX);
            }
            if let Some(also) = &mut self.on_doorbell {
                also(memory);
            }
        }
        if offset == RDT && self.eager {
            self.step_rx(memory);
        }
    }
}

impl FakeDevice for FakeE1000 {
    fn read(&mut self, place: Place) -> u64 {
        self.get(place).into()
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        self.set(place, value as u32, memory);
    }

    fn config(&mut self) -> &mut [u8; 256] {
        if self.lie == Lie::Gone {
            self.config = [0xff; 256];
        }
        &mut self.config
    }

    fn connect_irq(&mut self, _vector: usize, event: EventFd) {
        self.irq = Some(event);
    }

    fn unmask_irq(&mut self) {
        self.line = false;
        self.update_line();
    }
}

/// A word of the EEPROM: the address, and a checksum.
pub fn eeprom(word: usize) -> u16 {
    let address = |i: usize| u16::from_le_bytes([MAC[2 * i], MAC[2 * i + 1]]);
    match word {
        0..=2 => address(word),
        0x3f => {
            let sum = (0..3).fold(0u16, |sum, i| sum.wrapping_add(address(i)));
            0xbabau16.wrapping_sub(sum)
        }
        _ => 0,
    }
}
