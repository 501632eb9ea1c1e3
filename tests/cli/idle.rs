//! To wait for frames costs next to nothing, unless it is asked to be by polling.

use std::thread;
use std::time::{Duration, Instant};

use pinwire::net::Arp;
use pinwire::nic::Mac;

use crate::{BOUND, Running, Wire, on_every_card, on_every_card_in_turn, spawn};

/// A command that waits for frames, and the cables that its frames come in and out by.
struct Waiter {
    args: String,
    child: Running,
    ahead: Wire,
    /// None: they come out where they came in.
    behind: Option<Wire>,
}

impl Waiter {
    fn answering(command: &str, card: &str, how: &str) -> Self {
        let wire = Wire::new();
        let device = wire.device(card);
        let args = [command, &device, "--address", "10.1.2.5", "--wait", how];
        Self::new(args, wire, None)
    }

    fn forwarding(card: &str, how: &str) -> Self {
        let wires = [Wire::new(), Wire::new()];
        let [a, b] = wires.each_ref().map(|wire| wire.device(card));
        let [ahead, behind] = wires;
        Self::new(["forward", &a, &b, "--wait", how], ahead, Some(behind))
    }

    fn new<const N: usize>(args: [&str; N], ahead: Wire, behind: Option<Wire>) -> Self {
        let waiter = Self {
            args: args.join(" "),
            child: Running(spawn(args)),
            ahead,
            behind,
        };
        waiter.wait_until_up();
        waiter
    }

    /// Until a question has been answered, or has passed.
    fn wait_until_up(&self) {
        let asker = (Mac([2, 0, 0, 0, 0, 9]), [10, 1, 2, 4].into());
        let question = Arp::ask(asker, [10, 1, 2, 5].into()).frame();
        let begin = Instant::now();
        while self
            .behind
            .as_ref()
            .unwrap_or(&self.ahead)
            .try_recv()
            .is_none()
        {
            assert!(begin.elapsed() < BOUND, "nothing came of {}", self.args);
            self.ahead.send(&question);
        }
    }

    /// Processor time that it has used: user and system (proc(5), 14 and 15), of which Linux counts 100
    /// ticks a second.
    fn used(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.0.id())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Time for which its first thread ran, or would have if a processor had been free (proc(5), schedstat).
    fn wanted(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/schedstat", self.child.0.id()));
        let stat = stat.expect("a kernel with CONFIG_SCHED_INFO");
        let fields = stat.split_whitespace().take(2);
        Duration::from_nanos(fields.map(|field| field.parse::<u64>().unwrap()).sum())
    }

    /// It has not ended by itself, and ends with Ctrl-C.
    fn end(mut self) {
        assert!(
            self.child.0.try_wait().unwrap().is_none(),
            "{} has ended",
            self.args
        );
        self.child.interrupt();
    }
}

/// The share of a processor that each uses for `time` from now.
fn shares(waiters: &[Waiter], time: Duration) -> Vec<f64> {
    let before: Vec<_> = waiters.iter().map(Waiter::used).collect();
    let begin = Instant::now();
    thread::sleep(time);
    let used = waiters
        .iter()
        .zip(before)
        .map(|(waiter, before)| waiter.used() - before);
    used.map(|used| used.as_secs_f64() / begin.elapsed().as_secs_f64())
        .collect()
}

#[test]
fn who_waits_sleeps() {
    on_every_card(|card| {
        for how in ["adaptive", "interrupt"] {
            let waiters = [
                Waiter::answering("recv", card, how),
                Waiter::answering("echo", card, how),
                Waiter::forwarding(card, how),
            ];
            for (waiter, share) in waiters.iter().zip(shares(&waiters, Duration::from_secs(2))) {
                let percent = 100.0 * share;
                assert!(
                    share < 0.05,
                    "{}: {percent:.1} % of a processor",
                    waiter.args
                );
            }
            waiters.into_iter().for_each(Waiter::end);
        }
    });
}

/// So that the test above can fail.
#[test]
fn who_polls_does_not() {
    on_every_card_in_turn(|card| {
        let waiter = Waiter::answering("recv", card, "poll");
        let begin = Instant::now();
        // Until it is set up it waits for QEMU.
        loop {
            let (before, then) = (waiter.wanted(), Instant::now());
            thread::sleep(Duration::from_millis(500));
            // On a machine with other work it does not get what it wants.
            if waiter.wanted() - before > then.elapsed() / 2 {
                break;
            }
            assert!(begin.elapsed() < BOUND, "{} sleeps", waiter.args);
        }
        waiter.end();
    });
}
