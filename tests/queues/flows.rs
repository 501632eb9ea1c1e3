//! What goes over the cable to find out which pair of a card a flow comes in by.

#![allow(dead_code, reason = "each test uses some of it")]

use etherparse::PacketBuilder;

/// What the wire's other side knows our frames by.
pub const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The number of a flow's last datagram: who takes it in is told to end.
pub const LAST: usize = u32::MAX as usize;

/// A datagram of a flow, to `mac`.
pub fn datagram(mac: [u8; 6], flow: usize, number: usize) -> Vec<u8> {
    let mut packet = Vec::new();
    let from = [10, 0, (flow / 16) as u8, 2 + (flow % 16) as u8];
    PacketBuilder::ethernet2([2, 0, 0, 0, 0, 2], mac)
        .ipv4(from, [10, 0, 0, 1], 64)
        .udp(1000 + flow as u16, 9)
        .write(
            &mut packet,
            &[flow as u32, number as u32].map(u32::to_be_bytes).concat(),
        )
        .unwrap();
    packet.resize(60, 0);
    packet
}

/// The flow and number of a [`datagram`].
pub fn read(bytes: &[u8], mac: [u8; 6]) -> Option<(usize, usize)> {
    let (flow, number) = (word(bytes, 42)?, word(bytes, 46)?);
    let is_one = flow < 4096 && bytes == datagram(mac, flow, number);
    is_one.then_some((flow, number))
}

/// What pair `pair` says when datagram `number` of a flow has come in by it.
pub fn answer(pair: usize, flow: usize, number: usize) -> Vec<u8> {
    let words = [pair, flow, number].map(|word| (word as u32).to_be_bytes());
    let mut frame = [&[0xff; 6][..], &OUR_MAC, &0x88b5u16.to_be_bytes()].concat();
    frame.extend(words.as_flattened());
    frame.resize(60, 0);
    frame
}

/// Pair, flow and number of an [`answer`].
pub fn read_answer(bytes: &[u8]) -> Option<(usize, usize, usize)> {
    let (pair, flow, number) = (word(bytes, 14)?, word(bytes, 18)?, word(bytes, 22)?);
    (bytes == answer(pair, flow, number)).then_some((pair, flow, number))
}

fn word(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_be_bytes(bytes) as usize)
}
