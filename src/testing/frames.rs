//! Frames that claims are checked with, and what is done with them.

use std::time::{Duration, Instant};

use super::{OUR_MAC, THEIR_MAC};
use crate::dma::Pool;
use crate::error::Error;
use crate::nic::{Frame, Mac, Nic, Received};

/// Longest time that a card may take to send what it was given.
const SENT: Duration = Duration::from_secs(10);
/// Longest time until what is on the wire has come in.
const ARRIVED: Duration = Duration::from_secs(15);

/// `len` bytes that no other `seed` has.
pub fn bytes(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (seed * 31 + i * 7 + i / 256) as u8)
        .collect()
}

/// An Ethernet frame of `len` bytes, of the EtherType for experiments.
fn ethernet(to: Mac, from: Mac, seed: usize, len: usize) -> Vec<u8> {
    let mut frame = [&to.0[..], &from.0[..], &0x88b5u16.to_be_bytes()].concat();
    frame.extend(bytes(seed, len - 14));
    frame
}

/// A frame for the card to send.
pub fn out(seed: usize, len: usize) -> Vec<u8> {
    ethernet(Mac::BROADCAST, OUR_MAC, seed, len)
}

/// A frame for the card to receive.
pub fn into(to: Mac, seed: usize, len: usize) -> Vec<u8> {
    ethernet(to, THEIR_MAC, seed, len)
}

/// `content` in one buffer.
pub fn frame(pool: &Pool, content: &[u8]) -> Frame {
    let mut buf = pool.alloc().expect("a buffer");
    buf.fill(content);
    buf.into()
}

/// `content` in several buffers, cut at `cuts`.
pub fn scattered(pool: &Pool, content: &[u8], cuts: &[usize]) -> Frame {
    let ends: Vec<_> = cuts.iter().copied().chain([content.len()]).collect();
    let mut start = 0;
    let mut whole: Option<Frame> = None;
    for end in ends {
        let mut buf = pool.alloc().expect("a buffer");
        buf.fill(&content[start..end]);
        match &mut whole {
            None => whole = Some(buf.into()),
            Some(frame) => frame.append(buf),
        }
        start = end;
    }
    whole.expect("at least one buffer")
}

/// Sends `frames` and waits until all have come back.
pub fn send_all(nic: &mut dyn Nic, mut frames: Vec<Frame>) {
    let begin = Instant::now();
    while !frames.is_empty() || nic.in_flight() > 0 {
        nic.send(&mut frames).expect("frames that can be sent");
        nic.completed(&mut Vec::new()).expect("a card that runs");
        assert!(begin.elapsed() < SENT, "the card does not send");
    }
}

/// The frames that came in, `count` of them.
pub fn receive(nic: &mut dyn Nic, count: usize) -> Vec<Received> {
    let begin = Instant::now();
    let mut got = Vec::new();
    while got.len() < count {
        if nic.recv(&mut got, count).expect("a card that runs") == 0 {
            nic.wait(Duration::from_millis(200))
                .expect("a card that runs");
        }
        let came = got.len();
        assert!(begin.elapsed() < ARRIVED, "{came} of {count} frames");
    }
    got
}

/// Checks that what a card does not offer it refuses, and keeps nothing.
pub fn assert_refused(nic: &mut dyn Nic, frame: Frame) {
    let (offload, mut frames) = (frame.offload(), vec![frame]);
    let error = nic.send(&mut frames).expect_err("it is not offered");
    let is_refusal = matches!(error, Error::NotOffered { .. });
    assert!(is_refusal, "{offload:?}: {error}");
    assert_eq!((frames.len(), nic.in_flight()), (1, 0), "{offload:?}");
}

/// The bytes of each.
pub fn contents(got: &[Received]) -> Vec<Vec<u8>> {
    got.iter().map(|received| received.frame.to_vec()).collect()
}
