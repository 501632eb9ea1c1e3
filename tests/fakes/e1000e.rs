//! A fake 82574: enough of §7 and §10.2 of its datasheet to send, to receive in both
//! kinds of descriptors, and to interrupt by MSI-X.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pinwire::backend::{Fake, FakeDevice, FakeMemory};
use pinwire::mmio::Place;
use vmm_sys_util::eventfd::EventFd;

pub const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x57, 0x40, 0x01];

const CTRL: usize = 0x0000;
const STATUS: usize = 0x0008;
const EEC: usize = 0x0010;
const EERD: usize = 0x0014;
const MDIC: usize = 0x0020;
const ICR: usize = 0x00c0;
const IMS: usize = 0x00d0;
const IMC: usize = 0x00d8;
const EIAC: usize = 0x00dc;
const IVAR: usize = 0x00e4;
const RCTL: usize = 0x0100;
const TCTL: usize = 0x0400;
const EXTCNF_CTRL: usize = 0x0f00;
const PBA: usize = 0x1000;
const PSRCTL: usize = 0x2170;
const RDBAL: usize = 0x2800;
const RDLEN: usize = 0x2808;
const RDH: usize = 0x2810;
const RDT: usize = 0x2818;
const TDBAL: usize = 0x3800;
const TDLEN: usize = 0x3808;
const TDH: usize = 0x3810;
const TDT: usize = 0x3818;
const TARC: usize = 0x3840;
const RFCTL: usize = 0x5008;
/// From one queue's registers to the next one's.
const QUEUE: usize = 0x100;

/// What the device does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Untruth {
    #[default]
    None,
    /// CTRL.RST stays set.
    ResetNeverEnds,
    /// This many bytes in a frame's first buffer.
    Length(u16),
    /// This many bytes in the first buffer after that for headers.
    Payload(u16),
    /// No received frame ever ends.
    NoEop,
    /// ... and each buffer has one byte.
    Crumbs,
}

pub struct FakeE1000e {
    regs: Vec<u32>,
    config: [u8; 256],
    vectors: Vec<Option<EventFd>>,
    /// A message a cause; else one line, or message, for all.
    pub msix: bool,
    /// What went out, with its queue.
    pub sent: Vec<(usize, Vec<u8>)>,
    partial: [Vec<u8>; 2],
    /// What is to come in, by queue.
    pub inbox: [VecDeque<Vec<u8>>; 2],
    /// Work as soon as a tail moves; else only in `step`.
    pub eager: bool,
    pub untruth: Untruth,
    pub link: bool,
    /// Error bits that received descriptors get.
    pub errors: u32,
    /// Descriptors whose buffer went across a page.
    pub across_pages: usize,
    pub resets: usize,
    /// Resets while the device was still allowed on the bus.
    pub resets_on_a_busy_bus: usize,
    /// What the driver did that the silicon does not forgive.
    pub complaints: Vec<String>,
    pub bmcr: u16,
    /// How often the firmware says no before it lets go of the MDIO lines.
    pub firmware_keeps: usize,
    /// PBA as the last reset found it: what counts.
    pub pba: u32,
    quiet_since: Option<Instant>,
    /// When it has read its EEPROM (EEC.AUTO_RD), 3 ms after a reset; the PHY is configured 25 ms later.
    loaded: Instant,
}

impl FakeE1000e {
    pub fn new() -> Self {
        let mut config = [0; 256];
        config[..4].copy_from_slice(&[0x86, 0x80, 0xd3, 0x10]);
        // A PCI Express capability, with ASPM on in its Link Control.
        config[0x06] = 1 << 4;
        config[0x34] = 0xe0;
        config[0xe0] = 0x10;
        config[0xf0] = 0x43;
        let mut regs = vec![0; 0x20000 / 4];
        for queue in 0..2 {
            regs[(TARC + queue * QUEUE) / 4] = 0x403;
        }
        Self {
            regs,
            config,
            vectors: Vec::new(),
            msix: true,
            sent: Vec::new(),
            partial: Default::default(),
            inbox: Default::default(),
            eager: true,
            untruth: Untruth::None,
            link: true,
            errors: 0,
            across_pages: 0,
            resets: 0,
            resets_on_a_busy_bus: 0,
            complaints: Vec::new(),
            bmcr: 0x1140,
            firmware_keeps: 0,
            pba: 0,
            quiet_since: None,
            loaded: Instant::now() - Duration::from_secs(1),
        }
    }

    fn complain(&mut self, what: impl Into<String>) {
        self.complaints.push(what.into());
    }

    /// The MDIO lines are used, for the PHY, the EEPROM or a reset: whose are they?
    fn mdio(&mut self, what: &str) {
        if self.reg(EXTCNF_CTRL) & 0x20 == 0 {
            self.complain(format!("{what} while the firmware has the MDIO lines"));
        }
        if what != "reset" && self.loaded.elapsed() < Duration::from_millis(25) {
            let since = self.loaded.elapsed();
            self.complain(format!("{what} {since:?} after AUTO_RD"));
        }
    }

    fn reset(&mut self) {
        self.mdio("reset");
        let quiet = self.quiet_since.map(|since| since.elapsed());
        if quiet.is_none_or(|quiet| quiet < Duration::from_millis(10)) {
            self.complain(format!("reset after {quiet:?} of quiet"));
        }
        self.pba = self.reg(PBA);
        self.regs[EXTCNF_CTRL / 4] = 0;
        self.loaded = Instant::now() + Duration::from_millis(3);
    }

    /// A fake function with this device, and the device.
    pub fn fake() -> (Fake, Arc<Mutex<Self>>) {
        let device = Arc::new(Mutex::new(Self::new()));
        (Fake::new(device.clone(), 0x20000), device)
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

    fn eeprom(&self, word: usize) -> u16 {
        let address = |i: usize| u16::from_le_bytes([MAC[2 * i], MAC[2 * i + 1]]);
        match word {
            0..=2 => address(word),
            0x3f => (0..3).fold(0xbaba, |rest, i| u16::wrapping_sub(rest, address(i))),
            _ => 0,
        }
    }

    /// What happened, as a queue's cause and as everybody's.
    fn raise(&mut self, of_queue: u32, of_all: u32) {
        self.regs[ICR / 4] |= if self.msix { of_queue } else { of_all };
        self.interrupt();
    }

    /// A message for each cause that is asked for, which masks and clears those in EIAC.
    fn interrupt(&mut self) {
        if !self.msix {
            if self.reg(ICR) & self.reg(IMS) != 0
                && let Some(Some(event)) = self.vectors.first()
            {
                event.write(1).unwrap();
            }
            return;
        }
        for (nth, bit) in (20..25).enumerate() {
            let cause = 1 << bit;
            if self.reg(ICR) & self.reg(IMS) & cause == 0 {
                continue;
            }
            let route = self.reg(IVAR) >> (4 * nth) & 15;
            if route & 8 != 0
                && let Some(Some(event)) = self.vectors.get(route as usize & 7)
            {
                event.write(1).unwrap();
            }
            let auto = self.reg(EIAC) & cause;
            self.regs[ICR / 4] &= !auto;
            self.regs[IMS / 4] &= !auto;
        }
    }

    /// Sends all of `queue`'s descriptors.
    pub fn step_tx(&mut self, memory: &FakeMemory, queue: usize) {
        let at = |register: usize| register + queue * QUEUE;
        let count = self.reg(at(TDLEN)) / 16;
        while self.reg(TCTL) & 2 != 0
            && self.reg(at(TARC)) & 0x400 != 0
            && self.reg(at(TDH)) != self.reg(at(TDT))
        {
            let place = self.base(at(TDBAL)) + u64::from(self.reg(at(TDH))) * 16;
            let mut desc = [0; 16];
            assert!(memory.read(place, &mut desc), "descriptor outside memory");
            let buffer = u64::from_le_bytes(desc[..8].try_into().unwrap());
            let extended = desc[11] & 0x20 != 0;
            if !(extended && desc[10] >> 4 == 0) {
                let high = if extended {
                    usize::from(desc[10] & 15) << 16
                } else {
                    0
                };
                let len = usize::from(u16::from_le_bytes([desc[8], desc[9]])) | high;
                if buffer >> 12 != (buffer + len as u64 - 1) >> 12 {
                    self.across_pages += 1;
                }
                let start = self.partial[queue].len();
                self.partial[queue].resize(start + len, 0);
                memory.read(buffer, &mut self.partial[queue][start..]);
                if desc[11] & 1 != 0 {
                    let frame = std::mem::take(&mut self.partial[queue]);
                    self.sent.push((queue, frame));
                }
            }
            if desc[11] & 8 != 0 {
                desc[12] |= 1;
                memory.write(place, &desc);
                self.raise(1 << (22 + queue), 1);
            }
            self.regs[at(TDH) / 4] = (self.reg(at(TDH)) + 1) % count;
        }
    }

    /// Delivers what is in the inboxes while there are buffers.
    pub fn step_rx(&mut self, memory: &FakeMemory) {
        for queue in 0..2 {
            while self.reg(RCTL) & 2 != 0
                && let Some(frame) = self.inbox[queue].front().cloned()
                && self.deliver(memory, queue, &frame)
            {
                self.inbox[queue].pop_front();
                self.raise(1 << (20 + queue), 1 << 7);
            }
        }
    }

    /// One frame into `queue`'s buffers; `false` where there are too few.
    fn deliver(&mut self, memory: &FakeMemory, queue: usize, frame: &[u8]) -> bool {
        let at = |register: usize| register + queue * QUEUE;
        assert!(self.reg(RFCTL) & 1 << 15 != 0, "extended descriptors");
        let split = self.reg(RCTL) >> 10 & 3 == 1;
        let psrctl = self.reg(PSRCTL) as usize;
        let sizes = match split {
            true => [
                (psrctl & 0x7f) * 128,
                (psrctl >> 8 & 0x3f) * 1024,
                (psrctl >> 16 & 0x3f) * 1024,
                (psrctl >> 24 & 0x3f) * 1024,
            ],
            false => [2048, 0, 0, 0],
        };
        let units = if split { 2 } else { 1 };
        let capacity: usize = sizes.iter().sum();
        let needed = frame.len().div_ceil(capacity).max(1) as u32 * units;
        let count = self.reg(at(RDLEN)) / 16;
        if (self.reg(at(RDT)) + count - self.reg(at(RDH))) % count < needed {
            return false;
        }
        let mut rest = frame;
        for nth in (0..needed).step_by(units as usize) {
            let place = self.base(at(RDBAL)) + u64::from(self.reg(at(RDH))) * 16;
            let mut desc = vec![0; 16 * units as usize];
            assert!(memory.read(place, &mut desc), "descriptor outside memory");
            let word = |desc: &[u8], i: usize| {
                u64::from_le_bytes(desc[8 * i..8 * i + 8].try_into().unwrap())
            };
            let mut lengths = [0u16; 4];
            for (i, size) in sizes.into_iter().enumerate().filter(|(_, size)| *size > 0) {
                // The address is in word 0 of one kind, in every word of the other.
                let piece;
                (piece, rest) = rest.split_at(rest.len().min(size));
                memory.write(word(&desc, i), piece);
                lengths[i] = piece.len() as u16;
            }
            match self.untruth {
                Untruth::Length(length) => lengths[0] = length,
                Untruth::Payload(length) => lengths[1] = length,
                Untruth::Crumbs => lengths = [1, lengths[1].min(1), 0, 0],
                _ => {}
            }
            let never = matches!(self.untruth, Untruth::NoEop | Untruth::Crumbs);
            let last = nth + units == needed && !never;
            let status = 1 | if last { 2 | self.errors } else { 0 };
            let word1 = u64::from(status) | u64::from(lengths[0]) << 32;
            desc.fill(0);
            desc[8..16].copy_from_slice(&word1.to_le_bytes());
            if split {
                for (i, length) in lengths.iter().enumerate().skip(1) {
                    desc[16 + 2 * i..18 + 2 * i].copy_from_slice(&length.to_le_bytes());
                }
            }
            memory.write(place, &desc);
            self.regs[at(RDH) / 4] = (self.reg(at(RDH)) + units) % count;
        }
        true
    }
}

/// Its registers, which have 32 bits at most.
impl FakeE1000e {
    fn get(&mut self, place: Place) -> u32 {
        match place.offset {
            // Link up; requests on the bus until the driver has forbidden them.
            STATUS => {
                let up = self.link && self.bmcr & 1 << 11 == 0;
                let link = if up { 0x83 } else { 0x81 };
                link | if self.reg(CTRL) & 4 == 0 { 1 << 19 } else { 0 }
            }
            EEC if Instant::now() < self.loaded => 0x100,
            EEC => 0x300,
            EXTCNF_CTRL if self.firmware_keeps > 0 => {
                self.firmware_keeps -= 1;
                self.regs[EXTCNF_CTRL / 4] = 0;
                0
            }
            ICR => std::mem::take(&mut self.regs[ICR / 4]),
            0x4000..=0x4100 => std::mem::take(&mut self.regs[place.offset / 4]),
            offset => self.reg(offset),
        }
    }

    fn set(&mut self, place: Place, value: u32, memory: &FakeMemory) {
        let offset = place.offset;
        let unit = |register: usize| match register == offset {
            true => value & 2 != 0,
            false => self.reg(register) & 2 != 0,
        };
        match unit(RCTL) || unit(TCTL) {
            true => self.quiet_since = None,
            false => drop(self.quiet_since.get_or_insert_with(Instant::now)),
        }
        if offset == TCTL && value & 2 != 0 && self.reg(CTRL) & 1 << 29 != 0 {
            self.complain("CTRL bit 29 is set and the transmitter on");
        }
        match offset {
            CTRL if value & 1 << 26 != 0 => {
                self.resets += 1;
                self.resets_on_a_busy_bus += usize::from(self.reg(CTRL) & 4 == 0);
                self.reset();
                let keeps = self.untruth == Untruth::ResetNeverEnds;
                // Bit 29 is set by the reset, and must not stay so.
                self.regs[0] = if keeps { value } else { 1 << 29 };
            }
            MDIC => {
                self.mdio("MDIC");
                if value & 1 << 26 != 0 {
                    self.bmcr = value as u16;
                }
                self.regs[MDIC / 4] = value & 0xffff_0000 | 1 << 28 | u32::from(self.bmcr);
            }
            EERD => {
                self.mdio("EERD");
                let word = self.eeprom(value as usize >> 2 & 0x3fff);
                self.regs[EERD / 4] = value & 0xfffc | 2 | u32::from(word) << 16;
            }
            ICR => self.regs[ICR / 4] &= !value,
            IMS => {
                self.regs[IMS / 4] |= value;
                self.interrupt();
            }
            IMC => self.regs[IMS / 4] &= !value,
            _ => self.regs[offset / 4] = value,
        }
        if !self.eager {
            return;
        }
        match offset & !QUEUE {
            TDT => self.step_tx(memory, usize::from(offset & QUEUE != 0)),
            RDT => self.step_rx(memory),
            _ => {}
        }
    }
}

impl FakeDevice for FakeE1000e {
    fn read(&mut self, place: Place) -> u64 {
        self.get(place).into()
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        self.set(place, value as u32, memory);
    }

    fn config(&mut self) -> &mut [u8; 256] {
        &mut self.config
    }

    fn connect_irq(&mut self, vector: usize, event: EventFd) {
        self.vectors.resize_with(vector + 1, || None);
        self.vectors[vector] = Some(event);
    }
}
