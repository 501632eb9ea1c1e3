//! Sleeping until something comes, and what can be asked of a card meanwhile.

use std::time::{Duration, Instant};

use crate::dma::Pool;
use crate::error::Error;
use crate::nic::{Counter, Waiting};
use crate::testing::frames::*;
use crate::testing::{Card, Outcome, config, left_out, on, on_real};

pub fn an_idle_wait_sleeps_and_a_frame_ends_it(card: &dyn Card) -> Outcome {
    on(card, config(), |nic, wire| {
        let mac = nic.mac();
        wire.send(&into(mac, 0, 60));
        receive(nic, 1);
        // It may be told once more of what it has seen.
        let begin = Instant::now();
        while nic.wait(Duration::from_millis(100)).unwrap() {
            let sleeps = begin.elapsed() < Duration::from_secs(5);
            assert!(sleeps, "it does not sleep");
        }
        wire.send(&into(mac, 1, 60));
        let begin = Instant::now();
        assert!(nic.wait(Duration::from_secs(10)).unwrap());
        assert!(begin.elapsed() < Duration::from_secs(5));
        receive(nic, 1);
        Ok(())
    })
}

/// It comes in before the driver looks, between its look and its sleep, and when it sleeps.
pub fn no_frame_is_slept_on_whenever_it_comes(card: &dyn Card) -> Outcome {
    const LOST: Duration = Duration::from_secs(10);
    for waiting in [Waiting::Interrupt, Waiting::Adaptive] {
        let config = config().waiting(waiting);
        on(card, config, |nic, wire| {
            let (mac, mut got) = (nic.mac(), Vec::new());
            for round in 0..300 {
                wire.send(&into(mac, round, 60));
                for _ in 0..10 * round {
                    std::hint::spin_loop();
                }
                let begin = Instant::now();
                while nic.recv(&mut got, 8).unwrap() == 0 {
                    nic.wait(LOST).unwrap();
                    assert!(begin.elapsed() < LOST, "round {round}");
                }
                // Its buffer is returned: the pool need not hold all rounds.
                got.clear();
            }
            Ok(())
        })?;
    }
    Ok(())
}

pub fn a_polled_card_has_no_interrupt(card: &dyn Card) -> Outcome {
    let config = config().waiting(Waiting::Poll);
    on(card, config, |nic, wire| {
        let pair = nic.pair_mut(0);
        assert!(pair.irq().is_none());
        let error = pair.arm().expect_err("it has no interrupt");
        assert!(matches!(error, Error::NotOffered { .. }), "{error}");
        let frame = into(nic.mac(), 1, 60);
        wire.send(&frame);
        assert_eq!(contents(&receive(nic, 1)), [frame]);
        Ok(())
    })
}

pub fn counters_say_what_happened(card: &dyn Card) -> Outcome {
    on_real(card, config(), |nic, wire| {
        let pool = Pool::new(nic.dma(), 8, 2048).unwrap();
        send_all(nic, (0..8).map(|i| frame(&pool, &out(i, 100))).collect());
        for _ in 0..8 {
            wire.recv_ours();
        }
        for i in 0..4 {
            wire.send(&into(nic.mac(), i, 200));
        }
        receive(nic, 4);
        let stats = nic.stats();
        // QEMU's e1000e left the check sequence out of the bytes that it sent, and later does not.
        let sent = match (nic.model(), stats.tx_bytes) {
            ("Intel 82574L", 800) => 100,
            _ => 104,
        };
        let is_cards = stats.counted_by == Counter::Card;
        assert_eq!(stats.by_card().is_some(), is_cards, "{stats:?}");
        assert_eq!((stats.tx_frames, stats.rx_frames), (8, 4), "{stats:?}");
        let bytes = (stats.tx_bytes, stats.rx_bytes);
        assert_eq!(bytes, (8 * sent, 4 * 204), "{stats:?}");
        // Not what it missed: QEMU's e1000 does not clear MPC where it is read, so that frames which it missed under an
        // earlier owner are in it for good.
        assert_eq!(stats.rx_errors, 0, "{stats:?}");

        send_all(nic, vec![frame(&pool, &out(9, 100))]);
        let again = nic.stats();
        assert_eq!((again.tx_frames, again.rx_frames), (9, 4), "once each");
        assert_eq!(again.tx_bytes, 9 * sent, "once each");
        Ok(())
    })
}

pub fn the_link_says_that_it_is_up_and_how_fast(card: &dyn Card) -> Outcome {
    on_real(card, config(), |nic, _| {
        let link = nic.link();
        assert!(link.up, "{link:?}");
        match link.mbps {
            0 => left_out("its link has no speed"),
            _ => Ok(()),
        }
    })
}
