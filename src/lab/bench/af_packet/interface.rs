//! The kernel's interface: brought up for the measurement, and put back as it was found.

use std::ffi::{CStr, CString};
use std::fs;
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::nic::Mac;
use crate::{Error, Result};

/// Longest wait for the link.
const LINK: Duration = Duration::from_secs(10);

/// An interface that is up.
pub struct Interface {
    name: CString,
    /// Its number.
    pub index: u32,
    /// Its flags as they were found.
    found: i16,
    control: OwnedFd,
}

impl Interface {
    /// Brings `name` up and waits for its link.
    ///
    /// # Errors
    /// No such interface; it has an address and `force` is not set; the link does not come.
    pub fn up(name: &str, force: bool) -> Result<Self> {
        let no_such = || {
            let there: Vec<String> = fs::read_dir("/sys/class/net")
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            Error::Usage(format!(
                "{name}: there is no such network interface\n  there are: {}",
                there.join(", ")
            ))
        };
        let c_name = CString::new(name).map_err(|_| no_such())?;
        // SAFETY: a string that ends in zero.
        let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        if index == 0 {
            return Err(no_such());
        }
        let addresses = addresses(&c_name)?;
        if !addresses.is_empty() && !force {
            return Err(Error::Usage(format!(
                "{name} has an address ({}): somebody uses it\n  measuring would flood its \
                 network; name another interface, or force it",
                addresses.join(", ")
            )));
        }
        // SAFETY: plain arguments.
        let control =
            unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if control < 0 {
            return Err(Error::last_os("opening a socket"));
        }
        let mut interface = Self {
            name: c_name,
            index,
            found: 0,
            // SAFETY: just opened, and owned by nobody else.
            control: unsafe { OwnedFd::from_raw_fd(control) },
        };
        interface.found = interface.flags()?;
        interface.set_flags(interface.found | libc::IFF_UP as i16)?;
        interface.wait_for_link(name)?;
        Ok(interface)
    }

    /// Its Ethernet address.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn mac(&self) -> Result<Mac> {
        let path = format!("/sys/class/net/{}/address", self.name.to_string_lossy());
        let text = fs::read_to_string(&path);
        let text = text.map_err(|error| Error::io(format!("reading {path}"), error))?;
        text.trim().parse()
    }

    fn wait_for_link(&self, name: &str) -> Result<()> {
        let start = Instant::now();
        let carrier = format!("/sys/class/net/{name}/carrier");
        while !fs::read_to_string(&carrier).is_ok_and(|text| text.trim() == "1") {
            if start.elapsed() > LINK {
                return Err(Error::Timeout {
                    device: name.to_owned(),
                    what: "link up",
                    bound: LINK,
                    remedy: "is the cable plugged in?",
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: all zeros is a valid request.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        // The last byte stays zero; the system knows no longer name.
        let most = request.ifr_name.len() - 1;
        for (to, from) in request.ifr_name[..most]
            .iter_mut()
            .zip(self.name.as_bytes())
        {
            *to = *from as libc::c_char;
        }
        request
    }

    fn flags(&self) -> Result<i16> {
        let mut request = self.request();
        // SAFETY: a valid request, into which the flags are written.
        let done = unsafe {
            libc::ioctl(
                self.control.as_raw_fd(),
                libc::SIOCGIFFLAGS,
                &raw mut request,
            )
        };
        match done {
            // SAFETY: the call has just written this member.
            0 => Ok(unsafe { request.ifr_ifru.ifru_flags }),
            _ => Err(Error::last_os("reading the interface's flags")),
        }
    }

    fn set_flags(&self, flags: i16) -> Result<()> {
        let mut request = self.request();
        request.ifr_ifru.ifru_flags = flags;
        // SAFETY: a valid request.
        let done = unsafe {
            libc::ioctl(
                self.control.as_raw_fd(),
                libc::SIOCSIFFLAGS,
                &raw const request,
            )
        };
        match done {
            0 => Ok(()),
            _ => Err(Error::last_os("setting the interface's flags (needs root)")),
        }
    }
}

impl Drop for Interface {
    fn drop(&mut self) {
        if let Err(error) = self.set_flags(self.found) {
            tracing::warn!(
                "{}: not put back as it was: {error}",
                self.name.to_string_lossy()
            );
        }
    }
}

/// The addresses that somebody gave it: link-local ones come by themselves.
fn addresses(name: &CStr) -> Result<Vec<String>> {
    let mut list = std::ptr::null_mut();
    // SAFETY: the list is written there, and freed below.
    if unsafe { libc::getifaddrs(&raw mut list) } != 0 {
        return Err(Error::last_os("listing addresses"));
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: a list that the system made, whose end is null.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: each entry has a name.
        let named = unsafe { CStr::from_ptr(entry.ifa_name) } == name;
        if named {
            // SAFETY: null, or an address whose family says what it is.
            found.extend(unsafe { address(entry.ifa_addr) });
        }
    }
    // SAFETY: the list from above, freed once.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

/// # Safety
/// `address` is null or points to a socket address of its family.
unsafe fn address(address: *const libc::sockaddr) -> Option<String> {
    // SAFETY: the caller's word.
    match unsafe { address.as_ref() }?.sa_family.into() {
        libc::AF_INET => {
            // SAFETY: the family says so.
            let v4 = unsafe { &*address.cast::<libc::sockaddr_in>() };
            Some(std::net::Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes()).to_string())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says so.
            let v6 = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            let v6 = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            (!v6.is_unicast_link_local()).then(|| v6.to_string())
        }
        _ => None,
    }
}
