//! A fake virtio network card on PCI: capabilities, common configuration, and what
//! each queue of a network card does. It works as it is notified; it lies where it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use pinwire::backend::{Fake, FakeDevice, FakeMemory};
use pinwire::mmio::Place;
use vmm_sys_util::eventfd::EventFd;

use super::queue::{Agreed, Chain, Queue};

const BAR: u8 = 4;
pub const SIZE: usize = 0x4000;
const ISR: usize = 0x1000;
const DEVICE: usize = 0x2000;
const NOTIFY: usize = 0x3000;
const MULTIPLIER: u32 = 4;
pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// Features, by bit.
pub const CSUM: u64 = 1 << 0;
pub const GUEST_CSUM: u64 = 1 << 1;
pub const MTU: u64 = 1 << 3;
pub const GUEST_TSO4: u64 = 1 << 7;
pub const GUEST_TSO6: u64 = 1 << 8;
pub const HOST_TSO4: u64 = 1 << 11;
pub const HOST_TSO6: u64 = 1 << 12;
pub const MRG_RXBUF: u64 = 1 << 15;
pub const STATUS: u64 = 1 << 16;
pub const CTRL_VQ: u64 = 1 << 17;
pub const CTRL_RX: u64 = 1 << 18;
pub const CTRL_VLAN: u64 = 1 << 19;
pub const GUEST_ANNOUNCE: u64 = 1 << 21;
pub const MQ: u64 = 1 << 22;
pub const INDIRECT: u64 = 1 << 28;
pub const EVENT_IDX: u64 = 1 << 29;
pub const VERSION_1: u64 = 1 << 32;
pub const ACCESS_PLATFORM: u64 = 1 << 33;
pub const PACKED: u64 = 1 << 34;
pub const IN_ORDER: u64 = 1 << 35;
pub const NOTIFICATION_DATA: u64 = 1 << 38;
pub const RING_RESET: u64 = 1 << 40;
pub const GUEST_USO4: u64 = 1 << 54;
pub const GUEST_USO6: u64 = 1 << 55;
pub const HOST_USO: u64 = 1 << 56;
pub const RSS: u64 = 1 << 60;
/// What any card offers here.
pub const PLAIN: u64 = 1 << 5 | STATUS | VERSION_1 | ACCESS_PLATFORM;

/// What the card does that it should not.
#[derive(Debug, Default)]
pub struct Lies {
    pub takes_features_back: bool,
    pub never_resets: bool,
    pub gives_no_vector: bool,
    pub config_never_stands_still: bool,
    pub doorbell_outside: bool,
    pub no_answer: bool,
    pub says_no: bool,
    /// Says no to commands that begin so, and yes to others.
    pub says_no_to: Option<Vec<u8>>,
    /// In the next header that is received.
    pub num_buffers: Option<u16>,
    /// Bytes written into the next buffer.
    pub written: Option<u32>,
}

pub struct FakeVirtioNet {
    config: [u8; 256],
    pub offered: u64,
    pub taken: u64,
    selects: [u32; 2],
    pub status: u8,
    generation: u8,
    pub link: bool,
    /// It wants the network to be told where it is.
    pub announce: bool,
    pub pairs: u16,
    pub mtu: u16,
    /// The MTU changes to this once it was read.
    pub next_mtu: Option<u16>,
    pub queue_max: u16,
    /// The control queue's, where it is another.
    pub control_max: Option<u16>,
    selected: u16,
    /// By queue: what was written into its registers.
    registers: BTreeMap<(u16, usize), u32>,
    config_vector: u16,
    pub queues: BTreeMap<u16, Queue>,
    irqs: BTreeMap<usize, EventFd>,
    isr: u8,
    /// Frames with their headers, by queue.
    pub sent: Vec<(u16, Vec<u8>)>,
    /// Pieces of each chain sent.
    pub pieces: Vec<usize>,
    pub commands: Vec<Vec<u8>>,
    /// Had it a receive buffer when a command came?
    pub lent_at_command: Vec<bool>,
    pub notifications: Vec<u32>,
    /// Register reads.
    pub reads: usize,
    /// Takes frames to send as it is notified.
    pub works: bool,
    pub gone: bool,
    pub lies: Lies,
}

impl FakeVirtioNet {
    pub fn new(offered: u64) -> Self {
        let mut card = Self {
            config: [0; 256],
            offered,
            taken: 0,
            selects: [0; 2],
            status: 0,
            generation: 0,
            link: true,
            announce: false,
            pairs: 1,
            mtu: 1500,
            next_mtu: None,
            queue_max: 256,
            control_max: None,
            selected: 0,
            registers: BTreeMap::new(),
            config_vector: 0xffff,
            queues: BTreeMap::new(),
            irqs: BTreeMap::new(),
            isr: 0,
            sent: Vec::new(),
            pieces: Vec::new(),
            commands: Vec::new(),
            lent_at_command: Vec::new(),
            notifications: Vec::new(),
            reads: 0,
            works: true,
            gone: false,
            lies: Lies::default(),
        };
        card.config[..4].copy_from_slice(&[0xf4, 0x1a, 0x41, 0x10]);
        card.config[6] = 0x10;
        card.config[0x34] = 0x40;
        card.capability(0x40, 0x54, 1, 0, 0x3c);
        card.capability(0x54, 0x68, 3, ISR as u32, 1);
        card.capability(0x68, 0x7c, 4, DEVICE as u32, 0x18);
        card.capability(0x7c, 0x90, 2, NOTIFY as u32, 0x1000);
        card.config[0x7e] = 20;
        card.config[0x8c..0x90].copy_from_slice(&MULTIPLIER.to_le_bytes());
        // MSI-X, 8 vectors.
        card.config[0x90..0x94].copy_from_slice(&[0x11, 0, 7, 0]);
        card
    }

    fn capability(&mut self, at: usize, next: u8, kind: u8, offset: u32, length: u32) {
        self.config[at..at + 5].copy_from_slice(&[9, next, 16, kind, BAR]);
        self.config[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
        self.config[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
    }

    /// Forgets what passed.
    pub fn forget(&mut self) {
        self.sent.clear();
        self.pieces.clear();
        self.notifications.clear();
    }

    /// Where the structure is that capability `nth` tells of.
    pub fn move_structure(&mut self, nth: usize, offset: u32, length: u32) {
        let at = 0x40 + nth * 0x14;
        self.config[at + 8..at + 12].copy_from_slice(&offset.to_le_bytes());
        self.config[at + 12..at + 16].copy_from_slice(&length.to_le_bytes());
    }

    /// One more capability, in front of all others: its `nth`, of type `kind` and of `len` bytes.
    pub fn put_in_front(&mut self, nth: usize, kind: u8, len: u8, bar: u8, at: (u32, u32)) {
        let place = 0xa0 + nth * 0x14;
        let first = self.config[0x34];
        self.capability(place, first, kind, at.0, at.1);
        self.config[place + 2] = len;
        self.config[place + 4] = bar;
        self.config[0x34] = place as u8;
    }

    /// A word of config space.
    pub fn put_word(&mut self, at: usize, word: u32) {
        self.config[at..at + 4].copy_from_slice(&word.to_le_bytes());
    }

    /// BAR `index` is of I/O ports.
    pub fn make_io(&mut self, index: usize) {
        self.config[0x10 + 4 * index] = 1;
    }

    /// The capability at `from` is followed by that at `to`.
    pub fn link_capability(&mut self, from: usize, to: u8) {
        self.config[from + 1] = to;
    }

    /// Bytes between doorbells.
    pub fn set_multiplier(&mut self, multiplier: u32) {
        self.config[0x8c..0x90].copy_from_slice(&multiplier.to_le_bytes());
    }

    /// What the driver wrote as the size of queue `index`.
    pub fn size_of(&self, index: u16) -> Option<u32> {
        self.registers.get(&(index, 0x18)).copied()
    }

    /// No capability tells of a structure.
    pub fn hide_structures(&mut self) {
        self.config[0x34] = 0x90;
    }

    pub fn lock(card: &Arc<Mutex<Self>>) -> MutexGuard<'_, Self> {
        card.lock().unwrap_or_else(|error| error.into_inner())
    }

    /// The card and a backend that reaches it.
    pub fn fake(offered: u64) -> (Fake, Arc<Mutex<Self>>) {
        let card = Arc::new(Mutex::new(Self::new(offered)));
        (Fake::new(card.clone(), SIZE), card)
    }

    fn has(&self, feature: u64) -> bool {
        self.taken & feature != 0
    }

    fn control(&self) -> u16 {
        if self.has(MQ | RSS) {
            self.pairs.wrapping_mul(2)
        } else {
            2
        }
    }

    fn reset(&mut self) {
        (self.taken, self.status, self.isr) = (0, 0, 0);
        self.registers.clear();
        self.queues.clear();
        self.config_vector = 0xffff;
    }

    fn register(&self, at: usize) -> u32 {
        let written = self.registers.get(&(self.selected, at)).copied();
        match at {
            0x18 if self.has(CTRL_VQ) && self.selected == self.control() => {
                written.unwrap_or(self.control_max.unwrap_or(self.queue_max).into())
            }
            0x18 => written.unwrap_or(self.queue_max.into()),
            0x1a => written.unwrap_or(0xffff),
            0x1e if self.lies.doorbell_outside => 0xffff,
            0x1e => self.selected.into(),
            _ => written.unwrap_or(0),
        }
    }

    fn enable(&mut self) {
        let wide = |at| u64::from(self.register(at)) | u64::from(self.register(at + 4)) << 32;
        let agreed = Agreed {
            packed: self.has(PACKED),
            event_idx: self.has(EVENT_IDX),
            indirect: self.has(INDIRECT),
            in_order: self.has(IN_ORDER),
        };
        let size = self.register(0x18) as u16;
        let queue = Queue::new(size, wide(0x20), wide(0x28), wide(0x30), agreed);
        self.queues.insert(self.selected, queue);
    }

    /// Interrupts for queue `index`, where the driver wants it.
    fn interrupt(&mut self, index: u16, memory: &FakeMemory) {
        let queue = self.queues.get_mut(&index).unwrap();
        if queue.must_interrupt(memory) {
            let vector = *self.registers.get(&(index, 0x1a)).unwrap_or(&0xffff);
            self.isr |= 1;
            if let Some(event) = self.irqs.get(&(vector as usize)) {
                event.write(1).unwrap();
            }
        }
    }

    /// Device configuration has changed.
    pub fn change(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.isr |= 2;
        if let Some(event) = self.irqs.get(&usize::from(self.config_vector)) {
            event.write(1).unwrap();
        }
    }

    /// Works on queue `index`.
    pub fn work(&mut self, index: u16, memory: &FakeMemory) {
        if index == self.control() && self.has(CTRL_VQ) {
            return self.obey(index, memory, usize::MAX);
        }
        if index.is_multiple_of(2) {
            return;
        }
        loop {
            let queue = self.queues.get_mut(&index).expect("an enabled queue");
            while let Some(chain) = queue.take(memory) {
                self.sent.push((index, chain.read(memory)));
                self.pieces.push(chain.pieces.len());
                queue.give(memory, &chain, 0);
            }
            // Asked for the next notification; one that came meanwhile is not told.
            if !queue.ask(memory) {
                break;
            }
        }
        self.interrupt(index, memory);
    }

    /// Does what up to `most` commands on the control queue ask for.
    pub fn obey(&mut self, index: u16, memory: &FakeMemory, most: usize) {
        if self.lies.no_answer {
            return;
        }
        let lent = self.queues[&0].has_available(memory);
        let queue = self.queues.get_mut(&index).unwrap();
        for _ in 0..most {
            let Some(chain) = queue.take(memory) else {
                break;
            };
            self.lent_at_command.push(lent);
            let command = chain.read(memory);
            // The network was told.
            self.announce &= command[..2] != [3, 0];
            let refused = self.lies.says_no_to.as_ref();
            let refused = refused.is_some_and(|begin| command.starts_with(begin));
            self.commands.push(command);
            assert_eq!(chain.writable(), 1);
            chain.write(memory, &[u8::from(self.lies.says_no || refused)]);
            queue.give(memory, &chain, 1);
        }
        queue.ask(memory);
    }

    /// A frame comes in to pair `pair`, with `header` before it; over several buffers where that was
    /// agreed on. `false`: there is no buffer.
    pub fn receive(
        &mut self,
        memory: &FakeMemory,
        pair: u16,
        mut header: [u8; 12],
        frame: &[u8],
    ) -> bool {
        let (num_buffers, written_lie) = (self.lies.num_buffers.take(), self.lies.written.take());
        let merge = self.has(MRG_RXBUF);
        // A card that was stopped has no queue.
        let Some(queue) = self.queues.get_mut(&(2 * pair)) else {
            return false;
        };
        let total = frame.len() + 12;
        let mut chains: Vec<Chain> = Vec::new();
        let mut room = 0;
        while room < total {
            let Some(chain) = queue.take(memory) else {
                // Those it took are lost; a test does not go on with them.
                assert!(chains.is_empty(), "too few buffers for one frame");
                queue.ask(memory);
                return false;
            };
            room += chain.writable() as usize;
            chains.push(chain);
            assert!(merge || room >= total, "a buffer that is too short");
        }
        header[10..].copy_from_slice(&num_buffers.unwrap_or(chains.len() as u16).to_le_bytes());
        let bytes = [&header[..], frame].concat();
        let mut done = 0;
        for chain in &chains {
            let written = chain.write(memory, &bytes[done..]);
            done += written;
            queue.give(memory, chain, written_lie.unwrap_or(written as u32));
        }
        queue.ask(memory);
        self.interrupt(2 * pair, memory);
        true
    }
}

/// Its registers, which have 32 bits at most.
impl FakeVirtioNet {
    fn get(&mut self, place: Place) -> u32 {
        if self.gone {
            return u32::MAX;
        }
        assert_eq!(place.bar, BAR);
        self.reads += 1;
        let at = place.offset;
        match at {
            0x04 => (self.offered >> (32 * self.selects[0].min(2))) as u32,
            0x10 => self.config_vector.into(),
            0x12 => (2 * u32::from(self.pairs) + 1).min(0xffff),
            0x14 => self.status.into(),
            0x15 => {
                if self.lies.config_never_stands_still {
                    self.generation = self.generation.wrapping_add(1);
                }
                self.generation.into()
            }
            0x16 => self.selected.into(),
            0x18..0x3c => self.register(at),
            ISR => std::mem::take(&mut self.isr).into(),
            _ if at == DEVICE + 0xa => {
                let mtu = self.mtu;
                if let Some(next) = self.next_mtu.take() {
                    self.mtu = next;
                    self.generation = self.generation.wrapping_add(1);
                }
                mtu.into()
            }
            _ if (DEVICE..DEVICE + 6).contains(&at) => MAC[at - DEVICE].into(),
            _ => match at.checked_sub(DEVICE) {
                Some(6) => u32::from(self.link) | u32::from(self.announce) << 1,
                Some(8) => self.pairs.into(),
                Some(0x11) => 40,
                Some(0x12) => 128,
                Some(0x14) => 0x3f,
                _ => 0,
            },
        }
    }

    fn set(&mut self, place: Place, value: u32, memory: &FakeMemory) {
        if self.gone {
            return;
        }
        let at = place.offset;
        match at {
            0x00 => self.selects[0] = value,
            0x08 => self.selects[1] = value,
            0x0c => {
                let shift = 32 * self.selects[1];
                self.taken &= !(0xffff_ffff << shift);
                self.taken |= u64::from(value) << shift;
            }
            0x10 if self.lies.gives_no_vector => {}
            0x10 => self.config_vector = value as u16,
            0x14 if value == 0 && self.lies.never_resets => {}
            0x14 if value == 0 => self.reset(),
            0x14 => {
                assert_eq!(
                    self.taken & !self.offered,
                    0,
                    "features that were not offered"
                );
                let back = if self.lies.takes_features_back { 8 } else { 0 };
                self.status = value as u8 & !back;
            }
            0x16 => self.selected = value as u16,
            0x1a if self.lies.gives_no_vector => {}
            0x3a => {
                self.queues.remove(&self.selected);
                let selected = self.selected;
                self.registers.retain(|(queue, _), _| *queue != selected);
            }
            0x18..0x3c => {
                assert_eq!(
                    self.status, 11,
                    "queues are set up between FEATURES_OK and DRIVER_OK"
                );
                self.registers.insert((self.selected, at), value);
                if at == 0x1c && value == 1 {
                    self.enable();
                }
            }
            NOTIFY.. => {
                assert_ne!(self.status & 4, 0, "a notification before DRIVER_OK");
                let index = value as u16;
                assert_eq!(at, NOTIFY + usize::from(index) * MULTIPLIER as usize);
                let wide = self.has(NOTIFICATION_DATA);
                assert_eq!(place.width.bytes(), if wide { 4 } else { 2 });
                self.notifications.push(value);
                if self.works {
                    self.work(index, memory);
                }
            }
            _ => panic!("a write of {value:#x} at {at:#x}"),
        }
    }
}

impl FakeDevice for FakeVirtioNet {
    fn read(&mut self, place: Place) -> u64 {
        self.get(place).into()
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        self.set(place, value as u32, memory);
    }

    fn config(&mut self) -> &mut [u8; 256] {
        if self.gone {
            self.config = [0xff; 256];
        }
        &mut self.config
    }

    fn connect_irq(&mut self, vector: usize, event: EventFd) {
        self.irqs.insert(vector, event);
    }
}
