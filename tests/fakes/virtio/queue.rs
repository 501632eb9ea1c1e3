//! The device's side of a virtqueue, split or packed, written from the specification (virtio 1.2,
//! §2.7 and §2.8) with its own constants, so that it can disagree with the driver. It checks what
//! the driver made, and panics where the specification forbids it; it can lie by hand.

use pinwire::backend::FakeMemory;

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// What driver and device agreed on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Agreed {
    pub packed: bool,
    pub event_idx: bool,
    pub indirect: bool,
    pub in_order: bool,
}

/// A chain as the device sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    pub id: u16,
    /// Descriptors in the ring.
    pub count: u16,
    /// Address, length, "the device writes it".
    pub pieces: Vec<(u64, u32, bool)>,
}

impl Chain {
    pub fn writable(&self) -> u32 {
        let written = self.pieces.iter().filter(|piece| piece.2);
        written.map(|piece| piece.1).sum()
    }

    /// All bytes that the device may read.
    pub fn read(&self, memory: &FakeMemory) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(addr, len, _) in self.pieces.iter().filter(|piece| !piece.2) {
            let start = bytes.len();
            bytes.resize(start + len as usize, 0);
            memory.read(addr, &mut bytes[start..]);
        }
        bytes
    }

    /// Writes as much of `bytes` as there is room for; gives how many went.
    pub fn write(&self, memory: &FakeMemory, bytes: &[u8]) -> usize {
        let mut done = 0;
        for &(addr, len, _) in self.pieces.iter().filter(|piece| piece.2) {
            let now = (bytes.len() - done).min(len as usize);
            memory.write(addr, &bytes[done..done + now]);
            done += now;
        }
        done
    }
}

/// A place in a packed ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct At {
    offset: u16,
    wrap: bool,
}

impl At {
    fn advance(&mut self, by: u16, size: u16) {
        for _ in 0..by {
            self.offset += 1;
            if self.offset == size {
                (self.offset, self.wrap) = (0, !self.wrap);
            }
        }
    }

    fn word(self) -> u16 {
        self.offset | u16::from(self.wrap) << 15
    }
}

/// One queue.
#[derive(Debug, Clone)]
pub struct Queue {
    pub size: u16,
    pub desc: u64,
    pub driver: u64,
    pub device: u64,
    agreed: Agreed,
    /// Split: how many chains were taken, and used.
    last_avail: u16,
    pub used_idx: u16,
    /// Packed: the next descriptor to take, and to use.
    avail_at: At,
    used_at: At,
    /// Entries (split) or descriptors (packed) used since an interrupt was last considered, as
    /// places.
    since: Vec<u16>,
}

fn get16(memory: &FakeMemory, at: u64) -> u16 {
    let mut bytes = [0; 2];
    assert!(memory.read(at, &mut bytes), "a ring outside mapped memory");
    u16::from_le_bytes(bytes)
}

fn put16(memory: &FakeMemory, at: u64, value: u16) {
    assert!(memory.write(at, &value.to_le_bytes()));
}

/// Address, length, and the two halves after them.
fn get_desc(memory: &FakeMemory, at: u64) -> (u64, u32, u16, u16) {
    let mut d = [0; 16];
    assert!(
        memory.read(at, &mut d),
        "a descriptor outside mapped memory"
    );
    (
        u64::from_le_bytes(d[..8].try_into().unwrap()),
        u32::from_le_bytes(d[8..12].try_into().unwrap()),
        u16::from_le_bytes([d[12], d[13]]),
        u16::from_le_bytes([d[14], d[15]]),
    )
}

impl Queue {
    pub fn new(size: u16, desc: u64, driver: u64, device: u64, agreed: Agreed) -> Self {
        let (driver_align, device_align) = if agreed.packed { (4, 4) } else { (2, 4) };
        assert!(desc.is_multiple_of(16), "§2.7, §2.8.10: alignment");
        assert!(driver.is_multiple_of(driver_align) && device.is_multiple_of(device_align));
        assert!(agreed.packed || size.is_power_of_two(), "§2.7: queue size");
        let start = At {
            offset: 0,
            wrap: true,
        };
        Self {
            size,
            desc,
            driver,
            device,
            agreed,
            last_avail: 0,
            used_idx: 0,
            avail_at: start,
            used_at: start,
            since: Vec::new(),
        }
    }

    pub fn agreed(&self) -> Agreed {
        self.agreed
    }

    /// Is there a chain to take?
    pub fn has_available(&self, memory: &FakeMemory) -> bool {
        if self.agreed.packed {
            let flags = get16(
                memory,
                self.desc + 16 * u64::from(self.avail_at.offset) + 14,
            );
            let wrap = self.avail_at.wrap;
            (flags & AVAIL != 0) == wrap && (flags & USED != 0) != wrap
        } else {
            self.available_split(memory) > 0
        }
    }

    fn available_split(&self, memory: &FakeMemory) -> u16 {
        let ahead = get16(memory, self.driver + 2).wrapping_sub(self.last_avail);
        assert!(ahead <= self.size, "more chains than the ring has room for");
        ahead
    }

    /// Takes the next chain.
    pub fn take(&mut self, memory: &FakeMemory) -> Option<Chain> {
        if !self.has_available(memory) {
            return None;
        }
        let chain = if self.agreed.packed {
            self.take_packed(memory)
        } else {
            self.take_split(memory)
        };
        let first_written = chain.pieces.iter().position(|piece| piece.2);
        let first_written = first_written.unwrap_or(chain.pieces.len());
        assert!(
            chain.pieces[first_written..].iter().all(|piece| piece.2),
            "a readable piece after a writable one"
        );
        assert!(chain.pieces.len() <= usize::from(self.size), "a long chain");
        assert!(
            chain.pieces.iter().all(|piece| piece.1 > 0),
            "a descriptor of length 0"
        );
        Some(chain)
    }

    fn take_split(&mut self, memory: &FakeMemory) -> Chain {
        let place = u64::from(self.last_avail % self.size);
        let id = get16(memory, self.driver + 4 + 2 * place);
        self.last_avail = self.last_avail.wrapping_add(1);
        let mut pieces = Vec::new();
        let (mut at, mut count) = (id, 0);
        loop {
            assert!(at < self.size, "a descriptor beyond the table");
            count += 1;
            assert!(count <= self.size, "a chain that loops");
            let (addr, len, flags, next) = get_desc(memory, self.desc + 16 * u64::from(at));
            if flags & INDIRECT != 0 {
                assert!(self.agreed.indirect && flags & NEXT == 0);
                pieces.extend(self.table_split(memory, addr, len));
                break;
            }
            pieces.push((addr, len, flags & WRITE != 0));
            if flags & NEXT == 0 {
                break;
            }
            if self.agreed.in_order {
                assert_eq!(next, (at + 1) % self.size, "§2.7.5.2: in order");
            }
            at = next;
        }
        Chain { id, count, pieces }
    }

    fn table_split(&self, memory: &FakeMemory, table: u64, bytes: u32) -> Vec<(u64, u32, bool)> {
        assert!(bytes > 0 && bytes.is_multiple_of(16), "a table of {bytes}");
        let (mut pieces, mut at) = (Vec::new(), 0);
        loop {
            assert!(u32::from(at) < bytes / 16 && pieces.len() < 0x8000);
            let (addr, len, flags, next) = get_desc(memory, table + 16 * u64::from(at));
            assert_eq!(flags & INDIRECT, 0, "a table in a table");
            pieces.push((addr, len, flags & WRITE != 0));
            if flags & NEXT == 0 {
                return pieces;
            }
            if self.agreed.in_order {
                assert_eq!(next, at + 1, "§2.7.5.3.1: in order");
            }
            at = next;
        }
    }

    fn take_packed(&mut self, memory: &FakeMemory) -> Chain {
        let (mut pieces, mut count) = (Vec::new(), 0);
        loop {
            let At { offset, wrap } = self.avail_at;
            let (addr, len, id, flags) = get_desc(memory, self.desc + 16 * u64::from(offset));
            assert_eq!(flags & AVAIL != 0, wrap, "a chain that is not whole");
            assert_ne!(flags & USED != 0, wrap, "a chain that is not whole");
            self.avail_at.advance(1, self.size);
            count += 1;
            assert!(count <= self.size, "a chain longer than the ring");
            if flags & INDIRECT != 0 {
                assert!(self.agreed.indirect && count == 1 && flags & NEXT == 0);
                assert!(len > 0 && len.is_multiple_of(16), "a table of {len}");
                for nth in 0..u64::from(len / 16) {
                    let (addr, len, _, flags) = get_desc(memory, addr + 16 * nth);
                    assert_eq!(flags & !WRITE, 0, "§2.8.19.1: only WRITE in a table");
                    pieces.push((addr, len, flags & WRITE != 0));
                }
            } else {
                pieces.push((addr, len, flags & WRITE != 0));
            }
            if flags & NEXT == 0 {
                return Chain { id, count, pieces };
            }
        }
    }

    /// Gives `chain` back with `written` bytes in it.
    pub fn give(&mut self, memory: &FakeMemory, chain: &Chain, written: u32) {
        self.give_up_to(memory, std::slice::from_ref(chain), written);
    }

    /// Gives `chains` back with one entry, which is the last one's (IN_ORDER).
    pub fn give_up_to(&mut self, memory: &FakeMemory, chains: &[Chain], written: u32) {
        let last = chains.last().expect("at least one");
        let many = chains.len() as u16;
        assert!(many == 1 || self.agreed.in_order);
        let descriptors = chains.iter().map(|chain| chain.count).sum();
        let skip = if self.agreed.packed {
            descriptors
        } else {
            many
        };
        self.say_used(memory, last.id.into(), written, skip);
    }

    /// Writes a used entry, true or not, and goes on by `skip` entries or descriptors.
    pub fn say_used(&mut self, memory: &FakeMemory, id: u32, written: u32, skip: u16) {
        if !self.agreed.packed {
            let entry = self.device + 4 + 8 * u64::from(self.used_idx % self.size);
            memory.write(entry, &id.to_le_bytes());
            memory.write(entry + 4, &written.to_le_bytes());
            for _ in 0..skip {
                self.since.push(self.used_idx);
                self.used_idx = self.used_idx.wrapping_add(1);
            }
            put16(memory, self.device + 2, self.used_idx);
            return;
        }
        let At { offset, wrap } = self.used_at;
        let at = self.desc + 16 * u64::from(offset);
        memory.write(at + 8, &written.to_le_bytes());
        put16(memory, at + 12, id as u16);
        let wrote = if written > 0 { WRITE } else { 0 };
        put16(memory, at + 14, wrote | if wrap { AVAIL | USED } else { 0 });
        for _ in 0..skip {
            self.since.push(self.used_at.word());
            self.used_at.advance(1, self.size);
        }
    }

    /// Must the driver be interrupted for what was used since this was last asked?
    pub fn must_interrupt(&mut self, memory: &FakeMemory) -> bool {
        let since = std::mem::take(&mut self.since);
        if since.is_empty() {
            return false;
        }
        if !self.agreed.packed {
            return if self.agreed.event_idx {
                since.contains(&get16(memory, self.driver + 4 + 2 * u64::from(self.size)))
            } else {
                get16(memory, self.driver) & 1 == 0
            };
        }
        match get16(memory, self.driver + 2) {
            0 => true,
            1 => false,
            2 => {
                assert!(self.agreed.event_idx, "§2.8.10: only with EVENT_IDX");
                since.contains(&get16(memory, self.driver))
            }
            flags => panic!("§2.8.14: event flags {flags}"),
        }
    }

    /// Wants to be told of the next chain. `true`: there is one already.
    pub fn ask(&mut self, memory: &FakeMemory) -> bool {
        match (self.agreed.packed, self.agreed.event_idx) {
            (false, false) => put16(memory, self.device, 0),
            (false, true) => {
                let event = self.device + 4 + 8 * u64::from(self.size);
                put16(memory, event, self.last_avail);
            }
            (true, false) => put16(memory, self.device + 2, 0),
            (true, true) => {
                put16(memory, self.device, self.avail_at.word());
                put16(memory, self.device + 2, 2);
            }
        }
        self.has_available(memory)
    }

    /// Wants to be told of nothing (as far as it can say so).
    pub fn be_quiet(&mut self, memory: &FakeMemory) {
        match (self.agreed.packed, self.agreed.event_idx) {
            (false, false) => put16(memory, self.device, 1),
            (false, true) => {
                let event = self.device + 4 + 8 * u64::from(self.size);
                put16(memory, event, self.last_avail.wrapping_sub(0x8000));
            }
            (true, _) => put16(memory, self.device + 2, 1),
        }
    }

    /// Where the next chain will be, as NOTIFICATION_DATA says it, §2.9.
    pub fn next_word(&self) -> u16 {
        if self.agreed.packed {
            self.avail_at.word()
        } else {
            self.last_avail
        }
    }
}
