//! The cards that claims are checked on: QEMU's models, functions over VFIO, and fakes.

use std::process::{Command, Stdio};

use super::wire::{PacketSocket, Wire};
use crate::backend::{Peer, Qtest, QtestSpec};
use crate::device::DeviceSpec;
use crate::error::Result;
use crate::nic::{Nic, NicConfig};
use crate::open::Drivers;

/// A card that claims are checked on: it is started anew for each, with the far end of its cable in the test's hand.
pub trait Card {
    /// Its name, behind how it is reached: `qtest:e1000`, `vfio:e1000`, `fake:e1000`.
    fn name(&self) -> &str;

    /// Starts it; gives the far end of its cable, too.
    ///
    /// # Errors
    /// [`Error::NotOffered`](crate::Error::NotOffered) where it cannot do what `config` wants: claims that need it are
    /// left out.
    fn start(&self, config: &NicConfig) -> Result<(Box<dyn Nic>, Box<dyn Wire>)>;

    /// Returns whether its device is code of the test's: whatever that would do to a frame would be tested against
    /// itself.
    fn is_fake(&self) -> bool {
        false
    }

    /// Checks that it can be started here.
    ///
    /// # Errors
    /// The missing capability, in words: the claim is not checked then, and the test says so.
    fn is_at_hand(&self) -> Result<(), String> {
        Ok(())
    }
}

/// The cards of one set of tests.
pub struct Cards {
    drivers: Drivers,
    all: Vec<Box<dyn Card>>,
    /// The environment names the only card.
    is_given: bool,
}

impl Cards {
    /// None yet, to be driven by `drivers`. Where `PINWIRE_DEVICE` names a PCI function, that is the only card, now and
    /// whatever is added; the interface `PINWIRE_WIRE` of the kernel's is at the other end of its cable, and
    /// `PINWIRE_MODEL` is its name in what is told.
    ///
    /// # Panics
    /// If `PINWIRE_DEVICE` names no device, or there is no `PINWIRE_WIRE` beside it.
    pub fn new(drivers: Drivers) -> Self {
        let given = std::env::var("PINWIRE_DEVICE").ok().map(|device| {
            let model = std::env::var("PINWIRE_MODEL");
            Box::new(Function {
                name: format!("vfio:{}", model.as_deref().unwrap_or(&device)),
                spec: device.parse().expect("PINWIRE_DEVICE names a device"),
                interface: std::env::var("PINWIRE_WIRE").expect("PINWIRE_WIRE names an interface"),
                drivers: drivers.clone(),
            }) as Box<dyn Card>
        });
        Self {
            drivers,
            is_given: given.is_some(),
            all: given.into_iter().collect(),
        }
    }

    /// The same and a model of QEMU's: `qtest:MODEL[,KEY=VALUE ...]`, as a [`DeviceSpec`] has it, without `net=`.
    ///
    /// # Panics
    /// If that names no model.
    #[must_use]
    pub fn model(self, spec: &str) -> Self {
        let model = spec.strip_prefix("qtest:");
        let model = model.unwrap_or_else(|| panic!("{spec}: write qtest:MODEL"));
        let model = Model {
            name: spec.to_owned(),
            spec: model.to_owned(),
            drivers: self.drivers.clone(),
        };
        let _: QtestSpec = model.spec.parse().expect("a model");
        self.with(model)
    }

    /// The same and `card`.
    #[must_use]
    pub fn with(mut self, card: impl Card + 'static) -> Self {
        if !self.is_given {
            self.all.push(Box::new(card));
        }
        self
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &dyn Card> {
        self.all.iter().map(|card| &**card)
    }
}

/// One of QEMU's models.
struct Model {
    name: String,
    spec: String,
    drivers: Drivers,
}

impl Card for Model {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, config: &NicConfig) -> Result<(Box<dyn Nic>, Box<dyn Wire>)> {
        let (peer, wire) = Peer::socket()?;
        let mut spec: QtestSpec = self.spec.parse()?;
        spec.peer = peer;
        let nic = self.drivers.start(Qtest::start(&spec)?, config)?;
        Ok((nic, Box::new(wire)))
    }

    fn is_at_hand(&self) -> Result<(), String> {
        let binary = std::env::var_os("PINWIRE_QEMU").unwrap_or("qemu-system-x86_64".into());
        let mut version = Command::new(&binary);
        version.arg("-version");
        let status = version.stdout(Stdio::null()).stderr(Stdio::null()).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            _ => Err(format!("{} is missing; install QEMU", binary.display())),
        }
    }
}

/// A PCI function over VFIO, and an interface of the kernel's at the other end of its cable.
struct Function {
    name: String,
    spec: DeviceSpec,
    interface: String,
    drivers: Drivers,
}

impl Card for Function {
    fn name(&self) -> &str {
        &self.name
    }

    fn start(&self, config: &NicConfig) -> Result<(Box<dyn Nic>, Box<dyn Wire>)> {
        let wire = PacketSocket::open(&self.interface).expect("the interface is up");
        let nic = self.drivers.open(&self.spec, config, None)?;
        Ok((nic, Box::new(wire)))
    }
}
