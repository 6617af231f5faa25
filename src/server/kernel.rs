//! Whether this kernel lets us have what the sockets need.

use std::io;

/// Opens a ring as the socket loop does, and closes it.
///
/// # Errors
///
/// Why it cannot, and what to do about it, for people.
pub fn check_io_uring() -> Result<(), String> {
    const ENTRIES: u32 = 8;
    let ring: io::Result<io_uring::IoUring> =
        io_uring::IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES);
    ring.map(drop).map_err(|error| explain(&error))
}

fn explain(error: &io::Error) -> String {
    let advice = match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has none",
        Some(libc::EPERM | libc::EACCES) => {
            "it is forbidden: see sysctl kernel.io_uring_disabled, or the container's seccomp profile"
        }
        Some(libc::EINVAL) => "this kernel is too old: Linux 6.1 is needed",
        Some(libc::ENOMEM) => "too little memory may be locked: raise ulimit -l",
        _ => "unexpected",
    };
    format!("io_uring is unusable: {advice} ({error})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(errno: i32, advice: &str) {
        let text = explain(&io::Error::from_raw_os_error(errno));
        assert!(text.contains(advice), "{text}");
    }

    #[test]
    fn each_known_failure_comes_with_advice() {
        check(libc::ENOSYS, "has none");
        check(libc::EPERM, "seccomp");
        check(libc::EINVAL, "6.1");
        check(libc::ENOMEM, "ulimit -l");
        check(libc::EIO, "unexpected");
    }
}
