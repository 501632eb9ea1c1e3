//! Stopping a card, and starting it again.

use std::time::Duration;

use crate::dma::Pool;
use crate::error::Error;
use crate::inspect::RingView;
use crate::nic::Nic;
use crate::testing::frames::*;
use crate::testing::{Card, LeftOut, Outcome, config, left_out, on};

/// For so long a card is watched that must do nothing: QEMU's e1000 starts to receive a second after it was told.
const WATCHED: Duration = Duration::from_millis(1500);

fn receive_ring(nic: &dyn Nic) -> Result<RingView, LeftOut> {
    let mut rings = nic.rings().into_iter();
    match rings.find(|ring| ring.name == "receive") {
        Some(ring) => Ok(ring),
        None => left_out("its driver shows no receive ring (Inspect::rings)"),
    }
}

pub fn a_stopped_card_does_not_touch_memory(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, wire| {
        nic.stop().unwrap();
        let before = receive_ring(nic)?;
        let buffers = contents_of_buffers(&before);
        wire.send(&into(nic.mac(), 1, 60));
        std::thread::sleep(WATCHED);
        let after = receive_ring(nic)?;
        assert_eq!(before.indices, after.indices);
        for (before, after) in before.slots.iter().zip(&after.slots) {
            assert_eq!(before.words, after.words);
        }
        assert!(contents_of_buffers(&after) == buffers, "a buffer changed");
        Ok(())
    })
}

/// Content of the buffers that are posted to a device, which is stopped.
fn contents_of_buffers(ring: &RingView) -> Vec<u8> {
    let buffers = ring.slots.iter().filter_map(|slot| slot.buffer);
    buffers
        .flat_map(|(_, address, len)| {
            // SAFETY: the ring owns a buffer of that length there, and gives it to nobody while it is looked at.
            unsafe { std::slice::from_raw_parts(address as *const u8, len) }
        })
        .copied()
        .collect()
}

pub fn a_stopped_card_refuses_all_until_it_is_restarted(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, wire| {
        let pool = Pool::new(nic.dma(), 2, 2048).unwrap();
        nic.stop().unwrap();
        nic.stop().expect("stopping it once more does nothing");
        let mut frames = vec![frame(&pool, &out(1, 100))];
        let pair = nic.pair_mut(0);
        assert!(pair.is_ready(), "there is an error to be told");
        let answers = [
            ("post", pair.submit(&mut frames).map(drop)),
            ("doorbell", pair.doorbell()),
            ("completed", pair.completed(&mut Vec::new()).map(drop)),
            ("recv", pair.recv(&mut Vec::new(), 1).map(drop)),
            ("arm", pair.arm().map(drop)),
            ("wait", pair.wait(Duration::ZERO).map(drop)),
            ("check_running", pair.check_running()),
        ];
        for (what, answer) in answers {
            let is_stopped = matches!(answer, Err(Error::Stopped { .. }));
            assert!(is_stopped, "{what}: {answer:?}");
        }
        assert_eq!(frames.len(), 1, "the frame stays");
        assert!(nic.restart().unwrap().is_empty(), "nothing was in flight");
        send_all(nic, frames);
        assert_eq!(wire.recv_ours(), out(1, 100));
        let theirs = into(nic.mac(), 2, 100);
        wire.send(&theirs);
        assert_eq!(contents(&receive(nic, 1)), [theirs]);
        Ok(())
    })
}
