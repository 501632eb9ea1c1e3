//! The PHY's registers, by MDIC, which is at the same place on all of these cards (§13.4.7 of the 8254x
//! manual, §10.2.2 of the 82574's datasheet), and the little of them that is needed: its power.

use std::time::Duration;

use crate::mmio::{Mmio, ReadWrite, Reg};
use crate::wait::poll_until;

const MDIC: Reg<u32, ReadWrite> = Reg::at(0x0020);

const REGADD: u32 = 16;
/// The internal PHY is number 1.
const PHY: u32 = 1 << 21;
const WRITE: u32 = 1 << 26;
const READ: u32 = 2 << 26;
const READY: u32 = 1 << 28;
const ERROR: u32 = 1 << 30;

/// Basic mode control (IEEE 802.3, §22.2.4.1; PHY register 0).
const BMCR: u32 = 0;
/// BMCR: powered down.
const POWER_DOWN: u16 = 1 << 11;

/// 64 bits at 2.5 MHz take 26 us; DPDK waits up to 96 ms, after failures with less.
const BOUND: Duration = Duration::from_millis(100);
/// The PHY answers again so long after it was powered up (DPDK).
const POWER_UP: Duration = Duration::from_micros(300);

fn access<M: Mmio>(bar: &M, register: u32, command: u32) -> Option<u16> {
    bar.set(MDIC, command | PHY | register << REGADD);
    let mut mdic = 0;
    let ready = poll_until(BOUND, || {
        mdic = bar.get(MDIC);
        // All ones is a device that is gone.
        mdic & READY != 0
    });
    (ready && mdic & ERROR == 0).then_some(mdic as u16)
}

/// Powers the PHY up where it is down: a kernel's driver powers it down as it goes, and CTRL.RST leaves it
/// so, with no link ever after. `false` where the PHY does not answer.
pub(in crate::nic) fn power_up<M: Mmio>(bar: &M) -> bool {
    let Some(bmcr) = access(bar, BMCR, READ) else {
        return false;
    };
    if bmcr & POWER_DOWN == 0 {
        return true;
    }
    let up = access(bar, BMCR, WRITE | u32::from(bmcr & !POWER_DOWN));
    std::thread::sleep(POWER_UP);
    up.is_some()
}
