//! Instructions of a million chains of one buffer through a virtqueue and back, by batches of 64, without what the fake
//! device does: divided by a million, those of one.

#![allow(missing_docs, reason = "gungraun's macros make public items")]

#[path = "../tests/batches/mod.rs"]
mod batches;
#[path = "../tests/fakes/mod.rs"]
mod fakes;

use batches::BATCH;
use batches::queues::Passing;
use gungraun::Callgrind;
use gungraun::prelude::*;
use pinwire::nic::Frame;
use pinwire::virtio::{Packed, Split};

const BATCHES: usize = 1_000_000 / BATCH;

fn split() -> Passing<Split<Frame>> {
    let mut passing = Passing::new(false, false);
    passing.all_at_once(1);
    passing
}

fn packed() -> Passing<Packed<Frame>> {
    let mut passing = Passing::new(true, false);
    passing.all_at_once(1);
    passing
}

#[library_benchmark]
#[bench::one_by_one(setup = split)]
fn split_one_by_one(mut passing: Passing<Split<Frame>>) -> Passing<Split<Frame>> {
    passing.one_by_one(1, BATCHES);
    passing
}

#[library_benchmark]
#[bench::all_at_once(setup = split)]
fn split_all_at_once(mut passing: Passing<Split<Frame>>) -> Passing<Split<Frame>> {
    passing.all_at_once(BATCHES);
    passing
}

#[library_benchmark]
#[bench::one_by_one(setup = packed)]
fn packed_one_by_one(mut passing: Passing<Packed<Frame>>) -> Passing<Packed<Frame>> {
    passing.one_by_one(1, BATCHES);
    passing
}

#[library_benchmark]
#[bench::all_at_once(setup = packed)]
fn packed_all_at_once(mut passing: Passing<Packed<Frame>>) -> Passing<Packed<Frame>> {
    passing.all_at_once(BATCHES);
    passing
}

library_benchmark_group!(
    name = queues,
    benchmarks = [
        split_one_by_one,
        split_all_at_once,
        packed_one_by_one,
        packed_all_at_once
    ]
);

main!(
    config = LibraryBenchmarkConfig::default().tool(Callgrind::with_args([
        "--cache-sim=no",
        "--toggle-collect=*device_at_work*"
    ])),
    library_benchmark_groups = queues
);
