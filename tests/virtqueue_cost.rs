//! A chain through a virtqueue costs no allocation. Its instructions are counted by `benches/queues.rs`.

mod batches;
mod fakes;

use batches::queues::Passing;
use batches::{Counting, allocations};
use pinwire::nic::Frame;
use pinwire::virtio::{Packed, Ring, Split};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}

fn a_packet_allocates_nothing<R: Ring<Frame>>(packed: bool) {
    for (pieces, in_order) in [(1, false), (1, true), (2, false), (4, false), (4, true)] {
        let mut passing = Passing::<R>::new(packed, in_order);
        passing.one_by_one(pieces, 2);
        let allocated = allocations(|| {
            passing.one_by_one(pieces, 300);
            passing.all_at_once(300);
        });
        assert_eq!(allocated, 0, "{pieces} pieces");
    }
}

#[test]
fn a_packet_allocates_nothing_split() {
    a_packet_allocates_nothing::<Split<Frame>>(false);
}

#[test]
fn a_packet_allocates_nothing_packed() {
    a_packet_allocates_nothing::<Packed<Frame>>(true);
}
