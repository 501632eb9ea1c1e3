//! Riders of a card, on fake cards: forwarding, echo, ping, and sleeping on two cards at once. Frames that leave are
//! checked by another stack.
#![cfg(feature = "net")]

mod echo;
#[path = "../fakes/mod.rs"]
mod fakes;
mod forward;
mod ping;
mod sleep;

use std::sync::{Arc, Mutex};

use fakes::e1000::FakeE1000;
use fakes::lock;
use pinwire::backend::{Fake, FakeMemory};
use pinwire::nic::NicConfig;
use pinwire::nic::e1000::E1000;

/// A card, its device, and the memory that both reach.
struct Bench {
    card: E1000<Fake>,
    device: Arc<Mutex<FakeE1000>>,
    memory: Arc<FakeMemory>,
}

impl Bench {
    fn new(fake: Fake, device: Arc<Mutex<FakeE1000>>, config: &NicConfig) -> Self {
        let memory = Arc::clone(fake.memory());
        let card = E1000::start(fake, config).unwrap();
        Self {
            card,
            device,
            memory,
        }
    }

    fn one() -> Self {
        let (fake, device) = FakeE1000::fake();
        // Frames may be longer than the card sends: those have no limit.
        let config = NicConfig::default().rx_offload(true);
        Self::new(fake, device, &config)
    }

    fn pair(config: &NicConfig) -> [Self; 2] {
        FakeE1000::fake_pair().map(|(fake, device)| Self::new(fake, device, config))
    }

    /// Frames come in.
    fn comes(&self, frames: impl IntoIterator<Item = Vec<u8>>) {
        let mut device = lock(&self.device);
        device.inbox.extend(frames);
        device.step_rx(&self.memory);
    }

    /// What has gone out.
    fn sent(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut lock(&self.device).sent)
    }
}

/// Bytes that are unlike others'.
fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (seed * 31 + at * 7 + at / 251) as u8)
        .collect()
}

/// An IPv4 packet in as many frames as it takes, made with `etherparse`.
fn ip(
    [from, to]: [[u8; 6]; 2],
    [source, destination]: [[u8; 4]; 2],
    protocol: etherparse::IpNumber,
    identification: u16,
    payload: &[u8],
) -> Vec<Vec<u8>> {
    const PIECE: usize = 1480;
    let pieces = payload.chunks(PIECE).enumerate();
    pieces
        .map(|(nth, piece)| {
            let mut header = etherparse::Ipv4Header {
                total_len: 20 + piece.len() as u16,
                identification,
                more_fragments: (nth + 1) * PIECE < payload.len(),
                fragment_offset: etherparse::IpFragOffset::try_new((nth * PIECE / 8) as u16)
                    .unwrap(),
                dont_fragment: payload.len() <= PIECE,
                time_to_live: 17,
                protocol,
                source,
                destination,
                ..Default::default()
            };
            header.header_checksum = header.calc_header_checksum();
            let mut frame = [to, from].concat();
            frame.extend(0x0800u16.to_be_bytes());
            frame.extend(header.to_bytes());
            frame.extend(piece);
            frame
        })
        .collect()
}

/// The IPv4 packet that these frames are, put together and its headers checked with `smoltcp`:
/// addresses and payload.
fn whole(frames: &[Vec<u8>]) -> ([std::net::Ipv4Addr; 2], Vec<u8>) {
    use smoltcp::wire::{EthernetFrame, Ipv4Packet};
    let mut payload = Vec::new();
    let mut addresses = None;
    for (nth, frame) in frames.iter().enumerate() {
        let ethernet = EthernetFrame::new_checked(frame).unwrap();
        let packet = Ipv4Packet::new_checked(ethernet.payload()).unwrap();
        assert!(packet.verify_checksum(), "the header of fragment {nth}");
        assert_eq!(usize::from(packet.frag_offset()), payload.len());
        assert_eq!(packet.more_frags(), nth + 1 < frames.len());
        assert_eq!(packet.dont_frag(), frames.len() == 1);
        let these = [packet.src_addr(), packet.dst_addr()];
        assert_eq!(*addresses.get_or_insert(these), these);
        payload.extend(packet.payload());
    }
    (addresses.unwrap(), payload)
}
