//! The longest frame that is taken, a limit that every card keeps.
//!
//! Cards know few limits: with jumbo frames on, an 82540EM takes 16 KB, and virtio what its buffers hold.
//! The rule: a ring asks [`Longest::admits`] where it makes a frame of what came in, so that none longer than
//! [`NicConfig::max_frame`] ever reaches a caller, whatever the card lets in.

use super::{NicConfig, Received};

/// Bytes of a VLAN tag, which was on the wire although the card took it out.
const TAG: usize = 4;

/// The limit, and how many frames were longer.
pub struct Longest {
    bytes: usize,
    dropped: u64,
}

impl Longest {
    /// As `config` says. Frames as their sender gave them away, not cut yet to what the wire takes, have
    /// none.
    pub fn new(config: &NicConfig) -> Self {
        Self {
            bytes: match config.rx_offload {
                true => usize::MAX,
                false => config.max_frame,
            },
            dropped: 0,
        }
    }

    /// Longest frame that is admitted whether a tag was taken out of it or not.
    pub fn untagged(&self) -> usize {
        self.bytes.saturating_sub(TAG)
    }

    /// Returns whether a frame of `len` bytes, out of which the card took the tag `vlan`, is not longer;
    /// counts it where it is.
    #[inline]
    pub fn admits(&mut self, len: usize, vlan: Option<u16>) -> bool {
        let tag = if vlan.is_some() { TAG } else { 0 };
        let admitted = len.saturating_add(tag) <= self.bytes;
        self.dropped += u64::from(!admitted);
        admitted
    }

    /// Drops those frames of `into` from `begin` on that are longer; gives how many stay.
    #[inline]
    pub fn keep(&mut self, into: &mut Vec<Received>, begin: usize) -> usize {
        let bytes = self.bytes;
        if into[begin..]
            .iter()
            .any(|received| is_longer(received, bytes))
        {
            self.drop_longer(into, begin);
        }
        into.len() - begin
    }

    #[cold]
    fn drop_longer(&mut self, into: &mut Vec<Received>, begin: usize) {
        let before = into.len();
        let mut index = 0;
        into.retain(|received| {
            index += 1;
            index <= begin || !is_longer(received, self.bytes)
        });
        self.dropped += (before - into.len()) as u64;
    }

    /// Frames that were longer.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

/// Returns whether it was longer on the wire, without its check sequence.
#[inline]
fn is_longer(received: &Received, bytes: usize) -> bool {
    let tag = if received.vlan().is_some() { TAG } else { 0 };
    received.frame.len() + tag > bytes
}
