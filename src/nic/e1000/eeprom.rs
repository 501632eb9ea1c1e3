//! The EEPROM, §5: where the Ethernet address is kept.
//!
//! The 82540EM and 82545EM read a word on request (EERD); on the 82544GC software moves the wires
//! itself (EECD), one bit after the other.

use std::time::Duration;

use super::regs::{EECD, EERD, Eecd, Eerd};
use crate::mmio::Mmio;
use crate::nic::{Mac, intel, poll_until};

/// Longest time for one word, and for the wires to be granted.
const BOUND: Duration = Duration::from_millis(100);

/// The Ethernet address; `None` where the EEPROM does not answer or its checksum is wrong.
pub(super) fn mac<M: Mmio>(bar: &M, has_eerd: bool) -> Option<Mac> {
    let read = if has_eerd { read_eerd } else { read_microwire };
    intel::eeprom::mac(|word| read(bar, word))
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
/// sixteen bits come back, each with one beat of the clock.
fn read_microwire<M: Mmio>(bar: &M, word: u8) -> Option<u16> {
    let idle = bar
        .get(EECD)
        .with_ee_sk(false)
        .with_ee_cs(false)
        .with_ee_di(false);
    bar.set(EECD, idle.with_ee_req(true));
    let granted = poll_until(BOUND, || bar.get(EECD).ee_gnt());
    let selected = idle.with_ee_req(true).with_ee_cs(true);
    let data = granted.then(|| {
        bar.set(EECD, selected);
        let command = 0b110 << 6 | u16::from(word & 0x3f);
        for bit in (0..9).rev() {
            beat(bar, selected.with_ee_di(command >> bit & 1 == 1));
        }
        (0..16).fold(0, |data, _| {
            beat(bar, selected);
            data << 1 | u16::from(bar.get(EECD).ee_do())
        })
    });
    bar.set(EECD, idle.with_ee_req(false));
    data
}

/// The clock up and down.
fn beat<M: Mmio>(bar: &M, eecd: Eecd) {
    // §5.3: the Microwire clock is at most 1 MHz; reading STATUS-like registers flushes the write.
    const HALF: Duration = Duration::from_micros(1);
    bar.set(EECD, eecd.with_ee_sk(true));
    std::thread::sleep(HALF);
    bar.set(EECD, eecd.with_ee_sk(false));
    std::thread::sleep(HALF);
}
