//! What `pinwire show` draws: plain values, taken from a card at one moment.

use crate::dma::Iova;
use crate::mmio::RegInfo;

/// One register and its value.
#[derive(Debug, Clone, Copy)]
pub struct RegisterView {
    /// Its declaration.
    pub info: &'static RegInfo,
    /// Which one of an array; 0 for a lone one.
    pub index: usize,
    /// What it reads.
    pub value: u32,
}

/// Who may touch a descriptor and its buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The device: the buffer is in flight.
    Device,
    /// The device is through with it and said so; the driver has not taken it back yet.
    Done,
    /// The driver: nothing is there.
    Driver,
}

/// One descriptor.
#[derive(Debug, Clone)]
pub struct SlotView {
    /// Where the device sees the descriptor.
    pub iova: Iova,
    /// Its two words as they are in memory.
    pub words: [u64; 2],
    /// Its fields, in the datasheet's names.
    pub text: String,
    /// Who may touch it.
    pub owner: Owner,
    /// The buffer: where the device sees it, where this process sees it, and its length.
    pub buffer: Option<(Iova, usize, usize)>,
}

/// One ring.
#[derive(Debug, Clone)]
pub struct RingView {
    /// "transmit" or "receive".
    pub name: &'static str,
    /// Where this process sees the first descriptor.
    pub address: usize,
    /// The head register: what the device takes next. Not checked: it is what the device says.
    pub head: u32,
    /// The tail register: one past what it may take.
    pub tail: u32,
    /// The descriptors, in order.
    pub slots: Vec<SlotView>,
}
