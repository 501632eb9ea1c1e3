//! One of QEMU's device models and its surroundings: what to start.

use std::ffi::OsString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// QEMU's name for the device in slot `slot`.
pub(super) fn id(slot: u8) -> String {
    format!("card{slot}")
}

/// QEMU's name for that device's end of the cable.
fn cable(slot: u8) -> String {
    format!("net{slot}")
}

/// Properties of the device that are set here.
const OURS: &[&str] = &[
    "addr",
    "bus",
    "driver",
    "id",
    "multifunction",
    "netdev",
    "romfile",
];

/// A device model and its surroundings: `MODEL[,net=PEER][,KEY=VALUE ...][,pcap=FILE]`.
#[derive(Debug)]
pub struct QtestSpec {
    /// QEMU's name for the model of a PCI device; but `virtio-net` is its `virtio-net-pci` without the interface from
    /// before virtio 1.0.
    pub model: String,
    /// The other end of its cable.
    pub peer: Peer,
    /// QEMU writes all that passes through the cable into this capture.
    pub pcap: Option<PathBuf>,
    /// Number of the cable's queue pairs; only a tap can have more than one.
    queues: u16,
    /// It sits in a slot from which it can be pulled out.
    pub(super) hotplug: bool,
    /// The file whose bytes a disk has, as they are (`raw`).
    drive: Option<PathBuf>,
    /// Properties of QEMU's model, each `KEY=VALUE`.
    properties: Vec<String>,
}

/// The other end of a network card's cable.
#[derive(Debug, Default)]
pub enum Peer {
    /// Nothing: frames are sent into the void.
    #[default]
    None,
    /// QEMU's hub of this number.
    Hub(u32),
    /// UDP on 127.0.0.1, one Ethernet frame a datagram. The local port must be nobody else's.
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
    /// If the system gives no sockets.
    pub fn socket() -> Result<(Self, UnixDatagram)> {
        let (theirs, ours) =
            UnixDatagram::pair().map_err(|error| Error::io("making a pair of sockets", error))?;
        Ok((Self::Socket(theirs.into()), ours))
    }
}

impl QtestSpec {
    /// The models of network cards that drivers of this crate drive. QEMU has others
    /// (`qemu-system-x86_64 -device help`), for others' drivers.
    pub const SUPPORTED: &[&str] = &[
        "e1000",
        "e1000-82544gc",
        "e1000-82545em",
        "e1000e",
        "virtio-net",
    ];

    /// `model`, plugged into `peer`. Whether QEMU has such a model, and the model a cable to plug in, QEMU says when it
    /// starts.
    ///
    /// # Errors
    /// [`Error::BadDevice`] for what cannot be a model's name.
    pub fn new(model: &str, peer: Peer) -> Result<Self> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if !model.starts_with(|c: char| c.is_ascii_alphanumeric()) || !model.chars().all(is_name) {
            let why = format!(
                "{model:?} is not the name of a model; driven here: {}",
                Self::SUPPORTED.join(", ")
            );
            return Err(bad(model, why));
        }
        let spec = Self {
            model: model.to_owned(),
            peer,
            pcap: None,
            queues: 1,
            hotplug: false,
            drive: None,
            properties: Vec::new(),
        };
        spec.check().map_err(|why| bad(model, why))?;
        Ok(spec)
    }

    /// The same with a property of QEMU's model (`packed=on`; `-device MODEL,help` lists them), which
    /// is QEMU's to judge. Three are ours: `drive`, the file whose bytes a disk has; `queues`, of the cable: so many
    /// queue pairs, which a tap made with `multi_queue` can have; and `hotplug=on`: it can be pulled out
    /// ([`QtestControl::unplug`](super::QtestControl::unplug)).
    ///
    /// # Errors
    /// [`Error::BadDevice`] where it cannot be one.
    pub fn with(mut self, key: &str, value: &str) -> Result<Self> {
        let put = self.put(key, value).and_then(|()| self.check());
        let why = put.map_err(|why| bad(&format!("{},{key}={value}", self.model), why));
        why.map(|()| self)
    }

    fn put(&mut self, key: &str, value: &str) -> Result<(), String> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        // A comma would begin the next property; `,pcap=` is looked for first.
        let is_value = |c: char| c.is_ascii_graphic() && c != ',';
        if key.is_empty() || !key.chars().all(is_name) {
            return Err(format!("{key:?} is not the name of a property"));
        }
        if value.is_empty() || !value.chars().all(is_value) {
            return Err(format!("{value:?} is not a value for {key}"));
        }
        if OURS.contains(&key) {
            return Err(format!(
                "where the device sits and its {key} are not yours to say"
            ));
        }
        match key {
            "queues" => {
                let number = value.parse().ok().filter(|number| *number > 0);
                self.queues = number.ok_or_else(|| format!("{value:?} is no number of queues"))?;
            }
            "hotplug" => {
                self.hotplug = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(format!("hotplug is on or off, not {value}")),
                }
            }
            "drive" => self.drive = Some(value.into()),
            _ => self.properties.push(format!("{key}={value}")),
        }
        Ok(())
    }

    /// Checks that the parts go together.
    fn check(&self) -> Result<(), String> {
        if self.queues > 1 && !matches!(self.peer, Peer::Tap(_)) {
            return Err("only net=tap:IFNAME has several queues".to_owned());
        }
        Ok(())
    }

    /// Name for people.
    pub(super) fn name(&self) -> String {
        format!("qtest:{}", self.model)
    }

    /// QEMU's options for the device in PCI slot `slot`, and for its cable.
    pub(super) fn options(&self, slot: u8) -> Vec<OsString> {
        let cable = cable(slot);
        let mut options = Vec::new();
        let mut option = |name: &str, value: OsString| options.extend([name.into(), value]);
        // No option ROM: nobody runs it, and its file may not be installed.
        let (model, id) = (self.device(), id(slot));
        let mut place = format!("bus=pcie.0,addr={slot:#x}");
        if self.hotplug {
            let port = format!("pcie-root-port,id=port{slot},chassis={slot},slot={slot},{place}");
            option("-device", port.into());
            place = format!("bus=port{slot}");
        }
        let mut device = format!("{model},id={id},{place},romfile=");
        if self.queues > 1 && self.model == "virtio-net" {
            device += ",mq=on";
        }
        for property in &self.properties {
            device += &format!(",{property}");
        }
        if let Some(file) = &self.drive {
            let mut drive = OsString::from(format!("if=none,id=drive{slot},format=raw,file="));
            drive.push(escaped(file.as_os_str()));
            option("-drive", drive);
            device += &format!(",drive=drive{slot}");
            // NVMe will not be without one.
            if self.model == "nvme" && !self.properties.iter().any(|one| one.starts_with("serial="))
            {
                device += &format!(",serial=pinwire{slot}");
            }
        }
        if let Some(netdev) = self.netdev(slot) {
            option("-netdev", netdev.into());
            device += &format!(",netdev={cable}");
        }
        if let Some(hub) = self.lone_hub(slot) {
            // A second port, into the void: virtio-net waits for somebody to take its frames.
            option("-netdev", format!("{hub},id=void{slot}").into());
        }
        option("-device", device.into());
        if let Some(pcap) = &self.pcap {
            let mut filter =
                OsString::from(format!("filter-dump,id=pcap{slot},netdev={cable},file="));
            filter.push(escaped(pcap.as_os_str()));
            option("-object", filter);
        }
        options
    }

    /// The model as QEMU wants it.
    fn device(&self) -> &str {
        match self.model.as_str() {
            "virtio-net" => "virtio-net-pci,disable-legacy=on",
            model => model,
        }
    }

    /// A capture needs a cable to listen on: a hub that nobody else is at.
    fn lone_hub(&self, slot: u8) -> Option<String> {
        let lone = matches!(self.peer, Peer::None) && self.pcap.is_some();
        lone.then(|| format!("hubport,hubid={}", 1000 + u32::from(slot)))
    }

    fn netdev(&self, slot: u8) -> Option<String> {
        let kind = match &self.peer {
            Peer::None => self.lone_hub(slot)?,
            Peer::Hub(number) => format!("hubport,hubid={number}"),
            Peer::Udp { local, remote } => format!(
                "dgram,local.type=inet,local.host=127.0.0.1,local.port={local},remote.type=inet,remote.host=127.0.0.1,remote.port={remote}"
            ),
            Peer::User => "user".to_owned(),
            Peer::Tap(interface) => {
                let queues = match self.queues {
                    1 => String::new(),
                    queues => format!(",queues={queues}"),
                };
                format!("tap,ifname={interface},script=no,downscript=no{queues}")
            }
            Peer::Socket(fd) => format!("dgram,local.type=fd,local.str={}", fd.as_raw_fd()),
        };
        Some(format!("{kind},id={}", cable(slot)))
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

    /// Parses the text behind `qtest:`. `pcap=` comes last: its file's name may have commas.
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
            match word.split_once('=') {
                Some(("net", _)) if seen => return Err(bad(text, "net= is given twice")),
                Some(("net", peer)) => {
                    spec.peer = peer.parse().map_err(|why| bad(text, why))?;
                    seen = true;
                }
                Some((key, value)) => spec.put(key, value).map_err(|why| bad(text, why))?,
                None => {
                    let why = format!("{word:?} is neither net=PEER, pcap=FILE nor KEY=VALUE");
                    return Err(bad(text, why));
                }
            }
        }
        spec.check().map_err(|why| bad(text, why))?;
        Ok(spec)
    }
}

impl FromStr for Peer {
    /// The reason, for an error that shows the whole spec.
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
        let device = "-device e1000,id=card3,bus=pcie.0,addr=0x3,romfile=";
        assert_eq!(options("e1000"), device);
        assert_eq!(options("e1000,net=none"), device);
        assert_eq!(
            options("e1000,net=hub:7"),
            format!("-netdev hubport,hubid=7,id=net3 {device},netdev=net3")
        );
        assert_eq!(
            options("e1000,net=tap:tap0"),
            format!("-netdev tap,ifname=tap0,script=no,downscript=no,id=net3 {device},netdev=net3")
        );
        assert!(options("e1000,net=udp:7001:7002").contains("remote.port=7002"));
    }

    #[test]
    fn properties_are_qemus_and_queues_the_cables() {
        let rest = "id=card3,bus=pcie.0,addr=0x3,romfile=";
        assert_eq!(
            options("virtio-net,packed=on,net=none,mac=52:54:00:00:00:01"),
            format!(
                "-device virtio-net-pci,disable-legacy=on,{rest},packed=on,mac=52:54:00:00:00:01"
            )
        );
        assert_eq!(
            options("virtio-net,net=tap:tap0,queues=4"),
            format!(
                "-netdev tap,ifname=tap0,script=no,downscript=no,queues=4,id=net3 \
                 -device virtio-net-pci,disable-legacy=on,{rest},mq=on,netdev=net3"
            )
        );
        assert_eq!(
            options("edu,dma_mask=0xffffffff"),
            format!("-device edu,{rest},dma_mask=0xffffffff")
        );
        assert_eq!(
            options("e1000e,hotplug=on"),
            "-device pcie-root-port,id=port3,chassis=3,slot=3,bus=pcie.0,addr=0x3 \
             -device e1000e,id=card3,bus=port3,romfile="
        );
        let spec = QtestSpec::new("e1000", Peer::None).unwrap();
        assert_eq!(
            options("rtl8139,net=hub:0"),
            format!("-netdev hubport,hubid=0,id=net3 -device rtl8139,{rest},netdev=net3")
        );
        let error = spec.with("mac", "1,addr=5").unwrap_err().to_string();
        assert!(error.contains("not a value for mac"), "{error}");
    }

    #[test]
    fn a_capture_without_a_peer_gets_a_hub_of_its_own() {
        assert_eq!(
            options("e1000-82545em,pcap=/tmp/a,b.pcap"),
            "-netdev hubport,hubid=1003,id=net3 -netdev hubport,hubid=1003,id=void3 \
             -device e1000-82545em,id=card3,bus=pcie.0,addr=0x3,romfile=,netdev=net3 \
             -object filter-dump,id=pcap3,netdev=net3,file=/tmp/a,,b.pcap"
        );
    }

    #[test]
    fn what_is_no_spec_is_refused_and_says_why() {
        for (spec, why) in [
            (
                "",
                "driven here: e1000, e1000-82544gc, e1000-82545em, e1000e, virtio",
            ),
            ("-e1000", "not the name of a model"),
            ("e 1000", "not the name of a model"),
            ("e1000,", "neither net=PEER, pcap=FILE nor KEY=VALUE"),
            ("e1000,x", "neither net=PEER, pcap=FILE nor KEY=VALUE"),
            ("e1000,=1", "not the name of a property"),
            ("e1000,a b=1", "not the name of a property"),
            ("e1000,mac=", "not a value for mac"),
            ("e1000,mac=1 2", "not a value for mac"),
            ("e1000,addr=5", "not yours to say"),
            ("e1000,hotplug=yes", "on or off, not yes"),
            ("virtio-net,queues=0", "no number of queues"),
            ("virtio-net,queues=2,net=hub:0", "only net=tap:IFNAME"),
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
