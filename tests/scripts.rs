//! The scripts in qemu/ that the tests themselves rest on.

mod scripts {
    pub mod suite;
}
