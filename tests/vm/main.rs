//! What runs in the VM, a boot a test or a few; `PINWIRE_VM=1` asks for it. All in one program, so that none
//! has a processor to itself while others could boot.
#![cfg(all(feature = "cli", feature = "testing"))]

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod bind;
mod card;
mod cli;
mod demo;
mod disk;
mod faults;
mod ladder;
mod ladder_cache;
mod ladder_card;
mod machine;
mod pagecache;
mod peer;
mod rungs;
mod shared_line;
mod tap;
mod user;
mod vfio;
