//! QEMU as our child: no guest, no files left behind, and gone whenever we are.
//!
//! Everything that it shares with us (memory, sockets, a BIOS that halts the processor) is inherited
//! as a descriptor. The kernel kills it when the thread that started it ends (`PR_SET_PDEATHSIG`),
//! so that also `kill -9` leaves no QEMU behind; that thread is the one that reads its answers.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::config::slots;
use super::files::{self, MAX_MEMORY, SLOTS};
use super::mailbox;
use super::memory::RAM;
use super::spec::QtestSpec;
use crate::error::{Error, Result};

/// The first that has `-netdev dgram`.
const OLDEST: (u32, u32) = (7, 2);

/// QEMU's command line, and the descriptors behind it.
pub(super) struct Launch {
    command: Command,
    name: String,
    binary: OsString,
    stderr: File,
    /// Its ends of what is shared: ours to close once it has them.
    theirs: Vec<OwnedFd>,
}

/// Our ends.
pub(super) struct Ends {
    pub qtest: UnixStream,
    pub monitor: UnixStream,
    pub ram: File,
}

/// A running QEMU; killed when dropped.
pub(super) struct Qemu {
    child: Child,
    name: String,
    binary: OsString,
    stderr: File,
}

impl Launch {
    /// For the devices of `specs`, which people call `name`.
    pub fn new(name: &str, specs: &[&QtestSpec]) -> Result<(Self, Ends)> {
        if !Path::new("/proc/self/fd").exists() {
            return Err(Error::KernelLacks {
                what: format!(
                    "{name}: /proc is not mounted, and QEMU finds there what it shares with us"
                ),
                remedy: "sudo mount -t proc none /proc".to_owned(),
            });
        }
        let pair = || UnixStream::pair().map_err(|error| Error::io("making sockets", error));
        let (qtest, their_qtest) = pair()?;
        let (monitor, their_monitor) = pair()?;
        let (ram, bios) = (memfd(c"pinwire-ram")?, halting_bios()?);
        ram.set_len(RAM as u64)
            .map_err(|error| Error::io("sizing the memory that QEMU shares", error))?;
        let stderr = memfd(c"qemu-stderr")?;
        let copy = |file: &File| {
            file.try_clone()
                .map_err(|error| Error::io("duplicating a descriptor", error))
        };
        let their_ram = copy(&ram)?;

        let binary = std::env::var_os("PINWIRE_QEMU").unwrap_or("qemu-system-x86_64".into());
        let mut command = Command::new(&binary);
        let mut option = |words: &[&str]| {
            command.args(words);
        };
        option(&["-no-user-config", "-nodefaults", "-display", "none"]);
        // Nothing that ticks or that nobody needs. `-S` would keep frames from being delivered.
        option(&[
            "-machine",
            "q35,pit=off,hpet=off,sata=off,smbus=off,vmport=off,usb=off,memory-backend=ram0",
        ]);
        // Its processor runs three instructions. Unbounded, TCG reserves an eighth of the host's memory for them, 1 GiB
        // at most, for each device; where memory is not overcommitted, that fails.
        option(&["-accel", "tcg,tb-size=8"]);
        option(&["-bios", &inherited(bios.as_raw_fd())]);
        option(&[
            "-m",
            &format!("size={RAM}b,slots={SLOTS},maxmem={MAX_MEMORY}b"),
        ]);
        option(&[
            "-object",
            &format!(
                "memory-backend-file,id=ram0,size={RAM},mem-path={},share=on",
                inherited(their_ram.as_raw_fd())
            ),
        ]);
        for (id, socket) in [("qtest", &their_qtest), ("monitor", &their_monitor)] {
            let fd = socket.as_raw_fd();
            option(&["-chardev", &format!("socket,id={id},fd={fd}")]);
        }
        // Not `-qtest chardev:`, on which 7.2 aborts.
        option(&["-object", "qtest,id=qtest0,chardev=qtest,log=none"]);
        option(&["-mon", "chardev=monitor,mode=control"]);
        // Slots are powered down by us, not by what a guest's ACPI would say.
        option(&[
            "-global",
            "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
        ]);
        let mailbox = format!("edu,bus=pcie.0,addr={:#x},romfile=", mailbox::SLOT);
        option(&["-device", &mailbox]);
        for (slot, spec) in slots().zip(specs) {
            command.args(spec.options(slot));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(copy(&stderr)?);
        // Ctrl-C at a terminal is for us: the card is stopped first, and QEMU after.
        command.process_group(0);

        let theirs: Vec<OwnedFd> = vec![
            bios.into(),
            their_ram.into(),
            their_qtest.into(),
            their_monitor.into(),
        ];
        let mut keep: Vec<RawFd> = theirs.iter().map(AsRawFd::as_raw_fd).collect();
        keep.extend(specs.iter().filter_map(|spec| spec.inherited()));
        let parent = std::process::id();
        // SAFETY: the closure makes system calls only, and allocates nothing.
        unsafe { command.pre_exec(move || in_the_child(parent, &keep)) };
        tracing::debug!("starting {command:?}");
        let launch = Self {
            command,
            name: name.to_owned(),
            binary,
            stderr,
            theirs,
        };
        Ok((
            launch,
            Ends {
                qtest,
                monitor,
                ram,
            },
        ))
    }

    /// Starts QEMU; it dies with the calling thread.
    pub fn spawn(mut self) -> Result<Qemu> {
        let child = self.command.spawn().map_err(|error| {
            let binary = self.binary.display();
            match error.kind() {
                io::ErrorKind::NotFound => Error::Qemu {
                    what: format!("{} needs QEMU, and there is no {binary}", self.name),
                    remedy: "install it with qemu/setup, or as the package qemu-system-x86; or name it in PINWIRE_QEMU".to_owned(),
                },
                _ => Error::io(format!("starting {binary}"), error),
            }
        })?;
        drop(self.theirs);
        Ok(Qemu {
            child,
            name: self.name,
            binary: self.binary,
            stderr: self.stderr,
        })
    }
}

impl Qemu {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The reason for which it did not come up, in its own words; `silent` if it did not answer in time.
    pub fn failure(&mut self, silent: bool) -> Error {
        let how = if silent {
            "it did not answer in time".to_owned()
        } else {
            // It has closed its socket, so it has ended or is about to.
            match self.child.wait() {
                Ok(status) => format!("it ended with {status}"),
                Err(error) => format!("it ended: {error}"),
            }
        };
        let mut words = String::new();
        let _ = self.stderr.seek(SeekFrom::Start(0));
        let _ = (&self.stderr).take(4096).read_to_string(&mut words);
        let words: String = words.lines().map(|line| format!("\n  {line}")).collect();
        let version = version(&self.binary);
        let remedy = match version {
            Some(found) if found < OLDEST => format!(
                "this is QEMU {}.{}; {}.{} or newer is needed",
                found.0, found.1, OLDEST.0, OLDEST.1
            ),
            // QEMU has the limit from us.
            Some(_) if words.contains("Too many open files") => {
                "raise the limit of open files: ulimit -n 1024".to_owned()
            }
            Some(_) if silent => "the machine may be very busy: try again".to_owned(),
            Some(_) => {
                "see whether what is named in the device is there and may be used".to_owned()
            }
            None => format!(
                "{} does not tell its version: is it QEMU?",
                self.binary.display()
            ),
        };
        Error::Qemu {
            what: format!("QEMU did not start for {}: {how}{words}", self.name),
            remedy,
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // Fails only where it has ended and was waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Between fork and exec.
fn in_the_child(parent: u32, keep: &[RawFd]) -> io::Result<()> {
    // SAFETY: no pointers.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // Whoever started us may have died before we asked to be told.
    if std::os::unix::process::parent_id() != parent {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    // A mapped file that is truncated ends QEMU by a signal; all the memory that it shares is no
    // core dump anybody wants.
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: a valid structure.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const none) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for &fd in keep {
        // SAFETY: no pointers. Only this process's table changes: in the parent the descriptors
        // stay close-on-exec, so no other child gets them.
        if unsafe { libc::fcntl(fd, libc::F_SETFD, 0) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    files::in_the_child();
    Ok(())
}

/// Path by which QEMU finds a descriptor that it inherited.
fn inherited(fd: RawFd) -> String {
    format!("/proc/self/fd/{fd}")
}

fn memfd(name: &CStr) -> Result<File> {
    // SAFETY: a valid string.
    match unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC) } {
        -1 => Err(Error::last_os("making a memory file")),
        // SAFETY: fresh, and nobody else's.
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

/// 64 KiB whose reset vector, 16 bytes before the end, holds `cli; hlt; jmp` back to the `hlt`: the
/// processor sleeps for good.
fn halting_bios() -> Result<File> {
    let mut image = vec![0xf4; 64 << 10];
    image[0xfff0..0xfff4].copy_from_slice(&[0xfa, 0xf4, 0xeb, 0xfd]);
    let mut bios = memfd(c"halting-bios")?;
    bios.write_all(&image)
        .map_err(|error| Error::io("writing a BIOS that halts", error))?;
    Ok(bios)
}

/// `QEMU emulator version 7.2.22 (...)`
fn version(binary: &OsString) -> Option<(u32, u32)> {
    let output = Command::new(binary).arg("--version").output().ok()?;
    parse_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_once("version ")?.1.split(['.', ' ', '\n']);
    let mut number = || numbers.next()?.parse().ok();
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_qemu_prints() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright";
        assert_eq!(parse_version(debian), Some((7, 2)));
        assert_eq!(parse_version("QEMU emulator version 10.1\n"), Some((10, 1)));
        assert_eq!(parse_version("true (GNU coreutils) 9.1\n"), None);
    }
}
