//! The far end that is not our code, and files to send to it.

#![allow(dead_code, reason = "each test uses some of it")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};

use sha2::{Digest, Sha256};

/// `qemu/far-end`, ended with the test.
pub struct Python {
    child: Child,
    pub address: SocketAddr,
}

impl Python {
    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn start() -> Self {
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/qemu/far-end");
        let mut child = Command::new("python3")
            .arg(program)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3, for the far end");
        let mut line = String::new();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        said.read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap();
        let address = (Ipv4Addr::LOCALHOST, port).into();
        Self { child, address }
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of so many bytes, and their hash.
pub fn file_of(len: usize) -> (File, String) {
    let mut bytes = vec![0; len];
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    for chunk in bytes.chunks_mut(8) {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        chunk.copy_from_slice(&word.to_le_bytes()[..chunk.len()]);
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file.rewind().unwrap();
    (file, hex(&Sha256::digest(&bytes)))
}

/// The length of a file, and the hash of what is in it.
pub fn hash(file: &mut File) -> (u64, String) {
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    (bytes.len() as u64, hex(&Sha256::digest(&bytes)))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
