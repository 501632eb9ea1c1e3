//! Long streams that are relayed, and logged: all of them, and in their order.

use std::fs::File;
use std::net::TcpStream;

use pinwire::paths::ladder::{Job, Kind, Receiver, Sink, Terms};
use rustix::fs::{MemfdFlags, memfd_create};

use super::files::{HUGE, Kept, mark, passing};
use super::taker::{Habit, Taker};
use super::{GO_ON, PROGRESS, every, feed};

#[test]
fn a_stream_of_5_gib_goes_whole_to_its_end_and_into_its_log() {
    let file = File::from(memfd_create("huge", MemfdFlags::CLOEXEC).unwrap());
    mark(&file);
    every(&[Kind::Relay, Kind::Log], |rung, protocol| {
        let taker = Taker::start(Habit::Drains);
        let most = 1 << 20;
        let mut far = Receiver::announce(taker.address, None, protocol, (HUGE, most)).unwrap();
        let terms = Terms {
            len: HUGE,
            most,
            stop: &GO_ON,
            progress: &PROGRESS,
        };
        let stream = TcpStream::connect(far.data()).unwrap();
        let log = (rung.kind == Kind::Log).then(passing);
        let mut job = Job {
            file: &file,
            sink: Sink::stream(stream, terms).unwrap(),
            from: Some(feed(&file, HUGE)),
            into: log.as_ref().map(|(log, _)| log),
            interface: None,
            card: None,
        };
        (rung.run)(&mut job).unwrap();
        drop(job);
        assert_eq!(far.delivered(&GO_ON).unwrap().bytes, HUGE, "{}", rung.name);
        let kept = taker.taken.recv().unwrap().concat();
        assert_eq!(kept, [1, 2, 3, 4], "{}", rung.name);
        if let Some((log, passed)) = log {
            drop(log);
            assert_eq!(Kept::Passed(passed).marks(), [1, 2, 3, 4], "{}", rung.name);
        }
    });
}
