//! Retries a call that the kernel refuses for now, within a bound.

use std::io;
use std::time::{Duration, Instant};

/// Longest time for which a refused call is retried.
pub(crate) const BOUND: Duration = Duration::from_secs(1);

/// Makes a call of io_uring's until the kernel does it: it refuses where it has no memory for an entry, or
/// no room for its completion. A signal is waited out, too.
///
/// # Errors
/// Errors of the call otherwise; `TimedOut` where it was refused for `bound`.
pub(crate) fn insist<T>(bound: Duration, mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut since = None;
    loop {
        let error = match call() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let for_now = [libc::EAGAIN, libc::EBUSY, libc::EINTR];
        if !error
            .raw_os_error()
            .is_some_and(|code| for_now.contains(&code))
        {
            return Err(error);
        }
        if since.get_or_insert_with(Instant::now).elapsed() >= bound {
            let what = format!("refused for {bound:?}: {error}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, what));
        }
        std::thread::yield_now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_now_is_asked_for_again() {
        let mut refusals = [libc::EAGAIN, libc::EBUSY, libc::EINTR].into_iter();
        let done = insist(BOUND, || match refusals.next() {
            Some(code) => Err(io::Error::from_raw_os_error(code)),
            None => Ok(7),
        });
        assert_eq!(done.unwrap(), 7);
    }

    #[test]
    fn what_is_refused_for_ever_ends() {
        for code in [libc::EAGAIN, libc::EBUSY, libc::EINTR] {
            let refused = || Err::<(), _>(io::Error::from_raw_os_error(code));
            let error = insist(Duration::from_millis(5), refused).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        }
        let mut asked = 0;
        let error = insist(BOUND, || {
            asked += 1;
            Err::<(), _>(io::Error::from_raw_os_error(libc::EBADFD))
        });
        assert_eq!(
            (asked, error.unwrap_err().raw_os_error()),
            (1, Some(libc::EBADFD))
        );
    }
}
