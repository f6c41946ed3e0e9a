//! Free loopback ports.
//!
//! From below the range that the kernel gives to outgoing connections (32768 and up on Linux), so that no connection of
//! a neighbour takes a port between the choice and the bind.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

const FIRST: u16 = 20_000;
/// A world takes about 20 ports, a test run fewer than 10 worlds: room for 50 runs side by side.
const COUNT: u16 = 12_000;

static GIVEN: AtomicU16 = AtomicU16::new(0);

/// A loopback address that nobody listens on, given out once in this process.
pub fn free() -> Result<SocketAddr> {
    let start = u16::try_from(std::process::id() * 251 % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let given = GIVEN.fetch_add(1, Ordering::Relaxed) % COUNT;
        let port = FIRST + (start + given) % COUNT;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if is_free(address) {
            return Ok(address);
        }
    }
    bail!(
        "no loopback port is free between {FIRST} and {}",
        FIRST + COUNT
    )
}

fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_not_free() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(!is_free(held.local_addr().unwrap()));
    }

    #[test]
    fn no_port_is_given_twice() {
        assert_ne!(free().unwrap(), free().unwrap());
    }
}
