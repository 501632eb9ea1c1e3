//! Requests that another stack takes, and what answers are worth.

use std::time::Duration;

use etherparse::IpNumber;
use pinwire::Error;
use pinwire::net::{Answer, LARGEST, Ping, Verdict};
use pinwire::nic::Mac;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr};

use crate::fakes::e1000::MAC;
use crate::{Bench, ip, whole};

const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];
const OUR_IP: [u8; 4] = [10, 0, 0, 2];
const THEIR_IP: [u8; 4] = [10, 0, 0, 1];

fn pinging(size: usize, patience: Duration) -> (Bench, Ping) {
    let bench = Bench::one();
    let whom = (Mac(THEIRS), THEIR_IP.into());
    let ping = Ping::new(&bench.card, OUR_IP.into(), whom, size, patience).unwrap();
    (bench, ping)
}

/// The answer of another stack to what was sent.
fn answer(sent: &[Vec<u8>], change: impl FnOnce(&mut Vec<u8>)) -> Vec<Vec<u8>> {
    let (addresses, payload) = whole(sent);
    assert_eq!(addresses, [OUR_IP, THEIR_IP].map(std::net::Ipv4Addr::from));
    let all = ChecksumCapabilities::default();
    let packet = Icmpv4Packet::new_checked(&payload).unwrap();
    let Icmpv4Repr::EchoRequest {
        ident,
        seq_no,
        data,
    } = Icmpv4Repr::parse(&packet, &all).unwrap()
    else {
        panic!("not a request");
    };
    let mut data = data.to_vec();
    change(&mut data);
    let reply = Icmpv4Repr::EchoReply {
        ident,
        seq_no,
        data: &data,
    };
    let mut message = vec![0; reply.buffer_len()];
    reply.emit(&mut Icmpv4Packet::new_unchecked(&mut message), &all);
    ip(
        [THEIRS, MAC],
        [THEIR_IP, OUR_IP],
        IpNumber::ICMP,
        3,
        &message,
    )
}

fn hear(bench: &mut Bench, ping: &mut Ping, frames: Vec<Vec<u8>>) -> Vec<Answer> {
    bench.comes(frames);
    let mut answers = Vec::new();
    while ping
        .hear(&mut bench.card, |answer| answers.push(answer))
        .unwrap()
        > 0
    {}
    answers
}

fn verdicts(answers: &[Answer]) -> Vec<(u64, Verdict)> {
    answers
        .iter()
        .map(|answer| (answer.number, answer.verdict))
        .collect()
}

#[test]
fn a_request_of_any_size_is_answered_by_another_stack() {
    for size in [0, 1, 1472, 1473, 9000, LARGEST] {
        let (mut bench, mut ping) = pinging(size, Duration::MAX);
        for number in 0..3 {
            assert_eq!(ping.send(&mut bench.card).unwrap(), number);
            let sent = bench.sent();
            assert_eq!(sent.len(), ping.frames(&bench.card));
            let answers = hear(&mut bench, &mut ping, answer(&sent, |_| {}));
            assert_eq!(
                verdicts(&answers),
                [(number, Verdict::Good)],
                "{size} bytes"
            );
            assert_eq!(answers[0].ttl, 17);
        }
    }
}

#[test]
fn one_request_rings_one_doorbell() {
    let (mut bench, mut ping) = pinging(LARGEST, Duration::MAX);
    ping.send(&mut bench.card).unwrap();
    assert_eq!(crate::lock(&bench.device).doorbells, 1);
}

#[test]
fn fragments_in_any_order_make_an_answer() {
    let (mut bench, mut ping) = pinging(9000, Duration::MAX);
    ping.send(&mut bench.card).unwrap();
    let mut frames = answer(&bench.sent(), |_| {});
    frames.reverse();
    let last = frames.pop().unwrap();
    assert_eq!(verdicts(&hear(&mut bench, &mut ping, frames)), []);
    let answers = hear(&mut bench, &mut ping, vec![last]);
    assert_eq!(verdicts(&answers), [(0, Verdict::Good)]);
}

#[test]
fn an_answer_is_counted_once_in_time_and_only_if_it_is_what_was_sent() {
    let (mut bench, mut ping) = pinging(100, Duration::MAX);
    ping.send(&mut bench.card).unwrap();
    let first = answer(&bench.sent(), |_| {});
    let twice = [first.clone(), first].concat();
    let answers = hear(&mut bench, &mut ping, twice);
    assert_eq!(
        verdicts(&answers),
        [(0, Verdict::Good), (0, Verdict::Duplicate)]
    );

    ping.send(&mut bench.card).unwrap();
    let sent = bench.sent();
    let mut wrong = answer(&sent, |data| data[99] ^= 1);
    wrong.extend(answer(&sent, |data| data.truncate(99)));
    let answers = hear(&mut bench, &mut ping, wrong);
    assert_eq!(
        verdicts(&answers),
        [(1, Verdict::Damaged), (1, Verdict::Damaged)]
    );

    let (mut bench, mut ping) = pinging(100, Duration::ZERO);
    ping.send(&mut bench.card).unwrap();
    let sent = answer(&bench.sent(), |_| {});
    let answers = hear(&mut bench, &mut ping, sent);
    assert_eq!(verdicts(&answers), [(0, Verdict::Late)]);
}

#[test]
fn an_answer_to_somebody_else_is_none_of_ours() {
    let (mut bench, mut ping) = pinging(10, Duration::MAX);
    ping.send(&mut bench.card).unwrap();
    let right = answer(&bench.sent(), |_| {}).remove(0);
    // The identifier, the sequence number, who sends, to whom.
    for at in [39, 41, 29, 33] {
        let mut other = right.clone();
        other[at] ^= 0x40;
        assert_eq!(verdicts(&hear(&mut bench, &mut ping, vec![other])), []);
    }
    let answers = hear(&mut bench, &mut ping, vec![right]);
    assert_eq!(verdicts(&answers), [(0, Verdict::Good)]);
}

#[test]
fn numbers_go_on_past_the_sixteen_bits_of_a_sequence_number() {
    let (mut bench, mut ping) = pinging(8, Duration::MAX);
    let mut good = 0;
    for number in 0..65_540 {
        ping.send(&mut bench.card).unwrap();
        let sent = bench.sent();
        if number % 64 != 0 && number < 65_530 {
            continue;
        }
        let answers = hear(&mut bench, &mut ping, answer(&sent, |_| {}));
        assert_eq!(verdicts(&answers), [(number, Verdict::Good)]);
        good += 1;
    }
    assert!(good > 1000);
}

#[test]
fn a_size_that_no_packet_holds_is_refused() {
    let bench = Bench::one();
    let whom = (Mac(THEIRS), THEIR_IP.into());
    let refused = Ping::new(&bench.card, OUR_IP.into(), whom, LARGEST + 1, Duration::MAX);
    assert!(matches!(refused.err(), Some(Error::Usage(_))));
}
