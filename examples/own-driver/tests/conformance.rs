//! Every claim about drivers, on QEMU's model; or over VFIO, on the card that `PINWIRE_DEVICE` names.

use own_driver::Driver;
use pinwire::open::Drivers;

pinwire::conformance!(Drivers::none().with::<Driver>(), "qtest:rtl8139");
