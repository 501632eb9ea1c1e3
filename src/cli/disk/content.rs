//! What a disk holds, as far as its first bytes tell: enough not to destroy it unasked.

/// Bytes from the beginning that are looked at.
pub const BYTES: u64 = 128 << 10;

/// Offset, bytes there, and what they are the sign of.
const SIGNS: &[(usize, &[u8], &str)] = &[
    (512, b"EFI PART", "a partition table (GPT)"),
    (
        4096,
        b"EFI PART",
        "a partition table (GPT, blocks of 4096 bytes)",
    ),
    (1080, &[0x53, 0xef], "a file system (ext2, ext3 or ext4)"),
    (0, b"XFSB", "a file system (XFS)"),
    (0x10040, b"_BHRfS_M", "a file system (btrfs)"),
    (1024, &[0x10, 0x20, 0xf5, 0xf2], "a file system (F2FS)"),
    (3, b"NTFS    ", "a file system (NTFS)"),
    (3, b"EXFAT   ", "a file system (exFAT)"),
    (0x8001, b"CD001", "a file system (ISO 9660)"),
    (0, b"hsqs", "a file system (squashfs)"),
    (0, b"LUKS\xba\xbe", "an encrypted volume (LUKS)"),
    (512, b"LABELONE", "a physical volume (LVM)"),
    (0, b"LABELONE", "a physical volume (LVM)"),
    (4086, b"SWAPSPACE2", "swap space"),
    (4096, &[0xfc, 0x4e, 0x2b, 0xa9], "a part of an array (md)"),
    (0, &[0xfc, 0x4e, 0x2b, 0xa9], "a part of an array (md)"),
    (54, b"FAT16", "a file system (FAT)"),
    (82, b"FAT32", "a file system (FAT)"),
    // Last: file systems of Windows have it, too.
    (
        510,
        &[0x55, 0xaa],
        "a partition table or a boot sector (MBR)",
    ),
];

/// What it is, where the bytes that it begins with are a sign of something.
pub fn of(head: &[u8]) -> Option<&'static str> {
    let is = |at: usize, sign: &[u8]| head.get(at..at + sign.len()) == Some(sign);
    SIGNS
        .iter()
        .find(|(at, sign, _)| is(*at, sign))
        .map(|(.., what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_is_found_and_zeros_are_none() {
        assert_eq!(of(&[0; BYTES as usize]), None);
        assert_eq!(of(&[]), None);
        for (at, sign, what) in SIGNS {
            let mut head = vec![0; BYTES as usize];
            head[*at..at + sign.len()].copy_from_slice(sign);
            assert_eq!(of(&head), Some(*what));
            // Cut off in the middle of it.
            assert_eq!(of(&head[..at + 1]), None);
        }
    }
}
