//! Intel's gigabit cards, from the 8254x to the 82574: all that they have in common.
//!
//! Both rings and the transmit descriptors are the same on all of them, and so are the pair, what a card does
//! once it is started ([`card`]), the statistics, the EEPROM's content, the filter tables, and how received
//! buffers become frames. A card's own folder has its own registers and receive descriptors, with the
//! sections of its own datasheet, and hands those that this part needs over.

#![warn(clippy::arithmetic_side_effects)]

pub(in crate::nic) mod assemble;
pub(in crate::nic) mod card;
mod cut;
pub mod desc;
pub mod e1000;
pub mod e1000e;
pub(in crate::nic) mod eeprom;
pub(in crate::nic) mod filter;
pub(in crate::nic) mod pair;
pub(in crate::nic) mod phy;
pub(in crate::nic) mod quirks;
pub(in crate::nic) mod rx;
pub(in crate::nic) mod rx_split;
pub(in crate::nic) mod stats;
pub(in crate::nic) mod tx;

pub use card::Card as IntelCard;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::tx::{MIN_FRAME, Tx};
use super::{DeviceId, Mac, NicConfig};
use crate::backend::Backend;
use crate::dma::{DmaSpace, Pool};
use crate::error::{Error, Result};
use crate::mmio::Mmio;
use crate::nic::Frame;

/// Intel's PCI vendor id.
pub const VENDOR: u16 = 0x8086;

/// Returns the one of `models` that is behind `backend`.
pub(in crate::nic) fn model_of<T: Copy>(
    backend: &impl Backend,
    models: &[(DeviceId, T)],
) -> Result<(&'static str, T)> {
    let (vendor, id) = backend.ids()?;
    let found = models.iter().find(|(known, _)| known.is(vendor, id));
    found
        .map(|(known, model)| (known.name, *model))
        .ok_or_else(|| {
            let known = models.iter().map(|(known, _)| *known);
            super::unsupported(backend.name(), (vendor, id), known)
        })
}

/// Checks the ring lengths of a configuration: the length registers count 128 bytes.
pub(in crate::nic) fn check_config(config: &NicConfig, max_frame: usize) -> Result<()> {
    for (ring, len) in [("tx_ring", config.tx_ring), ("rx_ring", config.rx_ring)] {
        if !len.is_power_of_two() || !(8..=4096).contains(&len) {
            return Err(Error::Usage(format!(
                "a ring of {len} descriptors ({ring}): it must be a power of two from 8 to 4096"
            )));
        }
    }
    if config.max_frame > max_frame {
        return Err(Error::Usage(format!(
            "frames of {} bytes: the card receives up to {max_frame}",
            config.max_frame
        )));
    }
    Ok(())
}

/// Interrupt throttling counts 256 ns, in 16 bits.
pub(in crate::nic) fn throttle_ticks(interval: Duration) -> u32 {
    interval.as_nanos().div_ceil(256).min(0xffff) as u32
}

/// The longest frame that [`limit`] sends, in bytes: one buffer.
const LIMIT_BUFFER: usize = 2048;

/// [`Nic::limit`](super::Nic::limit) on the ring `tx` of the card `mac`. The frame comes back with an
/// error: the device must not be reading it when it is freed.
pub(in crate::nic) fn limit<M: Mmio>(
    tx: &mut Tx<M>,
    dma: &Arc<dyn DmaSpace>,
    mac: Mac,
    (len, batch, frames): (usize, usize, u64),
) -> std::result::Result<Duration, (Option<Frame>, Error)> {
    if !(MIN_FRAME..=LIMIT_BUFFER).contains(&len) {
        let error = Error::Usage(format!(
            "frames of {len} bytes: {MIN_FRAME} to {LIMIT_BUFFER} can be measured"
        ));
        return Err((None, error));
    }
    let pool = Pool::new(dma, 1, LIMIT_BUFFER).map_err(|error| (None, error))?;
    let mut buf = pool.alloc().expect("a fresh pool has a buffer");
    // A shorter one leaves padded in any case.
    let mut content = vec![0; len.max(tx.shortest())];
    // To an address that nobody has (locally administered): no receiver shall be kept busy.
    content[..6].copy_from_slice(&[2, 0, 0, 0, 0, 0]);
    content[6..12].copy_from_slice(&mac.0);
    buf.fill(&content);
    let begin = Instant::now();
    let frame = Frame::from(buf);
    match tx.limit(frame.first(), batch, frames) {
        Ok(()) => Ok(begin.elapsed()),
        Err(error) => Err((Some(frame), error)),
    }
}

/// A read does not pass the writes before it: it returns once they have arrived. Gives STATUS, which is
/// at the same place on all of these cards; all ones where the device is gone.
pub(in crate::nic) fn flush<M: Mmio>(bar: &M) -> u32 {
    bar.read32(0x0008)
}
