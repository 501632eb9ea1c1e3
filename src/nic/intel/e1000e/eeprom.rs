//! The EEPROM, one word on request. EERD is not where the 8254x has its bits: DONE is bit 1, and the
//! word's number begins at bit 2.

use std::time::Duration;

use super::regs::{EEC, EERD, Eerd};
use crate::mmio::Mmio;
use crate::nic::{Mac, intel};
use crate::wait::poll_until;

/// Longest time for one word.
const BOUND: Duration = Duration::from_millis(100);

/// The Ethernet address; `None` where the EEPROM does not answer or its checksum is wrong.
pub(super) fn mac<M: Mmio>(bar: &M) -> Option<Mac> {
    intel::eeprom::mac(|word| read(bar, word))
}

/// One word by the EEPROM read register, §10.2.2.
fn read<M: Mmio>(bar: &M, word: u8) -> Option<u16> {
    bar.set(
        EERD,
        Eerd::new().with_start(true).with_addr(u16::from(word)),
    );
    let mut eerd = Eerd::new();
    poll_until(BOUND, || {
        eerd = bar.get(EERD);
        eerd.done()
    })
    .then(|| eerd.data())
}

/// After a reset the device reads its settings from the EEPROM; until it has, registers may still
/// change. `false` where it does not get through, as one without an EEPROM.
pub(super) fn await_auto_read<M: Mmio>(bar: &M) -> bool {
    poll_until(BOUND, || bar.get(EEC).auto_rd())
}
