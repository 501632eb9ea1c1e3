//! Captures that are compressed: gzip is read, what else there is is named.

use std::path::Path;

/// First bytes of compressed files, the program that made them, and the one that takes them apart again.
const NAMED: [(&[u8], &str, &str); 10] = [
    (b"\x1f\x8b", "gzip, twice", "zcat"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstdcat"),
    (b"\xfd7zXZ\0", "xz", "xzcat"),
    (b"\x04\x22\x4d\x18", "lz4", "lz4 -dc"),
    (b"BZh", "bzip2", "bzcat"),
    (b"\x1f\x9d", "compress", "zcat"),
    (b"LZIP", "lzip", "lzip -dc"),
    (b"\x89LZO", "lzop", "lzop -dc"),
    (b"PK\x03\x04", "zip", "unzip -p"),
    (b"7z\xbc\xaf\x27\x1c", "7z", "7z x -so"),
];

/// Returns whether what begins so is compressed by gzip.
pub fn is_gzip(head: &[u8]) -> bool {
    head.starts_with(b"\x1f\x8b")
}

/// The complaint about the file at `path`, if it begins as one compressed in a way that is not read here.
pub fn named(head: &[u8], path: &Path) -> Option<String> {
    let (_, name, cat) = NAMED.iter().find(|(magic, ..)| head.starts_with(magic))?;
    Some(format!(
        "it is compressed ({name})\n  decompress it first: {cat} {}",
        path.display()
    ))
}
