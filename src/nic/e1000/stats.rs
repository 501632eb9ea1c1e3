//! The statistics registers, §13.7, added up: reading one clears it.

use super::regs::*;
use crate::mmio::{Mmio, ReadClear, Reg};
use crate::nic::Stats;

/// What was counted since the start.
#[derive(Default)]
pub(super) struct Counters(Stats);

impl Counters {
    /// Adds what the device has counted since the last time.
    pub(super) fn read<M: Mmio>(&mut self, bar: &M) -> Stats {
        // All ones is a device that is gone: what it counted last is what there is.
        if bar.get(STATUS).into_bits() == u32::MAX {
            return self.0;
        }
        let one = |reg: Reg<u32, ReadClear>| u64::from(bar.get(reg));
        // The low word first: reading the high one clears both.
        let two = |low, high| one(low) | one(high) << 32;
        let Self(stats) = self;
        stats.rx_frames += one(GPRC);
        stats.rx_bytes += two(GORCL, GORCH);
        stats.tx_frames += one(GPTC);
        stats.tx_bytes += two(GOTCL, GOTCH);
        // Not RNBC: those frames waited in the FIFO, or are in MPC, too.
        stats.rx_missed += one(MPC);
        stats.rx_errors += [CRCERRS, ALGNERRC, SYMERRS, RXERRC, SEC, CEXTERR, RLEC]
            .into_iter()
            .chain([RUC, RFC, ROC, RJC])
            .map(one)
            .sum::<u64>();
        *stats
    }
}
