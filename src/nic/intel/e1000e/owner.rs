//! Ownership of the MDIO lines and the EEPROM: the firmware's, until software asks for them (§10.2.2, EXTCNF_CTRL).

use std::time::Duration;

use super::regs::EXTCNF_CTRL;
use crate::mmio::Mmio;
use crate::nic::intel::quirks::Quirks;
use crate::wait::poll_until;

/// Longest time that the firmware keeps them (Linux and DPDK: 10 times 2 ms).
const BOUND: Duration = Duration::from_millis(20);

/// Runs `work` while software owns them (`Quirks::mdio_owner`), and gives them back. If the firmware does not let go,
/// the work is done all the same: a card is better reset than not.
pub(super) fn with_mdio<M: Mmio, T>(bar: &M, quirks: &Quirks, work: impl FnOnce() -> T) -> T {
    if !quirks.mdio_owner {
        return work();
    }
    let owned = poll_until(BOUND, || {
        // The bit sticks once they are free.
        bar.update(EXTCNF_CTRL, |ctrl| ctrl.with_mdio_sw_ownership(true));
        bar.get(EXTCNF_CTRL).mdio_sw_ownership()
    });
    if !owned {
        tracing::debug!("the firmware keeps the MDIO lines");
    }
    let done = work();
    bar.update(EXTCNF_CTRL, |ctrl| ctrl.with_mdio_sw_ownership(false));
    done
}
