//! The statistics registers added up: reading one clears it.

use super::flush;
use crate::mmio::{Mmio, ReadClear, Reg};
use crate::nic::Stats;

type Counter = Reg<u32, ReadClear>;
/// Low and high word: the low one is read first, since reading the high one clears both.
type Long = (Counter, Counter);

/// Where a card has what [`Stats`] asks for.
pub(in crate::nic) struct StatRegs {
    pub rx_frames: Counter,
    pub rx_bytes: Long,
    pub tx_frames: Counter,
    pub tx_bytes: Long,
    /// Frames missed for want of room.
    pub missed: Counter,
    /// Frames that came in with an error, of every kind.
    pub errors: &'static [Counter],
}

/// What was counted since the start.
#[derive(Default)]
pub(in crate::nic) struct Counters(Stats);

impl Counters {
    /// Adds what the device has counted since the last time.
    pub(in crate::nic) fn read<M: Mmio>(&mut self, bar: &M, regs: &StatRegs) -> Stats {
        // All ones is a device that is gone: what it counted last is what there is.
        if flush(bar) == u32::MAX {
            return self.0;
        }
        let one = |reg: Counter| u64::from(bar.get(reg));
        let two = |(low, high): Long| one(low) | one(high) << 32;
        let Self(stats) = self;
        stats.rx_frames += one(regs.rx_frames);
        stats.rx_bytes += two(regs.rx_bytes);
        stats.tx_frames += one(regs.tx_frames);
        stats.tx_bytes += two(regs.tx_bytes);
        stats.rx_missed += one(regs.missed);
        stats.rx_errors += regs.errors.iter().copied().map(one).sum::<u64>();
        *stats
    }
}
