//! The EEPROM, §5: where the Ethernet address is kept.
//!
//! The 82540EM and 82545EM read a word on request (EERD); on the 82544GC software moves the wires
//! itself (EECD), one bit after the other.

use std::time::Duration;

use super::regs::{EECD, EERD, Eecd, Eerd};
use crate::mmio::Mmio;
use crate::nic::Mac;
use crate::nic::intel::quirks::Eeprom;
use crate::nic::intel::{self, flush};
use crate::wait::poll_until;

/// Longest time for one word.
const BOUND: Duration = Duration::from_millis(100);

/// The Ethernet address; `None` where the EEPROM does not answer or its checksum is wrong.
pub(super) fn mac<M: Mmio>(bar: &M, eeprom: Eeprom) -> Option<Mac> {
    intel::eeprom::mac(|word| match eeprom {
        Eeprom::Eerd => read_eerd(bar, word),
        Eeprom::Microwire(hold) => Some(read_microwire(bar, hold, word)),
    })
}

/// One word by the EEPROM read register, §13.4.4.
fn read_eerd<M: Mmio>(bar: &M, word: u8) -> Option<u16> {
    bar.set(EERD, Eerd::new().with_start(true).with_addr(word));
    let mut eerd = Eerd::new();
    poll_until(BOUND, || {
        eerd = bar.get(EERD);
        eerd.done()
    })
    .then(|| eerd.data())
}

/// One word by the Microwire protocol, §5.3: a start bit, the opcode 10, six bits of address, and
/// sixteen bits come back, each with one beat of the clock. Between two words the EEPROM is not selected.
fn read_microwire<M: Mmio>(bar: &M, hold: Duration, word: u8) -> u16 {
    let idle = bar
        .get(EECD)
        .with_ee_sk(false)
        .with_ee_cs(false)
        .with_ee_di(false);
    let set = |eecd| level(bar, eecd, hold);
    set(idle);
    let selected = idle.with_ee_cs(true);
    set(selected);
    let command = 0b110 << 6 | u16::from(word & 0x3f);
    for bit in (0..9).rev() {
        // The bit stands before the clock rises: the EEPROM takes it as it does.
        let bit = selected.with_ee_di(command >> bit & 1 == 1);
        set(bit);
        set(bit.with_ee_sk(true));
        set(bit);
    }
    set(selected);
    let mut data = 0;
    for _ in 0..16 {
        set(selected.with_ee_sk(true));
        data = data << 1 | u16::from(bar.get(EECD).ee_do());
        set(selected);
    }
    set(idle);
    data
}

/// Puts the wires at a level and holds it (`Eeprom::Microwire`).
fn level<M: Mmio>(bar: &M, eecd: Eecd, hold: Duration) {
    bar.set(EECD, eecd);
    // The write is posted: without a read it may arrive after the pause, together with the next.
    flush(bar);
    std::thread::sleep(hold);
}
