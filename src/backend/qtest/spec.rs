//! What to start: which of QEMU's device models, and what its cable is plugged into.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// QEMU's name for the device's end of the cable.
const NETDEV: &str = "net0";

/// A device model and its surroundings: `MODEL[,net=PEER][,pcap=FILE]`.
#[derive(Debug)]
pub struct QtestSpec {
    /// One of [`QtestSpec::MODELS`].
    pub model: &'static str,
    /// What the cable is plugged into.
    pub peer: Peer,
    /// QEMU writes all that passes through the cable into this capture.
    pub pcap: Option<PathBuf>,
}

/// What a network card's cable is plugged into.
#[derive(Debug, Default)]
pub enum Peer {
    /// Nothing: frames are sent into the void.
    #[default]
    None,
    /// QEMU's hub of this number.
    Hub(u32),
    /// UDP on 127.0.0.1, one Ethernet frame a datagram.
    Udp {
        /// The port that QEMU receives on.
        local: u16,
        /// The port that QEMU sends to.
        remote: u16,
    },
    /// QEMU's user network: a NAT with a DHCP and a DNS server.
    User,
    /// A tap interface, which must be there.
    Tap(String),
    /// A Unix datagram socket whose other end the caller has; one Ethernet frame a datagram.
    Socket(OwnedFd),
}

impl Peer {
    /// A socket pair: QEMU's end, and the one on which the caller plays the wire.
    ///
    /// # Errors
    /// Where the system gives no sockets.
    pub fn socket() -> Result<(Self, UnixDatagram)> {
        let (theirs, ours) =
            UnixDatagram::pair().map_err(|error| Error::io("making a pair of sockets", error))?;
        Ok((Self::Socket(theirs.into()), ours))
    }
}

impl QtestSpec {
    /// The models known to work, by QEMU's names. Another one is one more word.
    pub const MODELS: &[&str] = &["e1000", "e1000-82544gc", "e1000-82545em"];

    /// `model`, plugged into `peer`.
    ///
    /// # Errors
    /// [`Error::BadDevice`] where there is no such model.
    pub fn new(model: &str, peer: Peer) -> Result<Self> {
        let known = Self::MODELS.iter().find(|known| **known == model);
        Ok(Self {
            model: known.ok_or_else(|| {
                bad(
                    model,
                    format!(
                        "{model:?} is not a model; known: {}",
                        Self::MODELS.join(", ")
                    ),
                )
            })?,
            peer,
            pcap: None,
        })
    }

    /// What people call it.
    pub(super) fn name(&self) -> String {
        format!("qtest:{}", self.model)
    }

    /// QEMU's options for the device in PCI slot `slot`, and for its cable.
    pub(super) fn options(&self, slot: u8) -> Vec<OsString> {
        let mut options = Vec::new();
        let mut option = |name: &str, value: OsString| options.extend([name.into(), value]);
        // No option ROM: nobody runs it, and its file may not be installed.
        let mut device = format!("{},bus=pcie.0,addr={slot},romfile=", self.model);
        if let Some(netdev) = self.netdev() {
            option("-netdev", netdev.into());
            device += &format!(",netdev={NETDEV}");
        }
        option("-device", device.into());
        if let Some(pcap) = &self.pcap {
            let mut filter = OsString::from(format!("filter-dump,id=pcap0,netdev={NETDEV},file="));
            filter.push(escaped(pcap.as_os_str()));
            option("-object", filter);
        }
        options
    }

    fn netdev(&self) -> Option<String> {
        let kind = match &self.peer {
            // A capture needs a cable to listen on: a hub without another port.
            Peer::None if self.pcap.is_some() => "hubport,hubid=0".to_owned(),
            Peer::None => return None,
            Peer::Hub(number) => format!("hubport,hubid={number}"),
            Peer::Udp { local, remote } => format!(
                "dgram,local.type=inet,local.host=127.0.0.1,local.port={local},remote.type=inet,remote.host=127.0.0.1,remote.port={remote}"
            ),
            Peer::User => "user".to_owned(),
            Peer::Tap(interface) => format!("tap,ifname={interface},script=no,downscript=no"),
            Peer::Socket(fd) => format!("dgram,local.type=fd,local.str={}", fd.as_raw_fd()),
        };
        Some(format!("{kind},id={NETDEV}"))
    }

    /// The descriptor that QEMU must inherit.
    pub(super) fn inherited(&self) -> Option<RawFd> {
        match &self.peer {
            Peer::Socket(fd) => Some(fd.as_raw_fd()),
            _ => None,
        }
    }
}

/// QEMU's options are split at commas; a doubled one stands for itself.
fn escaped(path: &std::ffi::OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = Vec::with_capacity(path.len());
    for &byte in path.as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}

fn bad(spec: &str, why: impl Into<String>) -> Error {
    Error::BadDevice {
        spec: format!("qtest:{spec}"),
        why: why.into(),
    }
}

impl FromStr for QtestSpec {
    type Err = Error;

    /// What follows `qtest:`. `pcap=` comes last: its file's name may have commas.
    fn from_str(text: &str) -> Result<Self> {
        let (rest, pcap) = match text.split_once(",pcap=") {
            Some((_, "")) => return Err(bad(text, "pcap= needs the name of a file")),
            Some((rest, file)) => (rest, Some(PathBuf::from(file))),
            None => (text, None),
        };
        let mut words = rest.split(',');
        let model = words.next().unwrap_or_default();
        let mut spec = Self::new(model, Peer::None)?;
        spec.pcap = pcap;
        let mut seen = false;
        for word in words {
            spec.peer = match word.strip_prefix("net=") {
                Some(_) if seen => return Err(bad(text, "net= is given twice")),
                Some(peer) => peer.parse().map_err(|why| bad(text, why))?,
                None => {
                    let why = format!("{word:?} is neither net=PEER nor pcap=FILE");
                    return Err(bad(text, why));
                }
            };
            seen = true;
        }
        Ok(spec)
    }
}

impl FromStr for Peer {
    /// What is wrong, for an error that shows the whole spec.
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |text: &str| {
            let port = text.parse::<u16>().ok().filter(|port| *port != 0);
            port.ok_or_else(|| format!("{text:?} is not a port: 1 to 65535"))
        };
        let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
        match (kind, rest) {
            ("none", "") => Ok(Self::None),
            ("user", "") => Ok(Self::User),
            ("hub", number) => number
                .parse()
                .map(Self::Hub)
                .map_err(|_| format!("{number:?} is not the number of a hub: net=hub:0")),
            ("udp", ports) => {
                let (local, remote) = ports
                    .split_once(':')
                    .ok_or("udp needs two ports: net=udp:LOCAL:REMOTE")?;
                Ok(Self::Udp {
                    local: port(local)?,
                    remote: port(remote)?,
                })
            }
            // The kernel takes 15 bytes for the name of an interface.
            ("tap", name) if (1..16).contains(&name.len()) => Ok(Self::Tap(name.to_owned())),
            ("tap", _) => Err("tap needs the name of an interface: net=tap:tap0".to_owned()),
            _ => Err(format!(
                "{text:?} is no peer; known: none, hub:N, udp:LOCALPORT:REMOTEPORT, user, tap:IFNAME"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(spec: &str) -> String {
        let spec: QtestSpec = spec.parse().unwrap();
        let options = spec.options(3);
        let words: Vec<_> = options.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn a_spec_becomes_options_of_qemu() {
        let device = "-device e1000,bus=pcie.0,addr=3,romfile=";
        assert_eq!(options("e1000"), device);
        assert_eq!(options("e1000,net=none"), device);
        assert_eq!(
            options("e1000,net=hub:7"),
            format!("-netdev hubport,hubid=7,id=net0 {device},netdev=net0")
        );
        assert_eq!(
            options("e1000,net=tap:tap0"),
            format!("-netdev tap,ifname=tap0,script=no,downscript=no,id=net0 {device},netdev=net0")
        );
        assert!(options("e1000,net=udp:7001:7002").contains("remote.port=7002"));
    }

    #[test]
    fn a_capture_without_a_peer_gets_a_hub_of_its_own() {
        assert_eq!(
            options("e1000-82545em,pcap=/tmp/a,b.pcap"),
            "-netdev hubport,hubid=0,id=net0 \
             -device e1000-82545em,bus=pcie.0,addr=3,romfile=,netdev=net0 \
             -object filter-dump,id=pcap0,netdev=net0,file=/tmp/a,,b.pcap"
        );
    }

    #[test]
    fn what_is_no_spec_is_refused_and_says_why() {
        for (spec, why) in [
            ("", "known: e1000, e1000-82544gc, e1000-82545em"),
            ("rtl8139", "known: e1000, e1000-82544gc, e1000-82545em"),
            ("e1000,", "neither net=PEER nor pcap=FILE"),
            ("e1000,mac=1", "neither net=PEER nor pcap=FILE"),
            ("e1000,pcap=", "needs the name of a file"),
            ("e1000,net=", "known: none, hub:N"),
            ("e1000,net=none:1", "known: none, hub:N"),
            ("e1000,net=hub:x", "not the number of a hub"),
            ("e1000,net=udp:7000", "needs two ports"),
            ("e1000,net=udp:7000:0", "\"0\" is not a port"),
            (
                "e1000,net=udp:127.0.0.1:7000",
                "\"127.0.0.1\" is not a port",
            ),
            ("e1000,net=tap:", "needs the name of an interface"),
            ("e1000,net=tap:a2345678901234567", "needs the name"),
            ("e1000,net=user,net=user", "given twice"),
        ] {
            let error = spec.parse::<QtestSpec>().unwrap_err().to_string();
            assert!(error.contains(why), "{spec}: {error}");
            assert!(
                error.starts_with(&format!("{:?}", format!("qtest:{spec}"))),
                "{error}"
            );
        }
    }
}
