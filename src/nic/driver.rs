//! A driver of network cards as a list of drivers takes it: this crate's own, and those of its users.

use super::{DeviceId, Nic, NicConfig};
use crate::backend::Backend;
use crate::error::Result;

/// A driver of network cards.
///
/// # Contract
/// The order of [`NicDriver::start`], and what breaks in another:
///
/// 1. [`NicConfig::check`], and whatever else the card cannot do: [`Error::NotOffered`](crate::Error::NotOffered). It is
///    the only word for "cannot": programs go on without, and [`testing`](crate::testing) leaves claims out by it.
/// 2. [`Backend::limit_dma`] where the device has fewer than 64 address lines, before anything is allocated.
/// 3. [`Backend::map_bar`] with [`RegInfo::size_of`](crate::mmio::RegInfo::size_of) of the register table;
///    [`Command::MEMORY`](crate::pci::config::Command::MEMORY) on, so that the device answers, and bus mastering off, since
///    an earlier owner's rings may still be in its registers.
/// 4. A reset of the device's own, and a bounded wait for its end ([`wait_until`](super::parts::wait_until)).
/// 5. Interrupts ([`Backend::interrupts`]), masked in the device; none with [`Waiting::Poll`](super::Waiting::Poll).
/// 6. Rings and pools. From here on the value that owns them stops the device when it is dropped, whatever fails.
/// 7. Bus mastering on, rings programmed, [`RingState::start`](crate::ring_state::RingState::start), receiver and
///    transmitter on, filters. Receive buffers last: until the filters are in force a device takes in everything.
/// 8. [`await_link`](super::parts::await_link) with [`NicConfig::link_wait`], which does not wait where that is zero.
///
/// The other settings:
///
/// | setting | |
/// |---|---|
/// | [`tx_ring`](NicConfig::tx_ring), [`rx_ring`](NicConfig::rx_ring) | wishes: take the nearest that the card has; [`Nic::tx_capacity`] says what fits |
/// | [`max_frame`](NicConfig::max_frame) | every card lets in longer ones: [`FrameAssembler`](super::parts::FrameAssembler) or [`Longest`](super::parts::Longest) drops and counts them |
/// | [`promiscuous`](NicConfig::promiscuous) | as [`Nic::set_promiscuous`], again at each [`Nic::restart`] |
/// | [`interrupt_interval`](NicConfig::interrupt_interval) | the least time between two interrupts: the card's next longer one; not at all on a card that cannot throttle |
/// | [`queues`](NicConfig::queues) | so many pairs, or refused |
/// | [`vlan_offload`](NicConfig::vlan_offload), [`vlan_filter`](NicConfig::vlan_filter), [`rx_offload`](NicConfig::rx_offload) | leave to ask for: a card that cannot starts without, and [`Nic::offloads`] does not name it |
///
/// Settings that only this driver knows have a type of their own ([`NicConfig::driver`]).
///
/// # In a list
/// [`Drivers`](crate::open::Drivers) holds this crate's, and takes others: what a program opens, and every
/// command of [`cli::run`](crate::cli::run), drives the cards of both.
///
/// ```
/// use pinwire::backend::Backend;
/// use pinwire::nic::{DeviceId, Nic, NicConfig, NicDriver};
/// use pinwire::open::Drivers;
///
/// struct Rtl8139;
///
/// impl NicDriver for Rtl8139 {
///     fn devices() -> Vec<DeviceId> {
///         vec![DeviceId::new(0x10ec, 0x8139, "Realtek RTL8139")]
///     }
///
///     fn start<B: Backend + 'static>(card: B, _: &NicConfig) -> pinwire::Result<Box<dyn Nic>> {
///         unimplemented!("{}: map its registers, program its rings", card.name())
///     }
/// }
///
/// let drivers = Drivers::default().with::<Rtl8139>();
/// assert!(drivers.is_supported(0x10ec, 0x8139) && drivers.is_supported(0x8086, 0x100e));
/// ```
pub trait NicDriver: 'static {
    /// The cards that it drives.
    fn devices() -> Vec<DeviceId>;

    /// Starts the card behind `backend`, which has ids of [`NicDriver::devices`] and does no DMA yet.
    ///
    /// # Errors
    /// If the card is not as it should be; [`Error::NotOffered`](crate::Error::NotOffered) where it cannot do what
    /// `config` wants. It is quiet then, and no memory is left mapped for it.
    fn start<B: Backend + 'static>(backend: B, config: &NicConfig) -> Result<Box<dyn Nic>>;
}
