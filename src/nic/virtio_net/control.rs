//! The control queue, §5.1.6.5: what is asked of the device in words, one command a chain.
//!
//! A command is a class, a number and data that the device reads, and one byte that it writes: 0 for
//! yes. The driver waits for it, since these are rare. A device that does not answer keeps the
//! queue's memory, and is asked nothing more.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "of lengths of our own, which are bounded before; the device wrote none of them"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::dma::{DmaRegion, DmaSpace, Iova};
use crate::error::{Error, Result};
use crate::inspect::RingView;
use crate::nic::Mac;
use crate::virtio::{Areas, Doorbell, Piece, Ring};
use crate::wait::poll_until;

/// Longest wait for the answers to the commands of one batch.
const BOUND: Duration = Duration::from_secs(1);
/// The device's yes, VIRTIO_NET_OK.
const OK: u8 = 0;
/// Bytes of memory for commands and answers.
const MEMORY: usize = 16 * 1024;
/// Bytes of class and number.
const COMMAND: usize = 2;

/// A command: class and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Command(u8, u8);

/// Everybody's frames, §5.1.6.5.1.
pub(super) const RX_PROMISC: Command = Command(0, 0);
/// Frames to every group.
pub(super) const RX_ALLMULTI: Command = Command(0, 1);
/// The tables of addresses, §5.1.6.5.2.
pub(super) const MAC_TABLE_SET: Command = Command(1, 0);
/// One more VLAN, §5.1.6.5.3.
pub(super) const VLAN_ADD: Command = Command(2, 0);
/// One VLAN less.
pub(super) const VLAN_DEL: Command = Command(2, 1);
/// The network was told where the card is, §5.1.6.5.4.
pub(super) const ANNOUNCE_ACK: Command = Command(3, 0);
/// Number of queue pairs in use, §5.1.6.5.5.
pub(super) const MQ_VQ_PAIRS_SET: Command = Command(4, 0);
/// RSS: hash types, key and indirection table, §5.1.6.5.7.
pub(super) const MQ_RSS_CONFIG: Command = Command(4, 1);

/// The queue, whatever ring it is.
pub(super) trait Control<D>: Send {
    /// Number, size, and where it is.
    fn areas(&self) -> (u16, u16, Areas);

    /// The device has the queue, with this doorbell.
    fn set_doorbell(&mut self, doorbell: D);

    /// Gives a command for each of `all`, the data of each being of the same length.
    ///
    /// # Errors
    /// [`Error::NotOffered`] where the device says no, [`Error::Timeout`] where nothing.
    fn commands(&mut self, command: Command, all: &[Vec<u8>]) -> Result<()>;

    /// The device is stopped: it is asked nothing until [`Control::reset`].
    fn stop(&mut self);

    /// The device was reset.
    fn reset(&mut self);

    /// The device did not stop: see [`Ring::quarantine`].
    fn quarantine(&mut self);

    /// The ring, to be shown.
    fn view(&self) -> RingView;
}

/// A [`Control`] of one kind of ring.
pub(super) struct Queue<R, D> {
    ring: R,
    index: u16,
    doorbell: D,
    device: String,
    memory: DmaRegion,
}

impl<R: Ring<usize>, D: Doorbell> Queue<R, D> {
    /// Queue number `index` of the device.
    pub(super) fn new(
        ring: R,
        index: u16,
        doorbell: D,
        device: &str,
        dma: &Arc<dyn DmaSpace>,
    ) -> Result<Self> {
        Ok(Self {
            ring,
            index,
            doorbell,
            device: device.to_owned(),
            memory: DmaRegion::alloc(dma, MEMORY)?,
        })
    }

    fn timeout(&self) -> Error {
        Error::Timeout {
            device: self.device.clone(),
            what: "an answer on the control queue",
            bound: BOUND,
            remedy: "restart the card; the device does not work on its control queue",
        }
    }

    /// Gives the commands of `all` at once, as many as there is room for, and waits for the answers.
    fn batch(&mut self, command: Command, all: &[Vec<u8>], stride: usize) -> Result<()> {
        let base = self.memory.iova().0;
        for (nth, data) in all.iter().enumerate() {
            let at = nth * stride;
            let len = COMMAND + data.len();
            let Command(class, number) = command;
            self.memory.write(at, &[class, number]);
            self.memory.write(at + COMMAND, data);
            // Whatever the device does not write is a no.
            self.memory.write(at + len, &[!OK]);
            let pieces = [(at, len), (at + len, 1)].map(|(at, len)| Piece {
                iova: Iova(base + at as u64),
                len: len as u32,
            });
            let pushed = self.ring.submit(&pieces, 1, at + len);
            pushed.map_err(|_| self.timeout())?;
        }
        if let Some(value) = self.ring.publish() {
            self.doorbell.ring(value);
        }
        // A no is told once all have been answered: else the next command would find the rest of this
        // one's answers.
        let mut refused = false;
        let begin = Instant::now();
        for _ in all {
            let left = BOUND.saturating_sub(begin.elapsed());
            if !poll_until(left, || self.ring.is_ready()) {
                return Err(self.timeout());
            }
            let Some(used) = self.ring.poll()? else {
                return Err(self.timeout());
            };
            let mut answer = [!OK];
            self.memory.read(used.token, &mut answer);
            refused |= answer != [OK];
        }
        match refused {
            false => Ok(()),
            true => Err(Error::NotOffered {
                device: self.device.clone(),
                what: format!("do what was asked: its control queue says no to {command:?}"),
            }),
        }
    }
}

impl<R: Ring<usize>, D: Doorbell> Control<D> for Queue<R, D> {
    fn areas(&self) -> (u16, u16, Areas) {
        (self.index, self.ring.size() as u16, self.ring.areas())
    }

    fn set_doorbell(&mut self, doorbell: D) {
        self.doorbell = doorbell;
    }

    fn commands(&mut self, command: Command, all: &[Vec<u8>]) -> Result<()> {
        self.ring.state().check()?;
        if self.ring.in_flight() > 0 {
            return Err(self.timeout());
        }
        let Some(longest) = all.iter().map(Vec::len).max() else {
            return Ok(());
        };
        // Class, number, data, answer; each command on a cache line of its own.
        let stride = (COMMAND + longest + 1).next_multiple_of(64);
        if stride > MEMORY {
            return Err(Error::Usage(format!(
                "{}: a command of {longest} bytes is too long for the control queue",
                self.device
            )));
        }
        let at_once = (self.ring.size() / self.ring.needs(2)).min(MEMORY / stride);
        for some in all.chunks(at_once.max(1)) {
            self.batch(command, some, stride)?;
        }
        Ok(())
    }

    fn stop(&mut self) {
        self.ring.stop();
    }

    fn reset(&mut self) {
        drop(self.ring.reset());
    }

    fn quarantine(&mut self) {
        self.ring.quarantine(drop);
        self.memory.quarantine();
    }

    fn view(&self) -> RingView {
        let mapping = self.memory.mapping();
        RingView {
            name: "control",
            pair: 0,
            address: self.ring.address(),
            indices: self.ring.indices(),
            slots: self.ring.slots(|answer, iova| {
                let past = usize::try_from(iova.0.checked_sub(mapping.iova.0)?).ok()?;
                let address = mapping.ptr.as_ptr() as usize + past;
                let len = if past == *answer {
                    1
                } else {
                    answer.checked_sub(past)?
                };
                Some((iova, address, len))
            }),
        }
    }
}

/// The data of [`MAC_TABLE_SET`]: addresses of one, then of groups.
pub(super) fn mac_tables(unicast: &[Mac], multicast: &[Mac]) -> Vec<u8> {
    let table = |macs: &[Mac]| {
        let count = (macs.len() as u32).to_le_bytes();
        count
            .into_iter()
            .chain(macs.iter().flat_map(|mac| mac.0))
            .collect::<Vec<_>>()
    };
    [table(unicast), table(multicast)].concat()
}

/// The data of [`MQ_RSS_CONFIG`]: hashes of `types` spread over `pairs` queue pairs.
pub(super) fn rss(types: u32, table_len: usize, pairs: u16, key: &[u8]) -> Vec<u8> {
    let mut data = types.to_le_bytes().to_vec();
    let mut word = |value: u16| data.extend(value.to_le_bytes());
    word(table_len as u16 - 1);
    // What is not hashed comes to the first.
    word(0);
    for entry in 0..table_len {
        word(entry as u16 % pairs);
    }
    word(pairs);
    data.push(key.len() as u8);
    data.extend(key);
    data
}
