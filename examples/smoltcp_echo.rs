//! A host with a TCP/IP stack in this process: smoltcp over any card answers ARP and ping, and echoes what comes to TCP
//! port 7.
//!
//!     smoltcp_echo 0000:00:03.0 10.0.0.2/24
//!     smoltcp_echo qtest:virtio-net,net=tap:tap0 10.0.0.2/24 1        ends after one connection

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use pinwire::device::DeviceSpec;
use pinwire::nic::{Nic, NicConfig, Received};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

/// Longest sleep.
const IDLE: Duration = Duration::from_secs(1);

/// A card as smoltcp wants one. Its frames are copied once each way: smoltcp works in `&mut [u8]`, which memory that a
/// device reaches can never be.
struct Card {
    nic: Box<dyn Nic>,
    came: VecDeque<Received>,
    batch: Vec<Received>,
}

impl Device for Card {
    type RxToken<'a> = Came;
    type TxToken<'a> = Goes<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }

    fn receive(&mut self, _: Instant) -> Option<(Came, Goes<'_>)> {
        if self.came.is_empty() {
            // An error is told by `Nic::wait`, too, and there it ends the program.
            self.nic.recv(&mut self.batch, 64).ok()?;
            self.came.extend(self.batch.drain(..));
        }
        let came = Came(self.came.pop_front()?.frame.to_vec());
        Some((came, Goes(&mut *self.nic)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Goes<'_>> {
        Some(Goes(&mut *self.nic))
    }
}

struct Came(Vec<u8>);

impl RxToken for Came {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, with: F) -> R {
        with(&self.0)
    }
}

struct Goes<'a>(&'a mut dyn Nic);

impl TxToken for Goes<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, with: F) -> R {
        let mut frame = vec![0; len];
        let result = with(&mut frame);
        let sent = self.0.alloc(len).and_then(|mut buf| {
            buf.put(0, &frame);
            Ok(self.0.send_one(buf.into())?)
        });
        // As on any wire, a frame may be lost: whoever misses it sends it again.
        if let Err(error) = sent {
            eprintln!("a frame of {len} bytes is lost: {error}");
        }
        result
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: smoltcp_echo DEVICE ADDRESS/BITS [CONNECTIONS]";
    let spec: DeviceSpec = args.next().ok_or(usage)?.parse()?;
    let address: IpCidr = args
        .next()
        .and_then(|text| text.parse().ok())
        .ok_or(usage)?;
    let connections: usize = args.next().map_or(Ok(usize::MAX), |count| count.parse())?;

    let nic = spec.open(&NicConfig::default(), None)?;
    let mac = EthernetAddress(nic.mac().0);
    let mut card = Card {
        nic,
        came: VecDeque::new(),
        batch: Vec::new(),
    };
    let mut config = Config::new(mac.into());
    // Ports and sequence numbers are not to be guessed.
    config.random_seed = RandomState::new().build_hasher().finish();
    let mut interface = Interface::new(config, &mut card, Instant::now());
    interface.update_ip_addrs(|all| all.push(address).expect("room for one"));

    let buffer = || tcp::SocketBuffer::new(vec![0; 64 << 10]);
    let mut sockets = SocketSet::new(Vec::new());
    let echo = sockets.add(tcp::Socket::new(buffer(), buffer()));
    println!("{mac} is {address}");

    let mut served = 0;
    loop {
        interface.poll(Instant::now(), &mut card, &mut sockets);
        let socket = sockets.get_mut::<tcp::Socket>(echo);
        match socket.state() {
            // At the beginning, and when a connection has ended on both sides.
            tcp::State::Closed if served == connections => return Ok(()),
            tcp::State::Closed => {
                socket.listen(7)?;
                served += 1;
            }
            // The other side sends no more, and what it sent is on its way back.
            tcp::State::CloseWait if socket.recv_queue() == 0 => socket.close(),
            _ => {}
        }
        while socket.can_recv() && socket.can_send() {
            let mut bytes = [0; 2048];
            let room = bytes
                .len()
                .min(socket.send_capacity() - socket.send_queue());
            let came = socket.recv_slice(&mut bytes[..room])?;
            socket.send_slice(&bytes[..came])?;
        }
        // What smoltcp does next by itself, and when: a timer of TCP's, or what it has just been given to send.
        let next = interface.poll_delay(Instant::now(), &sockets);
        let next = next.map_or(IDLE, Duration::from).min(IDLE);
        if !next.is_zero() {
            card.nic.wait(next)?;
        }
    }
}
