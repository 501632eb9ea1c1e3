//! Instructions of a million packets of 64 bytes, sent or received by batches of 64, without what the fake card does:
//! divided by a million, those of one.

#![allow(missing_docs, reason = "gungraun's macros make public items")]

#[path = "../tests/batches/mod.rs"]
mod batches;
#[path = "../tests/fakes/mod.rs"]
mod fakes;

use batches::BATCH;
use batches::cards::{Receiving, Sending, buffer};
use gungraun::Callgrind;
use gungraun::prelude::*;

const BATCHES: usize = 1_000_000 / BATCH;

fn sending(which: &str) -> Sending {
    let mut sending = Sending::new(which, |pool| buffer(pool, 64));
    sending.batches(1);
    sending
}

fn receiving(which: &str) -> Receiving {
    let mut receiving = Receiving::new(which);
    receiving.batches(1);
    receiving
}

#[library_benchmark(setup = sending)]
#[bench::e1000("e1000")]
#[bench::split("split")]
#[bench::packed("packed")]
fn send(mut sending: Sending) -> Sending {
    sending.batches(BATCHES);
    sending
}

#[library_benchmark(setup = receiving)]
#[bench::e1000("e1000")]
#[bench::e1000e("e1000e")]
#[bench::split("split")]
#[bench::packed("packed")]
fn receive(mut receiving: Receiving) -> Receiving {
    receiving.batches(BATCHES);
    receiving
}

library_benchmark_group!(name = cards, benchmarks = [send, receive]);

main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args([
        "--cache-sim=no",
        "--toggle-collect=*device_at_work*"
    ])),
    library_benchmark_groups = cards
);
