//! Bounds of connections at once: each is an open file, and so is what is sent over it.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{Error, Result};

/// Connections that are wanted where nobody says how many.
pub const WANTED: usize = 10_240;
/// Files that are open beside connections and what they send: standard streams, libraries, a listing.
const OWN: u64 = 64;
/// Files that one worker has open for itself.
const OF_A_WORKER: u64 = 8;
/// At least one connection in so many may send a file at the same time; one more is answered with 503.
const SENDING: u64 = 4;

/// Shares of the limit of open files.
pub struct Places {
    /// Connections at once.
    pub connections: usize,
    /// Files at once.
    pub files: usize,
}

/// Raises the limit of open files to the hard one, and shares it out.
///
/// # Errors
/// `asked` for more connections than that allows.
pub fn places(asked: Option<usize>, workers: usize) -> Result<Places> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(_) => current,
    };
    let wanted = asked.unwrap_or(WANTED);
    let own = OWN + OF_A_WORKER * workers as u64;
    let files = (wanted as u64).div_ceil(SENDING);
    let needed = own + wanted as u64 + files;
    // A descriptor is an int: more than that there cannot be.
    let limit = limit.unwrap_or(u64::MAX).min(i32::MAX as u64);
    let possible = limit.saturating_sub(own) * SENDING / (SENDING + 1);
    let connections = match asked {
        _ if limit >= needed => wanted as u64,
        None if possible > 0 => {
            tracing::warn!(
                "{possible} connections at once, not {wanted}: the limit of open files is {limit}; \
                 raise it: ulimit -n {needed} (LimitNOFILE={needed} in a systemd unit)"
            );
            possible
        }
        _ => {
            return Err(Error::Usage(format!(
                "{wanted} connections at once need {needed} open files, and the hard limit is {limit}\n  \
                 raise it: ulimit -n {needed} as root (LimitNOFILE={needed} in a systemd unit), or take \
                 {possible} connections"
            )));
        }
    };
    Ok(Places {
        connections: connections as usize,
        files: (limit - own - connections) as usize,
    })
}
