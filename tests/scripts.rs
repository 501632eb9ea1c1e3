//! The scripts in qemu/ that the tests themselves rest on.

mod common;
mod scripts {
    pub mod setup;
    pub mod suite;
}
