//! The PCI Express capability (PCI Express 4.0, §7.5.3): what a driver must know of its function's link.

use super::config::Config;
use crate::error::Result;

/// Id of the capability.
const EXPRESS: u8 = 0x10;
/// Link Control, within it (§7.5.3.7).
const LINK_CONTROL: u16 = 0x10;
/// Link Control: ASPM Control.
const ASPM: u8 = 0b11;

bitflags::bitflags! {
    /// Active state power management of a link: what it does by itself when it is idle (Link Control,
    /// §7.5.3.7).
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Aspm: u8 {
        /// L0s: one direction sleeps.
        const L0S = 1 << 0;
        /// L1: both do.
        const L1 = 1 << 1;
    }
}

impl std::fmt::Display for Aspm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match (self.contains(Self::L0S), self.contains(Self::L1)) {
            (true, true) => "L0s and L1",
            (true, false) => "L0s",
            (false, true) => "L1",
            (false, false) => "nothing",
        })
    }
}

/// Offset of a function's Link Control; `None` without a link.
fn link_control(config: &(impl Config + ?Sized)) -> Result<Option<u16>> {
    let found = config.capabilities()?;
    let express = found.iter().find(|capability| capability.id == EXPRESS);
    Ok(express.map(|express| express.offset + LINK_CONTROL))
}

/// The parts of ASPM that are on at a function's end of its link; none without a link.
///
/// # Errors
/// As [`Config::read`].
pub fn aspm(config: &(impl Config + ?Sized)) -> Result<Aspm> {
    let Some(place) = link_control(config)? else {
        return Ok(Aspm::empty());
    };
    Ok(Aspm::from_bits_truncate(config.read8(place)? & ASPM))
}

/// Turns ASPM off at a function's end of its link; gives what is on all the same, as where writes do not
/// get through.
///
/// # Errors
/// As [`Config::read`].
pub fn disable_aspm(config: &(impl Config + ?Sized)) -> Result<Aspm> {
    if let Some(place) = link_control(config)? {
        let control = config.read8(place)?;
        if control & ASPM != 0 {
            config.write(place, &[control & !ASPM])?;
        }
    }
    aspm(config)
}
