//! Rules of an 8254x's silicon that QEMU's model forgives: it watches a [`FakeE1000`](super::e1000::FakeE1000) and
//! complains. Written from Intel's specification updates and from what public drivers work around, with its own
//! constants, so that it can disagree with the driver's table.

use std::time::{Duration, Instant};

pub const I82540EM: u16 = 0x100e;
pub const I82544GC: u16 = 0x100c;
pub const I82545EM: u16 = 0x100f;

const CTRL: usize = 0x0000;
const EECD: usize = 0x0010;
const CTRL_EXT: usize = 0x0018;
const RCTL: usize = 0x0100;
const TCTL: usize = 0x0400;
const PBA: usize = 0x1000;

const RST: u32 = 1 << 26;
const EE_RST: u32 = 1 << 13;

pub struct Silicon {
    pub id: u16,
    /// STATUS.PCIX_MODE
    pub pcix: bool,
    /// STATUS.FD
    pub full_duplex: bool,
    pub bmcr: u16,
    pub complaints: Vec<String>,
    /// PBA as the last reset found it: what counts.
    pub pba: u32,
    /// How often it was reset by memory, and by its ports.
    pub resets: (usize, usize),
    written_pba: u32,
    /// When both units went off.
    quiet_since: Option<Instant>,
    /// Until when the EEPROM's content overwrites registers; none before it was asked for (82544).
    reload: Option<Instant>,
    eeprom: Microwire,
    tx: Frame,
    after_tso: bool,
}

/// What the data descriptors of a frame were so far.
#[derive(Default)]
struct Frame {
    lengths: Vec<usize>,
    tso: Option<(usize, usize)>,
}

/// The EEPROM at EECD's wires.
struct Microwire {
    level: u32,
    since: Instant,
    /// Was any register read since? Else the write may still be on its way.
    flushed: bool,
    bits: Vec<bool>,
    out: u32,
}

impl Silicon {
    pub fn new(id: u16) -> Self {
        Self {
            id,
            pcix: false,
            full_duplex: true,
            bmcr: 0x1140,
            complaints: Vec::new(),
            pba: 0,
            resets: (0, 0),
            // What nobody set.
            written_pba: 0x0007,
            quiet_since: None,
            reload: Some(Instant::now()),
            eeprom: Microwire {
                level: 0,
                since: Instant::now(),
                flushed: true,
                bits: Vec::new(),
                out: 1,
            },
            tx: Frame::default(),
            after_tso: false,
        }
    }

    pub fn complain(&mut self, what: impl Into<String>) {
        self.complaints.push(what.into());
    }

    /// A buffer or descriptor that the device writes.
    pub fn written(&mut self, what: &str, iova: u64, len: usize) {
        let end = iova + len as u64 - 1;
        if self.id == I82545EM && iova >> 16 != end >> 16 {
            self.complain(format!("{what} at {iova:#x} goes across 64 KiB"));
        }
    }

    /// A data descriptor of a frame; `context` is header length and MSS where it is to be cut.
    pub fn data(&mut self, iova: u64, len: usize, context: Option<(usize, usize)>, last: bool) {
        if len == 0 {
            return self.complain("an empty descriptor");
        }
        let first = self.tx.lengths.is_empty();
        if first {
            self.tx.tso = context;
        }
        if self.pcix && first && len > 2015 {
            self.complain(format!("a first descriptor of {len} bytes on PCI-X"));
        }
        let end = iova + len as u64 - 1;
        if self.pcix && self.id == I82544GC && len > 4 && end & 4 == 0 {
            self.complain(format!("a buffer that ends at {end:#x} on PCI-X"));
        }
        if let Some((headers, mss)) = self.tx.tso {
            if len > 4 * mss {
                self.complain(format!("{len} bytes a descriptor, and an MSS of {mss}"));
            }
            if first && len < headers {
                self.complain(format!("{len} bytes of {headers} of headers"));
            }
        }
        self.tx.lengths.push(len);
        if !last {
            return;
        }
        let frame = std::mem::take(&mut self.tx);
        let bytes: usize = frame.lengths.iter().sum();
        if frame.tso.is_some() {
            if len > 8 {
                self.complain(format!("the last {len} bytes to be cut are reported early"));
            }
        } else {
            if bytes < 60 {
                self.complain(format!("a frame of {bytes} bytes, padded by hardware"));
            }
            if self.after_tso && self.id != I82544GC && frame.lengths.len() == 1 {
                self.complain("a frame after one to be cut is reported early");
            }
        }
        self.after_tso = frame.tso.is_some();
    }

    pub fn status(&self) -> u32 {
        let up = self.bmcr & 1 << 11 == 0;
        0x80 | u32::from(self.full_duplex) | u32::from(up) << 1 | u32::from(self.pcix) << 13
    }

    /// A register is read.
    pub fn read(&mut self, offset: usize) -> Option<u32> {
        self.eeprom.flushed = true;
        (offset == EECD).then_some(self.eeprom.level | self.eeprom.out << 3)
    }

    /// A register is written, by memory or by the ports; gives whether that resets the device.
    pub fn write(&mut self, offset: usize, value: u32, now: &[u32], by_ports: bool) -> bool {
        let reset = offset == CTRL && value & RST != 0;
        match self.reload {
            Some(until) if Instant::now() < until && !reset => {
                self.complain(format!("{offset:#x} is overwritten by the EEPROM's reload"));
            }
            // Quieting it once more is all that may come in between.
            None if [RCTL, TCTL].contains(&offset) && value & 2 != 0 => {
                self.complain("started, and the EEPROM was not loaded");
            }
            _ => {}
        }
        match offset {
            EECD if self.id == I82544GC => self.wires(value),
            CTRL_EXT if value & EE_RST != 0 => {
                self.reload = Some(Instant::now() + Duration::from_millis(2));
            }
            PBA => self.written_pba = value,
            _ => {}
        }
        let unit = |register: usize| match register == offset {
            true => value & 2 != 0,
            false => now[register / 4] & 2 != 0,
        };
        match unit(RCTL) || unit(TCTL) {
            true => self.quiet_since = None,
            false => drop(self.quiet_since.get_or_insert_with(Instant::now)),
        }
        if reset {
            self.reset(by_ports);
        }
        reset
    }

    fn reset(&mut self, by_ports: bool) {
        match by_ports {
            true => self.resets.1 += 1,
            false => self.resets.0 += 1,
        }
        let quiet = self.quiet_since.map(|since| since.elapsed());
        if quiet.is_none_or(|quiet| quiet < Duration::from_millis(10)) {
            self.complain(format!("reset after {quiet:?} of quiet"));
        }
        self.pba = self.written_pba;
        self.tx = Frame::default();
        self.after_tso = false;
        self.reload = match self.id {
            I82544GC => None,
            _ => Some(Instant::now() + Duration::from_millis(5)),
        };
    }

    /// A 93C46: takes DI as SK rises, gives DO after it.
    fn wires(&mut self, value: u32) {
        const SK: u32 = 1;
        const CS: u32 = 2;
        const DI: u32 = 4;
        let wires = &mut self.eeprom;
        let before = std::mem::replace(&mut wires.level, value & 7);
        let held = wires.since.elapsed();
        wires.since = Instant::now();
        let flushed = std::mem::replace(&mut wires.flushed, false);
        let rises = value & SK != 0 && before & SK == 0;
        if !flushed || held < Duration::from_micros(50) {
            let how = if flushed { "held" } else { "on its way" };
            return self.complain(format!("a level of the wires was {how} for {held:?}"));
        }
        if rises && (value ^ before) & DI != 0 {
            return self.complain("DI changed as the clock rose");
        }
        if value & CS == 0 {
            wires.bits.clear();
            wires.out = 1;
        } else if rises {
            wires.bits.push(value & DI != 0);
            let number =
                |bits: &[bool]| bits.iter().fold(0, |sum, bit| sum << 1 | usize::from(*bit));
            if wires.bits.len() > 9 && wires.bits[..3] == [true, true, false] {
                let word = super::e1000::eeprom(number(&wires.bits[3..9]));
                let nth = wires.bits.len() - 10;
                wires.out = u32::from(word) >> (15 - nth.min(15)) & 1;
            }
        }
    }
}
