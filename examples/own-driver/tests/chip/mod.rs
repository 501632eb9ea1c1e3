//! A fake RTL8139C+, written from the datasheet with its own constants, so that it can disagree with the driver. It
//! forgives less than QEMU's model, and lies if it is told to.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use own_driver::Driver;
use pinwire::backend::{Fake, FakeDevice, FakeMemory};
use pinwire::irq::EventFd;
use pinwire::mmio::Place;
use pinwire::nic::{Nic, NicConfig};
use pinwire::open::Drivers;
use pinwire::testing::{Card, Wire};

pub const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

const TNPDS: usize = 0x20;
const CR: usize = 0x37;
const IMR: usize = 0x3c;
const ISR: usize = 0x3e;
const TCR: usize = 0x40;
const RCR: usize = 0x44;
const MPC: usize = 0x4c;
const TPPOLL: usize = 0xd9;
const CPCR: usize = 0xe0;
const RDSAR: usize = 0xe4;

const OWN: u32 = 1 << 31;
const EOR: u32 = 1 << 30;
const FS: u32 = 1 << 29;
const LS: u32 = 1 << 28;
const ROK: u16 = 1 << 0;
const TOK: u16 = 1 << 2;
const RDU: u16 = 1 << 4;

/// What the chip does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Lie {
    #[default]
    None,
    /// A received frame of so many bytes, whatever came.
    Length(u32),
    /// CR.RST stays set.
    ResetNeverEnds,
}

pub struct Chip {
    regs: [u8; 256],
    config: [u8; 256],
    event: Option<EventFd>,
    /// The line is masked since it fired.
    masked: bool,
    tx: u64,
    rx: u64,
    partial: Vec<u8>,
    pub sent: Vec<Vec<u8>>,
    pub lie: Lie,
}

impl Chip {
    pub fn fake() -> (Fake, Arc<Mutex<Self>>) {
        let mut config = [0; 256];
        config[..4].copy_from_slice(&[0xec, 0x10, 0x39, 0x81]);
        config[8] = 0x20;
        let mut chip = Self {
            regs: [0; 256],
            config,
            event: None,
            masked: false,
            tx: 0,
            rx: 0,
            partial: Vec::new(),
            sent: Vec::new(),
            lie: Lie::None,
        };
        chip.reset();
        let chip = Arc::new(Mutex::new(chip));
        (Fake::new(chip.clone(), 256), chip)
    }

    fn reset(&mut self) {
        self.regs = [0; 256];
        self.regs[..6].copy_from_slice(&MAC);
        // 100 Mbit/s both ways at once, on both ends.
        self.put16(0x66, 0x01e1);
        self.put16(0x68, 0x01e1);
        (self.tx, self.rx, self.masked) = (0, 0, false);
        self.partial.clear();
    }

    fn get16(&self, at: usize) -> u16 {
        u16::from_le_bytes([self.regs[at], self.regs[at + 1]])
    }

    fn put16(&mut self, at: usize, value: u16) {
        self.regs[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn get64(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.regs[at..at + 8].try_into().unwrap())
    }

    /// Something happened: the line rises where it is asked for.
    fn raise(&mut self, cause: u16) {
        self.put16(ISR, self.get16(ISR) | cause);
        self.update_line();
    }

    fn update_line(&mut self) {
        if self.get16(ISR) & self.get16(IMR) != 0 && !self.masked {
            self.masked = true;
            if let Some(event) = &self.event {
                event.write(1).unwrap();
            }
        }
    }

    /// The descriptor at `index` of the ring at `ring`: two words and the buffer, and where it is.
    fn descriptor(ring: u64, index: u64, memory: &FakeMemory) -> (u64, [u32; 2], u64) {
        assert!(ring.is_multiple_of(256), "rings begin at a multiple of 256");
        let at = ring + 16 * index;
        let mut bytes = [0; 16];
        assert!(memory.read(at, &mut bytes), "no descriptor at {at:#x}");
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let buffer = u64::from_le_bytes(bytes[8..].try_into().unwrap());
        (at, [word(0), word(4)], buffer)
    }

    fn next(index: u64, word: u32) -> u64 {
        assert!(
            word & EOR != 0 || index < 63,
            "a ring has up to 64 descriptors"
        );
        if word & EOR != 0 { 0 } else { index + 1 }
    }

    fn transmit(&mut self, memory: &FakeMemory) {
        while self.regs[CR] & 1 << 2 != 0 && self.get16(CPCR) & 1 != 0 {
            let ring = self.get64(TNPDS);
            let (at, [word, _], buffer) = Self::descriptor(ring, self.tx, memory);
            if word & OWN == 0 {
                return;
            }
            assert_eq!(
                word & FS != 0,
                self.partial.is_empty(),
                "FS, and only there"
            );
            let from = self.partial.len();
            self.partial.resize(from + (word & 0xffff) as usize, 0);
            assert!(memory.read(buffer, &mut self.partial[from..]));
            assert!(memory.write(at, &(word & !OWN).to_le_bytes()));
            self.tx = Self::next(self.tx, word);
            if word & LS != 0 {
                // The chip pads.
                let len = self.partial.len().max(60);
                self.partial.resize(len, 0);
                self.sent.push(std::mem::take(&mut self.partial));
                self.raise(TOK);
            }
        }
    }

    /// A frame comes in: into as many buffers as it takes, where there are so many.
    pub fn receive(&mut self, frame: &[u8], memory: &FakeMemory) {
        if self.regs[CR] & 1 << 3 == 0 || self.get16(CPCR) & 2 == 0 {
            return;
        }
        assert_ne!(
            self.regs[RCR + 1],
            0,
            "bursts are set up before frames come in"
        );
        let with_fcs = [frame, &[0xfc; 4]].concat();
        let mut rest = &with_fcs[..];
        let mut first = FS;
        while !rest.is_empty() {
            let ring = self.get64(RDSAR);
            let (at, [word, _], buffer) = Self::descriptor(ring, self.rx, memory);
            if word & OWN == 0 {
                // Frames that have begun are ended by the error that says so.
                self.regs[MPC] = self.regs[MPC].wrapping_add(1);
                return self.raise(RDU);
            }
            let size = (word & 0x1fff) as usize;
            assert!(size.is_multiple_of(8) && buffer.is_multiple_of(8));
            let (now, later) = rest.split_at(rest.len().min(size));
            assert!(memory.write(buffer, now));
            let (last, length) = match (later.is_empty(), self.lie) {
                (true, Lie::Length(length)) => (LS, length),
                (true, _) => (LS, with_fcs.len() as u32),
                (false, _) => (0, 0),
            };
            let status = word & EOR | first | last | length;
            assert!(memory.write(at, &status.to_le_bytes()));
            self.rx = Self::next(self.rx, word);
            (rest, first) = (later, 0);
        }
        self.raise(ROK);
    }
}

/// Its registers, which have 32 bits at most.
impl Chip {
    fn get(&mut self, place: Place) -> u32 {
        assert_eq!(place.bar, 1, "its memory BAR");
        let bytes = &self.regs[place.offset..][..place.width.bytes()];
        let value = bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u32::from(*byte));
        let stuck = place.offset == CR && self.lie == Lie::ResetNeverEnds;
        if stuck { value | 1 << 4 } else { value }
    }

    fn set(&mut self, place: Place, value: u32, memory: &FakeMemory) {
        let (at, width) = (place.offset, place.width.bytes());
        match at {
            CR if value & 1 << 4 != 0 && self.lie != Lie::ResetNeverEnds => return self.reset(),
            ISR => {
                self.put16(ISR, self.get16(ISR) & !(value as u16));
                return self.update_line();
            }
            MPC => return self.regs[MPC..MPC + 4].fill(0),
            TCR => assert_ne!(
                self.regs[CR] & 1 << 2,
                0,
                "TCR is set once the transmitter is on"
            ),
            _ => {}
        }
        self.regs[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
        match at {
            CPCR => {
                // The mode begins: the registers of the rings hold nothing.
                self.regs[TNPDS..TNPDS + 16].fill(0xff);
                self.regs[RDSAR..RDSAR + 8].fill(0xff);
            }
            IMR => self.update_line(),
            TPPOLL => self.transmit(memory),
            _ => {}
        }
    }
}

impl FakeDevice for Chip {
    fn read(&mut self, place: Place) -> u64 {
        self.get(place).into()
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        self.set(place, value as u32, memory);
    }

    fn config(&mut self) -> &mut [u8; 256] {
        &mut self.config
    }

    fn connect_irq(&mut self, _: usize, event: EventFd) {
        self.event = Some(event);
    }

    fn unmask_irq(&mut self) {
        self.masked = false;
        self.update_line();
    }
}

/// The chip, which a panicking test must not hide.
pub fn lock(chip: &Mutex<Chip>) -> MutexGuard<'_, Chip> {
    chip.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The far end of the chip's cable.
pub struct Cable {
    pub chip: Arc<Mutex<Chip>>,
    pub memory: Arc<FakeMemory>,
}

impl Wire for Cable {
    fn send(&self, frame: &[u8]) {
        lock(&self.chip).receive(frame, &self.memory);
    }

    fn try_send(&self, frame: &[u8]) {
        self.send(frame);
    }

    fn recv(&self, bound: Duration) -> Option<Vec<u8>> {
        let begin = Instant::now();
        while begin.elapsed() < bound {
            let mut chip = lock(&self.chip);
            if !chip.sent.is_empty() {
                return Some(chip.sent.remove(0));
            }
            drop(chip);
            std::thread::yield_now();
        }
        None
    }

    fn longest(&self) -> usize {
        usize::MAX
    }
}

/// The card, for the tests for drivers.
pub struct FakeCard;

/// Starts the driver on a chip; gives the far end of its cable.
pub fn start(config: &NicConfig) -> pinwire::Result<(Box<dyn Nic>, Cable)> {
    let (fake, chip) = Chip::fake();
    let memory = Arc::clone(fake.memory());
    let nic = Drivers::none().with::<Driver>().start(fake, config)?;
    Ok((nic, Cable { chip, memory }))
}

impl Card for FakeCard {
    fn name(&self) -> &str {
        "fake:rtl8139"
    }

    fn start(&self, config: &NicConfig) -> pinwire::Result<(Box<dyn Nic>, Box<dyn Wire>)> {
        let (nic, cable) = start(config)?;
        Ok((nic, Box::new(cable)))
    }

    fn is_fake(&self) -> bool {
        true
    }
}
