//! The statistics registers added up: reading one clears it.

use super::flush;
use crate::mmio::{Mmio, ReadClear, Reg};
use crate::nic::{self, Stats};

type Counter = Reg<u32, ReadClear>;
/// Low and high word: the low one is read first, since reading the high one clears both.
type Long = (Counter, Counter);

/// Registers of the figures in [`Stats`].
pub(in crate::nic) struct StatRegs {
    pub rx_frames: Counter,
    pub rx_bytes: OctetRegs,
    pub tx_frames: Counter,
    pub tx_bytes: OctetRegs,
    /// Frames missed for want of room.
    pub missed: Counter,
    /// Frames that came in with an error, of every kind.
    pub errors: &'static [Counter],
}

/// The octets of one direction, from the destination address through the CRC.
pub(in crate::nic) struct OctetRegs {
    /// Good frames (GOR, GOT).
    pub good: Long,
    /// All frames: bad ones and flow control, too (TOR, TOT).
    pub total: Long,
}

/// Octets counted of either kind.
#[derive(Default)]
struct Octets {
    good: u64,
    total: u64,
}

impl Octets {
    /// Octets of `frames` good frames.
    ///
    /// No good frame is without octets: a card that has counted frames and not one good octet does not
    /// count those (e1000 of QEMU 11, whose totals are right), and the total is the nearest that there is.
    /// Only sums are compared: frames that come between the reads of two registers do not look like that.
    fn of(&self, frames: u64) -> u64 {
        match self.good {
            0 if frames > 0 => self.total,
            good => good,
        }
    }
}

/// Sums since the start.
#[derive(Default)]
pub(in crate::nic) struct Counters {
    stats: Stats,
    rx: Octets,
    tx: Octets,
}

/// Counts of the device since they were last read.
struct Fresh {
    rx_frames: u64,
    tx_frames: u64,
    rx_errors: u64,
    missed: u64,
    rx: Octets,
    tx: Octets,
}

impl Fresh {
    fn read<M: Mmio>(bar: &M, regs: &StatRegs) -> Self {
        let one = |reg: Counter| u64::from(bar.get(reg));
        let two = |(low, high): Long| one(low) | one(high) << 32;
        let octets = |regs: &OctetRegs| Octets {
            good: two(regs.good),
            total: two(regs.total),
        };
        Self {
            missed: one(regs.missed),
            rx_frames: one(regs.rx_frames),
            tx_frames: one(regs.tx_frames),
            rx_errors: regs.errors.iter().copied().map(one).sum(),
            rx: octets(&regs.rx_bytes),
            tx: octets(&regs.tx_bytes),
        }
    }
}

impl Counters {
    /// Adds what the device has counted since the last time. A sum that has no place stays at its end,
    /// as the device's own counters do: they are the device's word, and so may be anything.
    pub(in crate::nic) fn read<M: Mmio>(&mut self, bar: &M, regs: &StatRegs) -> Stats {
        self.stats.counted_by = nic::Counter::Card;
        // All ones is a device that is gone: what it counted last is what there is. It may go between
        // two reads, so it is asked before and after.
        let is_gone = || flush(bar) == u32::MAX;
        self.stats.rx_missed.get_or_insert(0);
        if is_gone() {
            return self.stats;
        }
        let fresh = Fresh::read(bar, regs);
        if is_gone() {
            return self.stats;
        }
        let add = |sum: &mut u64, more: u64| *sum = sum.saturating_add(more);
        let stats = &mut self.stats;
        add(stats.rx_missed.get_or_insert(0), fresh.missed);
        add(&mut stats.rx_frames, fresh.rx_frames);
        add(&mut stats.tx_frames, fresh.tx_frames);
        add(&mut stats.rx_errors, fresh.rx_errors);
        for (sum, fresh) in [(&mut self.rx, fresh.rx), (&mut self.tx, fresh.tx)] {
            add(&mut sum.good, fresh.good);
            add(&mut sum.total, fresh.total);
        }
        stats.rx_bytes = self.rx.of(stats.rx_frames);
        stats.tx_bytes = self.tx.of(stats.tx_frames);
        *stats
    }
}
