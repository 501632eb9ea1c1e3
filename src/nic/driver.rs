//! A driver of network cards as a list of drivers takes it: this crate's own, and those of its users.

use super::{DeviceId, Nic, NicConfig};
use crate::backend::Backend;
use crate::error::Result;

/// A driver of network cards.
///
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
    /// Where the card is not as it should be, or cannot do what `config` wants. It is quiet then, and no memory
    /// is left mapped for it.
    fn start<B: Backend + 'static>(backend: B, config: &NicConfig) -> Result<Box<dyn Nic>>;
}
