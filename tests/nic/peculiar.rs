//! What is so of our cards, and need not be of others.

use std::time::{Duration, Instant};

use pinwire::dma::Pool;
use pinwire::nic::{Counter, Nic, NicConfig, Offload, OffloadFlags, Received};
use pinwire::testing::{Card, THEIR_MAC, Wire};

/// Starts every card that is no fake, with `config`.
fn on_cards(config: &NicConfig, body: impl Fn(&dyn Card, &mut dyn Nic, &dyn Wire)) {
    for card in crate::cards().all().filter(|card| !card.is_fake()) {
        println!("--- {}", card.name());
        if let Err(why) = card.is_at_hand() {
            crate::common::not_run(&why);
            continue;
        }
        let (mut nic, wire) = card.start(config).unwrap();
        body(card, &mut *nic, &*wire);
    }
}

#[test]
fn our_cards_say_their_speed_and_who_counts() {
    on_cards(&NicConfig::default(), |card, nic, _| {
        let is_virtio = nic.model().starts_with("virtio");
        let link = nic.link();
        assert!(link.full_duplex, "{}: {link:?}", card.name());
        // A virtual card need not say how fast it is.
        let unknown = link.mbps == 0 && is_virtio;
        assert!(link.mbps == 1000 || unknown, "{}: {link:?}", card.name());
        let counter = match is_virtio {
            true => Counter::Driver,
            false => Counter::Card,
        };
        let stats = nic.stats();
        assert_eq!(stats.counted_by, counter, "{}", card.name());
        let counts_missed = stats.rx_missed.is_some();
        assert_eq!(counts_missed, counter == Counter::Card, "{}", card.name());
    });
}

#[test]
fn of_our_cards_one_cuts_tcp_over_ipv6_right_and_the_others_refuse() {
    on_cards(&NicConfig::default(), |card, nic, _| {
        if nic.model() == "Intel 82574L" {
            return;
        }
        let pool = Pool::new(nic.dma(), 1, 16_384).unwrap();
        let mut buf = pool.alloc().unwrap();
        buf.fill(&[0; 8074]);
        let mut frame = pinwire::nic::Frame::from(buf);
        frame.set_offload(Offload {
            flags: OffloadFlags::IPV6 | OffloadFlags::TCP_CHECKSUM | OffloadFlags::TSO,
            l2_len: 14,
            l3_len: 40,
            l4_len: 20,
            mss: 1440,
            vlan: 0,
        });
        let mut frames = vec![frame];
        let error = nic.send(&mut frames).unwrap_err();
        let is_refusal = matches!(error, pinwire::Error::NotOffered { .. });
        assert!(is_refusal, "{}: {error}", card.name());
        assert_eq!(frames.len(), 1);
    });
}

#[test]
fn our_cards_take_a_jumbo_frame_in_over_buffers_of_2048_bytes() {
    let config = NicConfig::default().max_frame(9014);
    on_cards(&config, |card, nic, wire| {
        let header = [&nic.mac().0[..], &THEIR_MAC.0, &0x88b5u16.to_be_bytes()].concat();
        wire.send(&[header, vec![7; 9000]].concat());
        let begin = Instant::now();
        let mut got: Vec<Received> = Vec::new();
        while nic.recv(&mut got, 1).unwrap() == 0 {
            nic.wait(Duration::from_millis(200)).unwrap();
            assert!(begin.elapsed() < Duration::from_secs(15), "{}", card.name());
        }
        assert_eq!(got[0].frame.segments().count(), 5, "{}", card.name());
    });
}
