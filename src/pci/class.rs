//! Kinds of functions, by class code (PCI Code and ID Assignment specification, §1).

/// Network controllers.
const NETWORK: u32 = 0x02;
/// Bridges.
const BRIDGE: u32 = 0x06;

/// Returns whether it is a network function.
pub(super) fn is_network(class: u32) -> bool {
    class >> 16 == NETWORK
}

/// Returns whether it is an NVMe controller: non-volatile memory, §1.2, with the interface 02h.
pub(super) fn is_nvme(class: u32) -> bool {
    class == 0x01_08_02
}

/// Returns whether it is a bridge.
pub(super) fn is_bridge(class: u32) -> bool {
    class >> 16 == BRIDGE
}

/// The name of a class, as it stands in a sentence.
pub(super) fn name(class: u32) -> &'static str {
    match class >> 8 {
        0x0100 => "a SCSI controller",
        0x0101 => "an IDE controller",
        0x0104 => "a RAID controller",
        0x0106 => "a SATA controller",
        0x0107 => "a SAS controller",
        0x0108 => "an NVMe controller",
        0x0403 => "an audio device",
        0x0c03 => "a USB controller",
        0x0c05 => "an SMBus controller",
        base => match base >> 8 {
            0x01 => "a storage controller",
            0x02 => "a network controller",
            0x03 => "a display controller",
            0x04 => "a multimedia device",
            0x05 => "a memory controller",
            0x06 => "a bridge",
            0x07 => "a communication controller",
            0x08 => "a system peripheral",
            0x09 => "an input device",
            0x0b => "a processor",
            0x0c => "a serial bus controller",
            0x0d => "a wireless controller",
            0x10 => "an encryption controller",
            0x11 => "a signal processing controller",
            0x12 => "a processing accelerator",
            _ => "a device of another class",
        },
    }
}
