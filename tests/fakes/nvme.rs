//! A fake NVMe controller, from the base specification 1.4: admin queue, queues, one namespace of 512-byte blocks in
//! memory. It works when a doorbell is rung, completes in any order that it is told to, and lies where it is told to.

use pinwire::backend::{FakeDevice, FakeMemory};
use pinwire::irq::EventFd;
use pinwire::mmio::Place;

const CAP: usize = 0x00;
const VS: usize = 0x08;
const CC: usize = 0x14;
const CSTS: usize = 0x1c;
const AQA: usize = 0x24;
const ASQ: usize = 0x28;
const ACQ: usize = 0x30;
const DOORBELLS: usize = 0x1000;

/// Blocks of the namespace.
pub const BLOCKS: u64 = 4096;

/// In what it is another than the specification wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    None,
    /// CSTS.RDY never comes.
    NeverReady,
    /// CSTS.RDY never goes.
    NeverStops,
    /// CSTS.CFS instead of RDY.
    FailsAtOnce,
    /// All ones, as a device that is gone.
    Gone,
    /// Takes commands and completes none.
    Silent,
    /// Completes each with this identifier.
    Cid(u16),
    /// Completes each twice.
    Twice,
    /// Completes each for this queue.
    Queue(u16),
    /// Says this head of the submission queue.
    Head(u16),
    /// Gives each this status.
    Status(u16),
    /// Lists this number of a namespace, of one.
    Lists(u32),
    /// The namespace has this format: metadata, and a shift.
    Format(u16, u8),
    /// The namespace has so many blocks.
    Blocks(u64),
    /// Identify is all of this byte.
    Nonsense(u8),
    /// Completes the first of a batch only after the next one, as long as there is one.
    OutOfOrder,
}

#[derive(Default)]
struct Queue {
    sq: u64,
    cq: u64,
    len: u16,
    sq_head: u16,
    cq_tail: u16,
    phase: bool,
    vector: Option<usize>,
    /// Completions that are held back.
    held: Option<[u8; 16]>,
}

/// The controller.
pub struct FakeNvme {
    config: [u8; 256],
    pub lie: Lie,
    /// Lies on I/O queues only from here on.
    pub blocks: Vec<u8>,
    /// Largest queue, less one.
    pub mqes: u16,
    /// I/O commands that it has done.
    pub done: u64,
    cc: u32,
    ready: bool,
    failed: bool,
    shut: bool,
    aqa: u32,
    asq: u64,
    acq: u64,
    queues: Vec<Queue>,
    irqs: Vec<Option<EventFd>>,
    pub complaints: Vec<String>,
}

impl FakeNvme {
    pub fn new() -> Self {
        let mut config = [0; 256];
        config[..4].copy_from_slice(&[0x36, 0x1b, 0x10, 0]);
        config[8..12].copy_from_slice(&[2, 0x02, 0x08, 0x01]);
        let pattern = |at: usize| (at / 512) as u8 ^ (at % 251) as u8;
        Self {
            config,
            lie: Lie::None,
            blocks: (0..BLOCKS as usize * 512).map(pattern).collect(),
            mqes: 2047,
            done: 0,
            cc: 0,
            ready: false,
            failed: false,
            shut: false,
            aqa: 0,
            asq: 0,
            acq: 0,
            queues: Vec::new(),
            irqs: Vec::new(),
            complaints: Vec::new(),
        }
    }

    fn enable(&mut self) {
        if self.cc & 0x00ff_0000 != 0x0046_0000 {
            self.complaints
                .push(format!("CC {:#x}: entry sizes", self.cc));
        }
        if !self.asq.is_multiple_of(4096) || !self.acq.is_multiple_of(4096) {
            self.complaints
                .push("an admin queue that is not page-aligned".to_owned());
        }
        self.queues = vec![Queue {
            sq: self.asq,
            cq: self.acq,
            len: (self.aqa & 0xfff) as u16 + 1,
            phase: true,
            vector: Some(0),
            ..Queue::default()
        }];
        match self.lie {
            Lie::NeverReady => {}
            Lie::FailsAtOnce => self.failed = true,
            _ => self.ready = true,
        }
    }

    /// Takes the commands of queue `id` up to `tail`.
    fn work(&mut self, id: u16, tail: u16, memory: &FakeMemory) {
        let Some(queue) = self.queues.get(usize::from(id)) else {
            self.complaints
                .push(format!("a doorbell of queue {id}, which is not there"));
            return;
        };
        if tail >= queue.len {
            self.complaints
                .push(format!("tail {tail} of a queue of {}", queue.len));
            return;
        }
        while self.queues[usize::from(id)].sq_head != tail {
            let queue = &mut self.queues[usize::from(id)];
            let mut entry = [0; 64];
            memory.read(queue.sq + 64 * u64::from(queue.sq_head), &mut entry);
            queue.sq_head = (queue.sq_head + 1) % queue.len;
            let words: [u64; 8] = std::array::from_fn(|at| {
                u64::from_le_bytes(entry[8 * at..8 * at + 8].try_into().unwrap())
            });
            let (status, result) = match id {
                0 => self.admin(&words, memory),
                _ => self.io(&words, memory),
            };
            self.complete(id, (words[0] >> 16) as u16, status, result, memory);
        }
        if let Some(held) = self.queues[usize::from(id)].held.take() {
            self.put(id, held, memory);
        }
    }

    fn complete(&mut self, id: u16, cid: u16, status: u16, result: u32, memory: &FakeMemory) {
        let queue = &mut self.queues[usize::from(id)];
        let (mut head, mut cid, mut queue_id, mut status) = (queue.sq_head, cid, id, status);
        // The admin queue is honest, so that there is a disk to begin with.
        if id > 0 {
            self.done += 1;
            match self.lie {
                Lie::Silent => return,
                Lie::Cid(other) => cid = other,
                Lie::Queue(other) => queue_id = other,
                Lie::Head(other) => head = other,
                Lie::Status(other) => status = other,
                _ => {}
            }
        }
        let mut entry = [0; 16];
        entry[..4].copy_from_slice(&result.to_le_bytes());
        entry[8..10].copy_from_slice(&head.to_le_bytes());
        entry[10..12].copy_from_slice(&queue_id.to_le_bytes());
        entry[12..14].copy_from_slice(&cid.to_le_bytes());
        entry[14..16].copy_from_slice(&(status << 1).to_le_bytes());
        if id > 0 && self.lie == Lie::OutOfOrder {
            // The head that a later one says is not to go back with an earlier one.
            let queue = &mut self.queues[usize::from(id)];
            match queue.held.take() {
                None => {
                    queue.held = Some(entry);
                    return;
                }
                Some(mut held) => {
                    self.put(id, entry, memory);
                    held[8..10].copy_from_slice(&head.to_le_bytes());
                    self.put(id, held, memory);
                    return;
                }
            }
        }
        self.put(id, entry, memory);
        if id > 0 && self.lie == Lie::Twice {
            self.put(id, entry, memory);
        }
    }

    fn put(&mut self, id: u16, mut entry: [u8; 16], memory: &FakeMemory) {
        let queue = &mut self.queues[usize::from(id)];
        entry[14] = entry[14] & !1 | u8::from(queue.phase);
        let at = queue.cq + 16 * u64::from(queue.cq_tail);
        // The word with the phase tag last.
        memory.write(at, &entry[..8]);
        memory.write(at + 8, &entry[8..]);
        queue.cq_tail = (queue.cq_tail + 1) % queue.len;
        queue.phase ^= queue.cq_tail == 0;
        let irq = queue
            .vector
            .and_then(|vector| self.irqs.get(vector)?.as_ref());
        if let Some(irq) = irq {
            irq.write(1).expect("an eventfd");
        }
    }

    fn admin(&mut self, words: &[u64; 8], memory: &FakeMemory) -> (u16, u32) {
        let (dw10, dw11) = (words[5] as u32, (words[5] >> 32) as u32);
        match words[0] as u8 {
            0x06 => {
                let mut page = [0; 4096];
                match dw10 as u8 {
                    1 => {
                        page[4..8].copy_from_slice(b"fake");
                        page[24..39].copy_from_slice(b"a fake\x07 of ours");
                        page[77] = 5; // 128 KiB
                        page[516..520].copy_from_slice(&1u32.to_le_bytes());
                        page[520..522].copy_from_slice(&0x18du16.to_le_bytes());
                        page[525] = 1;
                    }
                    2 => {
                        let number = if let Lie::Lists(number) = self.lie {
                            number
                        } else {
                            1
                        };
                        page[..4].copy_from_slice(&number.to_le_bytes());
                    }
                    _ => {
                        let blocks = if let Lie::Blocks(blocks) = self.lie {
                            blocks
                        } else {
                            BLOCKS
                        };
                        page[..8].copy_from_slice(&blocks.to_le_bytes());
                        let (metadata, shift) = match self.lie {
                            Lie::Format(metadata, shift) => (metadata, shift),
                            _ => (0, 9),
                        };
                        page[128..130].copy_from_slice(&metadata.to_le_bytes());
                        page[130] = shift;
                        page[74..76].copy_from_slice(&128u16.to_le_bytes());
                        page[76..80].copy_from_slice(&128u32.to_le_bytes());
                    }
                }
                if let Lie::Nonsense(byte) = self.lie {
                    page = [byte; 4096];
                }
                memory.write(words[3], &page);
                (0, 0)
            }
            0x09 if dw10 == 7 => {
                let most = |wanted: u32| wanted.min(7);
                (0, most(dw11 & 0xffff) | most(dw11 >> 16) << 16)
            }
            0x05 => {
                let id = usize::from(dw10 as u16);
                let len = (dw10 >> 16) as u16;
                if len > self.mqes || len == 0 || id != self.queues.len() || dw11 & 1 == 0 {
                    return (0x102, 0);
                }
                self.queues.push(Queue {
                    cq: words[3],
                    len: len + 1,
                    phase: true,
                    vector: (dw11 & 2 != 0).then_some((dw11 >> 16) as usize),
                    ..Queue::default()
                });
                (0, 0)
            }
            0x01 => {
                let id = usize::from(dw10 as u16);
                let (len, cq) = ((dw10 >> 16) as u16 + 1, (dw11 >> 16) as usize);
                match self.queues.get_mut(id) {
                    Some(queue) if cq == id && queue.len == len => {
                        queue.sq = words[3];
                        (0, 0)
                    }
                    _ => (0x100, 0),
                }
            }
            _ => (0x4001, 0),
        }
    }

    fn io(&mut self, words: &[u64; 8], memory: &FakeMemory) -> (u16, u32) {
        let (opcode, namespace) = (words[0] as u8, words[0] >> 32);
        if namespace != 1 {
            return (0x400b, 0);
        }
        if opcode == 0 {
            return (0, 0);
        }
        let blocks = match opcode {
            0x09 | 0x19 => 0,
            _ => u64::from(words[6] as u16) + 1,
        };
        let lba = words[5];
        let past = lba.checked_add(blocks).filter(|past| *past <= BLOCKS);
        if opcode != 0x09 && past.is_none() {
            return (0x4080, 0);
        }
        let bytes = lba as usize * 512..(lba + blocks) as usize * 512;
        match opcode {
            0x01 => {
                let mut at = bytes.start;
                for (iova, len) in self.pages(words, bytes.len(), memory) {
                    let mut page = vec![0; len];
                    if !memory.read(iova, &mut page) {
                        return (0x4004, 0);
                    }
                    self.blocks[at..at + len].copy_from_slice(&page);
                    at += len;
                }
                (0, 0)
            }
            0x02 => {
                let mut at = bytes.start;
                for (iova, len) in self.pages(words, bytes.len(), memory) {
                    if !memory.write(iova, &self.blocks[at..at + len]) {
                        return (0x4004, 0);
                    }
                    at += len;
                }
                (0, 0)
            }
            0x08 => {
                self.blocks[bytes].fill(0);
                (0, 0)
            }
            0x0c | 0x09 => (0, 0),
            _ => (0x4001, 0),
        }
    }

    /// Where the data lies: PRP entries, each but the first a whole page (§4.3).
    fn pages(&mut self, words: &[u64; 8], len: usize, memory: &FakeMemory) -> Vec<(u64, usize)> {
        let mut left = len;
        let mut pages = Vec::new();
        let first = (4096 - words[3] % 4096).min(left as u64) as usize;
        if !words[3].is_multiple_of(4) {
            self.complaints.push(format!("PRP 1 at {:#x}", words[3]));
        }
        pages.push((words[3], first));
        left -= first;
        let mut put = |iova: u64, left: &mut usize, complaints: &mut Vec<String>| {
            if !iova.is_multiple_of(4096) {
                complaints.push(format!("a page at {iova:#x}"));
            }
            let len = 4096.min(*left);
            pages.push((iova, len));
            *left -= len;
        };
        if left > 0 && left <= 4096 {
            put(words[4], &mut left, &mut self.complaints);
        }
        let mut at = words[4];
        while left > 0 {
            if (at + 8).is_multiple_of(4096) && left > 4096 {
                self.complaints
                    .push("a list that goes on in another page".to_owned());
            }
            let mut entry = [0; 8];
            memory.read(at, &mut entry);
            put(u64::from_le_bytes(entry), &mut left, &mut self.complaints);
            at += 8;
        }
        pages
    }
}

impl FakeDevice for FakeNvme {
    fn read(&mut self, place: Place) -> u64 {
        if self.lie == Lie::Gone {
            return u64::MAX;
        }
        match place.offset {
            CAP => 1 << 37 | 1 << 24 | 1 << 16 | u64::from(self.mqes),
            VS => 0x0001_0400,
            CC => self.cc.into(),
            CSTS => {
                let shut = if self.shut { 2 << 2 } else { 0 };
                u64::from(self.ready) | u64::from(self.failed) << 1 | shut
            }
            AQA => self.aqa.into(),
            ASQ => self.asq,
            ACQ => self.acq,
            _ => 0,
        }
    }

    fn write(&mut self, place: Place, value: u64, memory: &FakeMemory) {
        match place.offset {
            CC => {
                let before = std::mem::replace(&mut self.cc, value as u32);
                if value & 0xc000 != 0 {
                    self.shut = true;
                }
                match (before & 1, value & 1) {
                    (0, 1) => self.enable(),
                    (1, 0) if self.lie != Lie::NeverStops => {
                        (self.ready, self.failed, self.shut) = (false, false, false);
                        self.queues.clear();
                    }
                    _ => {}
                }
            }
            AQA => self.aqa = value as u32,
            ASQ => self.asq = value,
            ACQ => self.acq = value,
            at if at >= DOORBELLS && self.ready => {
                let index = (at - DOORBELLS) / 4;
                if index.is_multiple_of(2) {
                    self.work((index / 2) as u16, value as u16, memory);
                }
            }
            _ => {}
        }
    }

    fn config(&mut self) -> &mut [u8; 256] {
        &mut self.config
    }

    fn connect_irq(&mut self, vector: usize, event: EventFd) {
        self.irqs
            .resize_with(self.irqs.len().max(vector + 1), || None);
        self.irqs[vector] = Some(event);
    }
}
