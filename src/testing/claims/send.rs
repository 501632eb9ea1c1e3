//! What is sent.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use rustix::fs::{MemfdFlags, memfd_create};

use crate::backend::{Backend, Fake};
use crate::dma::{DmaFile, Pool};
use crate::error::Error;
use crate::testing::frames::*;
use crate::testing::{Card, OUR_MAC, Outcome, THEIR_MAC, asked, config, on, on_real};

pub fn frames_of_every_length_leave_as_they_are(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, wire| {
        let pool = Pool::new(nic.dma(), 64, 2048).unwrap();
        for (seed, len) in [60, 61, 64, 65, 127, 128, 1000, 1513, 1514]
            .into_iter()
            .enumerate()
        {
            send_all(nic, vec![frame(&pool, &out(seed, len))]);
            assert_eq!(wire.recv_ours(), out(seed, len), "{len} bytes");
        }
        // One shorter than the wire wants: the card, or its driver, pads it.
        let short = nic.min_tx_frame().max(14);
        send_all(nic, vec![frame(&pool, &out(99, short))]);
        assert_eq!(wire.recv_ours()[..short], out(99, short), "{short} bytes");
        Ok(())
    })
}

pub fn the_ring_wraps_many_times(card: &dyn Card) -> Outcome {
    let config = config().tx_ring(8);
    on(card, config, |nic, wire| {
        let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
        for round in 0..40 {
            let frames = (0..5)
                .map(|i| frame(&pool, &out(round * 5 + i, 60 + i)))
                .collect();
            send_all(nic, frames);
            for i in 0..5 {
                let expected = out(round * 5 + i, 60 + i);
                assert_eq!(wire.recv_ours(), expected, "round {round}");
            }
        }
        Ok(())
    })
}

pub fn a_frame_of_many_segments_leaves_whole(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, wire| {
        let pool = Pool::new(nic.dma(), 64, 2048).unwrap();
        let content = out(1, 1514);
        for cuts in [&[14][..], &[1, 2, 3], &[42, 600, 601, 1500, 1513]] {
            send_all(nic, vec![scattered(&pool, &content, cuts)]);
            assert_eq!(wire.recv_ours(), content, "cut at {cuts:?}");
        }
        Ok(())
    })
}

pub fn the_longest_frame_leaves_whole_and_one_too_long_is_refused(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, wire| {
        let most = nic.max_tx_frame();
        let pool = Pool::new(nic.dma(), 2, most + 1).unwrap();
        let mut frames = vec![frame(&pool, &out(1, most + 1))];
        let error = nic.send(&mut frames).expect_err("it is too long");
        assert!(matches!(error, Error::FrameLength { .. }), "{error}");
        assert_eq!((frames.len(), nic.in_flight()), (1, 0));
        drop(frames);
        let seen = out(1, most.min(wire.longest()));
        send_all(nic, vec![frame(&pool, &seen)]);
        assert_eq!(wire.recv_ours(), seen);
        Ok(())
    })
}

pub fn a_frame_of_another_space_is_refused_and_stays(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, wire| {
        let other = Fake::idle();
        let foreign = Pool::new(other.dma(), 2, 2048).unwrap();
        let ours = Pool::new(nic.dma(), 2, 2048).unwrap();
        let content = out(1, 100);
        // All of it, or a part behind our own.
        let mut behind = frame(&ours, &content[..60]);
        behind.append(
            frame(&foreign, &content[60..])
                .into_buf()
                .expect("a buffer"),
        );
        for refused in [frame(&foreign, &content), behind] {
            let mut frames = vec![refused];
            let error = nic.send(&mut frames).expect_err("it is of another space");
            assert!(matches!(error, Error::ForeignMemory { .. }), "{error}");
            assert_eq!((frames.len(), nic.in_flight()), (1, 0));
        }
        send_all(nic, vec![frame(&ours, &content)]);
        assert_eq!(wire.recv_ours(), content);
        Ok(())
    })
}

pub fn received_buffers_can_be_sent_again(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, wire| {
        for seed in 0..20 {
            wire.send(&into(nic.mac(), seed, 100));
            let received = receive(nic, 1).pop().unwrap();
            let mut buf = received.frame.into_buf().expect("one buffer");
            buf.put(0, &THEIR_MAC.0);
            buf.put(6, &OUR_MAC.0);
            send_all(nic, vec![buf.into()]);
            let expected = [&THEIR_MAC.0, &OUR_MAC.0, &into(nic.mac(), seed, 100)[12..]].concat();
            assert_eq!(wire.recv_ours(), expected);
        }
        Ok(())
    })
}

/// A file in memory, whose page cache it is.
fn file(content: &[u8]) -> File {
    let descriptor =
        memfd_create("pinwire-testing", MemfdFlags::CLOEXEC).expect("a file in memory");
    let mut file = File::from(descriptor);
    file.write_all(content).expect("room for it");
    file
}

pub fn the_payload_is_read_from_the_page_cache(card: &dyn Card) -> Outcome {
    // Not on a fake: that is the CPU, which may not read the payload.
    on_real(card, config(), |nic, wire| {
        let pool = Pool::new(nic.dma(), 4, 64).unwrap();
        let mut content = bytes(9, 10_000);
        let file = file(&content);
        let mapped = asked(DmaFile::map(nic.dma(), &file, 4))?;
        mapped.deny_cpu().unwrap();
        let header = out(0, 42);
        for (offset, len) in [(0, 1), (0, 1400), (4095, 2), (8600, 1400)] {
            let mut whole = frame(&pool, &header);
            whole.append(mapped.slice(offset, len).unwrap());
            send_all(nic, vec![whole]);
            let got = wire.recv_ours();
            let payload = &content[offset as usize..][..len];
            let expected = [&header, payload].concat();
            assert_eq!(got[..42 + len], expected, "{len} at {offset}");
        }
        // What is written to the file is in the next frame.
        file.write_all_at(b"changed", 100).unwrap();
        content[100..107].copy_from_slice(b"changed");
        let mut whole = frame(&pool, &header);
        whole.append(mapped.slice(90, 50).unwrap());
        send_all(nic, vec![whole]);
        assert_eq!(wire.recv_ours()[42..92], content[90..140]);
        Ok(())
    })
}
