//! The card that the ladder sends by: driven by the kernel for its rungs, by us for ours, and in the
//! end as it was found.
//!
//! The kernel's interface is set up with `ip`, as a person would. Before the card changes hands our
//! address is taken off again, so that what makes sure that nobody uses it goes on to do so.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::site::{Link, Reach};
use crate::net::resolve;
use crate::nic::{Mac, Nic, NicConfig, Waiting};
use crate::open::Drivers;
use crate::paths::ladder::Interface;
use crate::pci::{Address, Sysfs};
use crate::{DeviceSpec, Error, Result};

/// Longest wait for an interface, its link, or an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Length of a sleep between two looks.
const NAP: Duration = Duration::from_millis(20);

/// An address and the length of its network's prefix: `10.0.2.15/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    /// The address.
    pub address: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// Returns whether `other` is on the same network.
    pub fn reaches(self, other: Ipv4Addr) -> bool {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(self.prefix))
            .unwrap_or(0);
        self.address.to_bits() & mask == other.to_bits() & mask
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let parse = || {
            let (address, prefix) = text.split_once('/')?;
            let (address, prefix) = (address.parse().ok()?, prefix.parse().ok()?);
            (1..=32)
                .contains(&prefix)
                .then_some(Self { address, prefix })
        };
        parse().ok_or_else(|| "write ADDRESS/PREFIX, such as 10.0.2.15/24".to_owned())
    }
}

/// The card, and who drives it now.
pub struct CardSite {
    card: Address,
    drivers: Drivers,
    sysfs: Sysfs,
    ours: Cidr,
    to: Ipv4Addr,
    control: SocketAddr,
    found: Found,
    now: Now,
    /// Ends every wait.
    stop: &'static AtomicBool,
}

/// The state that the card was found in.
struct Found {
    on_vfio: bool,
    /// Its interfaces that were up.
    up: Vec<String>,
}

enum Now {
    /// As it was found.
    AsFound,
    /// The kernel drives it, by the interface of this name, which has our address.
    Kernel(String, Option<Interface>),
    /// We do; their Ethernet address.
    Ours(Box<dyn Nic>, Mac),
    /// Neither, or not wholly.
    Between,
}

impl CardSite {
    /// Looks at the card, and changes nothing yet. Once `stop` is set, no wait goes on.
    ///
    /// # Errors
    /// There is none; somebody uses it; `to` is not on its network.
    pub fn find(
        card: Address,
        drivers: &Drivers,
        ours: Cidr,
        to: Ipv4Addr,
        control: SocketAddr,
        stop: &'static AtomicBool,
    ) -> Result<Self> {
        if !ours.reaches(to) {
            return Err(Error::Usage(format!(
                "{to} is not on the network of our own address {}/{}\n  pinwire's own rungs know no \
                 routers: name an address that the card reaches by itself",
                ours.address, ours.prefix
            )));
        }
        let sysfs = Sysfs::default();
        let function = sysfs.function(card)?;
        let found = Found {
            on_vfio: function.is_bound_to_vfio(),
            up: function
                .interfaces
                .into_iter()
                .filter(|name| is_up(name))
                .collect(),
        };
        // Whoever has an address there uses it.
        sysfs.check_unused(card)?;
        Ok(Self {
            card,
            drivers: drivers.clone(),
            sysfs,
            ours,
            to,
            control,
            found,
            now: Now::AsFound,
            stop,
        })
    }

    /// Returns what it is, in words.
    ///
    /// # Errors
    /// If it is gone.
    pub fn describe(&self) -> Result<String> {
        let function = self.sysfs.function(self.card)?;
        let name = pci_ids::Device::from_vid_pid(function.vendor, function.device);
        let name = name.map_or("a card", pci_ids::Device::name);
        Ok(format!("by {} ({name})", self.card))
    }

    /// The far end, by the kernel's driver or by ours.
    ///
    /// # Errors
    /// If the card does not change hands.
    pub fn reach(&mut self, driven_by_us: bool) -> Result<Reach<'_>> {
        match (&self.now, driven_by_us) {
            (Now::Kernel(_, Some(_)), false) | (Now::Ours(..), true) => {}
            (_, false) => self.hand_to_kernel()?,
            (_, true) => self.hand_to_us()?,
        }
        Ok(Reach {
            control: self.control,
            data: Some(self.to.into()),
            from: self.ours.address,
            link: match &mut self.now {
                Now::Kernel(_, Some(interface)) => Link::Kernel(interface),
                Now::Ours(nic, theirs) => Link::Ours(nic.as_mut(), *theirs),
                _ => unreachable!("it has just changed hands"),
            },
        })
    }

    fn hand_to_kernel(&mut self) -> Result<()> {
        self.leave()?;
        self.sysfs.unbind(self.card)?;
        let name = self.interface()?;
        let cidr = format!("{}/{}", self.ours.address, self.ours.prefix);
        ip(&["addr", "add", &cidr, "dev", &name])?;
        // From here on there is something to be undone.
        self.now = Now::Kernel(name.clone(), None);
        ip(&["link", "set", "dev", &name, "up"])?;
        let carrier = format!("/sys/class/net/{name}/carrier");
        self.wait_for("its link", || {
            Ok(fs::read_to_string(&carrier)
                .is_ok_and(|up| up.trim() == "1")
                .then_some(()))
        })?;
        let [source, destination] = [self.ours.address, self.to].map(|ip| SocketAddrV4::new(ip, 0));
        let interface = Interface::of(&name, source, destination, self.stop);
        let interface = interface.map_err(|source| match self.is_to_stop() {
            true => Error::Interrupted,
            false => Error::io("looking for the far end", source),
        })?;
        self.now = Now::Kernel(name, Some(interface));
        Ok(())
    }

    fn hand_to_us(&mut self) -> Result<()> {
        self.leave()?;
        self.sysfs.bind(self.card, false)?;
        let config = NicConfig::default().waiting(Waiting::Adaptive);
        let spec: DeviceSpec = self.card.to_string().parse()?;
        let mut nic = self.drivers.open(&spec, &config, None)?;
        let theirs = resolve(nic.as_mut(), self.ours.address, self.to, self.stop)?;
        self.now = Now::Ours(nic, theirs);
        Ok(())
    }

    /// Lets it go, whoever drives it.
    fn leave(&mut self) -> Result<()> {
        match std::mem::replace(&mut self.now, Now::Between) {
            Now::Ours(mut nic, _) => nic.stop(),
            Now::Kernel(name, _) => {
                let cidr = format!("{}/{}", self.ours.address, self.ours.prefix);
                let off = ip(&["addr", "del", &cidr, "dev", &name]);
                ip(&["link", "set", "dev", &name, "down"]).and(off)
            }
            Now::AsFound | Now::Between => Ok(()),
        }
    }

    /// Puts the card back as it was found.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn give_back(&mut self) -> Result<()> {
        if matches!(self.now, Now::AsFound) {
            return Ok(());
        }
        // Whatever fails here, the rest is to be tried.
        let left = self.leave();
        let bound = match self.found.on_vfio {
            true => self.sysfs.bind(self.card, false),
            false => self.sysfs.unbind(self.card),
        };
        let up = self.found.up.iter().try_for_each(|name| {
            let path = format!("/sys/class/net/{name}");
            // Also when all is ended by Ctrl-C.
            let begin = Instant::now();
            while !fs::exists(&path).unwrap_or(false) && begin.elapsed() < PATIENCE {
                std::thread::sleep(NAP);
            }
            ip(&["link", "set", "dev", name, "up"])
        });
        left.and(bound.map(drop)).and(up)?;
        self.now = Now::AsFound;
        Ok(())
    }

    /// The interface that the kernel's driver made.
    fn interface(&self) -> Result<String> {
        if self.sysfs.function(self.card)?.driver.is_none() {
            return Err(Error::KernelLacks {
                what: format!("{}: no driver of the kernel's takes it", self.card),
                remedy: "load one (modprobe), or leave its rungs out".to_owned(),
            });
        }
        self.wait_for("its interface", || {
            Ok(self
                .sysfs
                .function(self.card)?
                .interfaces
                .into_iter()
                .next())
        })
    }

    fn is_to_stop(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn wait_for<T>(
        &self,
        what: &'static str,
        mut look: impl FnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        let begin = Instant::now();
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if self.is_to_stop() {
                return Err(Error::Interrupted);
            }
            if begin.elapsed() > PATIENCE {
                return Err(Error::Timeout {
                    device: self.card.to_string(),
                    what,
                    bound: PATIENCE,
                    remedy: "is the cable plugged in, and is there somebody at its other end?",
                });
            }
            std::thread::sleep(NAP);
        }
    }
}

impl Drop for CardSite {
    fn drop(&mut self) {
        if let Err(error) = self.give_back() {
            tracing::error!("{} is not as it was found: {error}", self.card);
        }
    }
}

fn is_up(interface: &str) -> bool {
    let flags = fs::read_to_string(format!("/sys/class/net/{interface}/flags")).unwrap_or_default();
    let flags = u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).unwrap_or(0);
    flags & libc::IFF_UP as u32 != 0
}

/// Runs `ip`, which Ctrl-C is not for: what it has begun must come to its end.
fn ip(arguments: &[&str]) -> Result<()> {
    let what = || format!("ip {}", arguments.join(" "));
    let output = Command::new("ip")
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::io(what(), source))?;
    match output.status.success() {
        true => Ok(()),
        false => {
            let said = String::from_utf8_lossy(&output.stderr);
            Err(Error::io(
                what(),
                std::io::Error::other(said.trim().to_owned()),
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_how_far_it_reaches() {
        let cidr = |text: &str| text.parse::<Cidr>();
        let ours = cidr("10.0.2.15/24").unwrap();
        assert!(ours.reaches(Ipv4Addr::new(10, 0, 2, 2)));
        assert!(!ours.reaches(Ipv4Addr::new(10, 0, 3, 2)));
        assert!(
            !cidr("10.0.2.15/32")
                .unwrap()
                .reaches(Ipv4Addr::new(10, 0, 2, 14))
        );
        for nonsense in ["10.0.2.15", "10.0.2.15/0", "10.0.2.15/33", "host/24", ""] {
            assert!(cidr(nonsense).is_err(), "{nonsense}");
        }
    }
}
