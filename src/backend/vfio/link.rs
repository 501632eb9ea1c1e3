//! The function's PCI Express link: power management at both its ends, which only the kernel reaches.
//!
//! VFIO lets Link Control be read, and drops what is written to it. So the kernel is asked, by the files
//! that it has for a link (5.5 and newer: it turns off both ends, in the right order), or config space is
//! written by sysfs, the function's end first and then that of the port above it (PCI Express 4.0,
//! §5.4.1.3: what is downstream is turned off first). Either needs root.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::pci::Sysfs;
use crate::pci::config::Config;
use crate::pci::express::{self, Aspm};

/// A function's config space as sysfs has it.
struct SysfsConfig(File);

impl SysfsConfig {
    /// Opens config space of the function whose folder this is; `None` if it may not be written, or there is none.
    fn open(folder: &Path) -> Option<Self> {
        let path = folder.join("config");
        let file = File::options().read(true).write(true).open(path);
        file.ok().map(Self)
    }
}

impl Config for SysfsConfig {
    fn read(&self, offset: u16, into: &mut [u8]) -> Result<()> {
        let read = self.0.read_exact_at(into, offset.into());
        read.map_err(|source| Error::io("reading config space by sysfs", source))
    }

    fn write(&self, offset: u16, from: &[u8]) -> Result<()> {
        let written = self.0.write_all_at(from, offset.into());
        written.map_err(|source| Error::io("writing config space by sysfs", source))
    }
}

/// As [`Backend::disable_aspm`](crate::backend::Backend::disable_aspm), of the function `name` whose own
/// config space `config` is.
pub(super) fn disable_aspm(sysfs: &Sysfs, name: &str, config: &impl Config) -> Result<Aspm> {
    let folder = sysfs.device(name.parse()?);
    for file in ["link/l0s_aspm", "link/l1_aspm"] {
        // The file is only there where the link can do it; a refusal shows below.
        let open = File::options().write(true).open(folder.join(file));
        if let Err(error) = open.and_then(|mut file| file.write_all(b"0")) {
            tracing::debug!(name, file, %error, "turning ASPM off by the kernel");
        }
    }
    // The folder's link goes below that of the port above it.
    let port = folder.canonicalize().ok();
    let port = port.as_deref().and_then(Path::parent);
    let mut on = express::aspm(config)?;
    if !on.is_empty()
        && let Some(own) = SysfsConfig::open(&folder)
    {
        on = express::disable_aspm(&own)?;
    }
    if let Some(port) = port.and_then(SysfsConfig::open) {
        on |= express::disable_aspm(&port)?;
    }
    // Where the port may not be written, its own end says enough: both are on, or neither (§7.5.3.7).
    Ok(on)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK_CONTROL: usize = 0xf0;

    /// Config space with a PCI Express capability at 0xe0 and both states on.
    fn config() -> [u8; 256] {
        let mut bytes = [0; 256];
        bytes[0x06] = 1 << 4;
        bytes[0x34] = 0xe0;
        bytes[0xe0] = 0x10;
        bytes[LINK_CONTROL] = 0x43;
        bytes
    }

    /// As VFIO: it drops what is written.
    struct ReadOnly([u8; 256]);

    impl Config for ReadOnly {
        fn read(&self, offset: u16, into: &mut [u8]) -> Result<()> {
            let offset = usize::from(offset);
            into.copy_from_slice(&self.0[offset..offset + into.len()]);
            Ok(())
        }

        fn write(&self, _offset: u16, _from: &[u8]) -> Result<()> {
            Ok(())
        }
    }

    #[test]
    fn aspm_goes_off_at_both_ends_of_the_link_by_the_kernel_or_by_sysfs() {
        let root = tempfile::tempdir().unwrap();
        let at = |path: &str| root.path().join(path);
        let port = "sys/devices/pci0000:00/0000:00:1c.0";
        let function = format!("{port}/0000:01:00.0");
        std::fs::create_dir_all(at(&format!("{function}/link"))).unwrap();
        std::fs::create_dir_all(at("sys/bus/pci/devices")).unwrap();
        let link = at("sys/bus/pci/devices/0000:01:00.0");
        std::os::unix::fs::symlink(at(&function), link).unwrap();
        for folder in [port, &function] {
            std::fs::write(at(folder).join("config"), config()).unwrap();
        }
        let l1 = at(&function).join("link/l1_aspm");
        std::fs::write(&l1, "1").unwrap();

        let on = disable_aspm(&Sysfs::at(root.path()), "0000:01:00.0", &ReadOnly(config()));
        assert_eq!(on.unwrap(), Aspm::empty());
        assert_eq!(std::fs::read(&l1).unwrap(), b"0", "the kernel was asked");
        for folder in [port, &function] {
            let bytes = std::fs::read(at(folder).join("config")).unwrap();
            assert_eq!(bytes[LINK_CONTROL], 0x40, "{folder}");
        }
        // Without the files nothing gets through, and that is said.
        for folder in [port, &function] {
            std::fs::remove_file(at(folder).join("config")).unwrap();
        }
        let on = disable_aspm(&Sysfs::at(root.path()), "0000:01:00.0", &ReadOnly(config()));
        assert_eq!(on.unwrap(), Aspm::L0S | Aspm::L1);
    }
}
