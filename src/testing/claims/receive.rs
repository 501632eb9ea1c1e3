//! What is received, and what is not.

use std::time::{Duration, Instant};

use crate::nic::{Frame, Mac, Received};
use crate::testing::frames::*;
use crate::testing::{Card, Outcome, THEIR_MAC, asked, config, on, on_real};

/// A station that is not ours.
const OTHER: Mac = Mac([2, 9, 9, 9, 9, 9]);
const GROUP: Mac = Mac([0x01, 0x00, 0x5e, 0x00, 0x00, 0xfb]);
/// Another group. Cards filter by hashes; these two differ in all that are known.
const OTHER_GROUP: Mac = Mac([0x01, 0x00, 0x5e, 0x7f, 0x12, 0x34]);

pub fn frames_of_every_length_come_in_as_they_are(card: &dyn Card) -> Outcome {
    let config = config().rx_ring(8);
    on(card, config, |nic, wire| {
        let lengths = [60, 61, 128, 1513, 1514].into_iter().cycle();
        for (seed, len) in lengths.take(40).enumerate() {
            let expected = into(nic.mac(), seed, len);
            wire.send(&expected);
            let got = receive(nic, 1);
            assert_eq!(contents(&got), [expected], "{len} bytes");
            assert_eq!(got[0].vlan(), None);
        }
        Ok(())
    })
}

pub fn a_frame_longer_than_asked_for_is_dropped(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, wire| {
        let max_frame = config().max_frame;
        wire.send(&into(nic.mac(), 1, max_frame + 1));
        let next = into(nic.mac(), 2, 60);
        wire.send(&next);
        assert_eq!(contents(&receive(nic, 1)), [next]);
        Ok(())
    })
}

pub fn a_jumbo_frame_comes_in_whole(card: &dyn Card) -> Outcome {
    const LENGTH: usize = 9014;
    let config = config().max_frame(LENGTH);
    on(card, config, |nic, wire| {
        let content = into(nic.mac(), 1, LENGTH);
        wire.send(&content);
        assert_eq!(contents(&receive(nic, 1)), [content]);
        Ok(())
    })
}

/// Frames that come in while no buffer is posted are lost, or wait on the way; no others are.
pub fn a_pool_that_ran_dry_fills_again(card: &dyn Card) -> Outcome {
    let config = config().rx_ring(8);
    on(card, config, |nic, wire| {
        let mac = nic.mac();
        let all = nic.rx_pool().count();
        let mut kept: Vec<Received> = Vec::new();
        let begin = Instant::now();
        let mut quiet = 0;
        // Until nothing comes in any more although frames do.
        for seed in 0.. {
            wire.try_send(&into(mac, seed, 60));
            nic.wait(Duration::from_millis(20)).unwrap();
            quiet = match nic.recv(&mut kept, all + 1).unwrap() {
                0 => quiet + 1,
                _ => 0,
            };
            assert!(kept.len() <= all, "more frames than buffers");
            if quiet > 5 && kept.len() + 8 > all {
                break;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(60),
                "{} of {all} buffers were filled",
                kept.len()
            );
        }
        // All are returned; what waited on the way may come in first.
        kept.clear();
        let last = into(mac, 1_000_003, 61);
        let begin = Instant::now();
        loop {
            assert!(
                begin.elapsed() < Duration::from_secs(15),
                "nothing comes in any more"
            );
            wire.try_send(&last);
            nic.wait(Duration::from_millis(200)).unwrap();
            nic.recv(&mut kept, 8).unwrap();
            let came = kept.drain(..).map(|received| received.frame);
            if came
                .map(|frame: Frame| frame.to_vec())
                .any(|frame| frame == last)
            {
                return Ok(());
            }
        }
    })
}

pub fn the_filter_takes_what_it_should(card: &dyn Card) -> Outcome {
    on_real(card, config(), |nic, wire| {
        let mac = nic.mac();
        let to = |to, seed| into(to, seed, 60);
        asked(nic.set_multicast(&[GROUP]))?;
        // In force as the call returns.
        wire.send(&to(OTHER, 1));
        wire.send(&to(OTHER_GROUP, 2));
        wire.send(&to(GROUP, 3));
        wire.send(&to(Mac::BROADCAST, 4));
        wire.send(&to(mac, 5));
        let expected = [to(GROUP, 3), to(Mac::BROADCAST, 4), to(mac, 5)];
        assert_eq!(contents(&receive(nic, 3)), expected);
        asked(nic.set_multicast(&[]))?;
        wire.send(&to(GROUP, 6));
        wire.send(&to(mac, 7));
        assert_eq!(contents(&receive(nic, 1)), [to(mac, 7)]);
        Ok(())
    })
}

pub fn promiscuous_takes_all_and_can_be_ended(card: &dyn Card) -> Outcome {
    on_real(card, config(), |nic, wire| {
        let mac = nic.mac();
        let to = |to, seed| into(to, seed, 60);
        asked(nic.set_promiscuous(true))?;
        wire.send(&to(OTHER, 1));
        wire.send(&to(OTHER_GROUP, 2));
        let expected = [to(OTHER, 1), to(OTHER_GROUP, 2)];
        assert_eq!(contents(&receive(nic, 2)), expected);
        asked(nic.set_promiscuous(false))?;
        wire.send(&to(OTHER, 3));
        wire.send(&to(mac, 4));
        assert_eq!(contents(&receive(nic, 1)), [to(mac, 4)]);
        Ok(())
    })
}

pub fn the_vlan_filter_takes_what_it_should(card: &dyn Card) -> Outcome {
    let config = config().vlan_filter(true);
    on_real(card, config, |nic, wire| {
        let plain = into(nic.mac(), 1, 60);
        let tagged =
            |vlan: u16| [&plain[..12], &[0x81, 0], &vlan.to_be_bytes(), &plain[12..]].concat();
        asked(nic.set_vlans(Some(&[100])))?;
        for frame in [tagged(200), tagged(100), plain.clone()] {
            wire.send(&frame);
        }
        assert_eq!(contents(&receive(nic, 2)), [tagged(100), plain.clone()]);
        assert!(nic.set_vlans(Some(&[4096])).is_err(), "no VLAN id");
        asked(nic.set_vlans(None))?;
        wire.send(&tagged(200));
        assert_eq!(contents(&receive(nic, 1)), [tagged(200)]);
        Ok(())
    })
}

pub fn what_waits_for_a_card_meets_its_filter(card: &dyn Card) -> Outcome {
    on_real(card, config(), |nic, wire| {
        let mac = nic.mac();
        nic.stop().unwrap();
        for other in [OTHER, Mac([0x33, 0x33, 0, 0, 0, 2]), Mac::BROADCAST] {
            wire.send(&into(other, 1, 60));
        }
        nic.restart().unwrap();
        let ours = into(mac, 2, 60);
        wire.send(&ours);
        // A card may have dropped what came while it was stopped.
        let came = contents(&receive(nic, 1)).remove(0);
        if came != ours {
            assert_eq!(came, into(Mac::BROADCAST, 1, 60));
            assert_eq!(contents(&receive(nic, 1)), [ours]);
        }
        assert_ne!(mac, THEIR_MAC);
        Ok(())
    })
}
