//! `pinwire echo`.

use std::io::{self, IsTerminal};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::args::{self, Wait};
use super::figure::six;
use super::output::{self, Outcome, grouped};
use super::signals::interrupted;
use crate::net::{Echo, Echoed};
use crate::nic::{Nic, NicConfig};
use crate::open::Drivers;
use crate::{DeviceSpec, Error};

/// Longest sleep, so that Ctrl-C is heard.
const NAP: Duration = Duration::from_millis(100);

/// Answers ARP, ping and UDP echo at an address, each packet out of the buffer it came in
///
/// Pings of any size up to 65507 bytes are answered: each of their fragments goes back by itself. UDP
/// datagrams to --udp-port go back as they are. It ends at --count, after --seconds, or with Ctrl-C.
///
/// Examples:
///
///   Answer pings, in the VM (qemu/vm --nic e1000,e1000 --net hub:0,hub:0):
///     pinwire bind 0000:00:03.0; ip addr add 10.0.0.1/24 dev eth1; ip link set eth1 up
///     pinwire echo 0000:00:03.0 --address 10.0.0.2 &
///     ping -s 65507 10.0.0.2
///   On this host, QEMU's model with its cable on UDP:
///     pinwire echo qtest:e1000,net=udp:7001:7002 --address 10.0.0.2 --count 3
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The card: a PCI address (0000:00:03.0) or QEMU's model on this host (qtest:e1000)
    device: DeviceSpec,

    /// The address to answer for
    #[arg(short, long, value_name = "IP")]
    address: Ipv4Addr,

    /// Send UDP datagrams to this port back
    #[arg(long, value_name = "PORT", default_value_t = 7,
          value_parser = clap::value_parser!(u16).range(1..))]
    udp_port: u16,

    /// Stop after answering this many pings and datagrams
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,

    /// Stop after this many seconds
    #[arg(short, long, value_name = "S", value_parser = args::seconds)]
    seconds: Option<Duration>,

    /// Way to wait for frames
    #[arg(long, value_enum, default_value_t, value_name = "HOW")]
    wait: Wait,

    /// Print the summary as JSON, for programs
    #[arg(long)]
    json: bool,
}

impl Args {
    /// Runs it.
    pub fn run(self, drivers: &Drivers) -> Outcome {
        let config = NicConfig::default().waiting(self.wait.into());
        let mut nic = drivers.open(&self.device, &config, None)?;
        if io::stderr().is_terminal() {
            let (name, mac, address) = (nic.name(), nic.mac(), self.address);
            output::aside(format_args!(
                "{name} ({mac}) answers for {address}; Ctrl-C ends it"
            ));
        }
        let mut echo = Echo::new(&*nic, self.address, self.udp_port)?;
        let begin = Instant::now();
        let ended = self.answer(&mut *nic, &mut echo, begin);
        self.report(&*nic, echo.echoed(), begin.elapsed())?;
        Ok(ended?)
    }

    fn answer(&self, nic: &mut dyn Nic, echo: &mut Echo, begin: Instant) -> Result<(), Error> {
        loop {
            if interrupted() {
                return Err(Error::Interrupted);
            }
            let moved = echo.round(nic)?;
            let echoed = echo.echoed();
            // The last fragment of the last one is waited for: what began goes back whole.
            let enough = self
                .count
                .is_some_and(|count| echoed.icmp + echoed.udp >= count);
            if moved > 0 {
                continue;
            }
            let mut nap = NAP;
            if let Some(bound) = self.seconds {
                match bound.checked_sub(begin.elapsed()) {
                    Some(left) => nap = nap.min(left),
                    None => return Ok(()),
                }
            }
            let came = nic.wait(nap)?;
            if enough && !came {
                return Ok(());
            }
            if !came {
                nic.check()?;
            }
        }
    }

    fn report(&self, nic: &dyn Nic, echoed: Echoed, took: Duration) -> Outcome {
        let Echoed {
            arp,
            icmp,
            udp,
            fragments,
            bytes,
            ignored,
        } = echoed;
        if self.json {
            return output::line(serde_json::json!({
                "device": nic.name(),
                "model": nic.model(),
                "address": self.address.to_string(),
                "seconds": six(took.as_secs_f64()),
                "arp": arp,
                "icmp": icmp,
                "udp": udp,
                "further_fragments": fragments,
                "bytes": bytes,
                "ignored": ignored,
            }));
        }
        output::line(output::summary(&[
            ("device", format!("{}, {}", nic.name(), nic.model())),
            ("seconds", output::seconds(took.as_secs_f64())),
            ("ARP questions answered", grouped(arp)),
            ("pings answered", grouped(icmp)),
            ("UDP datagrams sent back", grouped(udp)),
            ("further fragments of them", grouped(fragments)),
            ("bytes sent back", grouped(bytes)),
            ("frames not answered", grouped(ignored)),
        ]))
    }
}
