use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, bail};

/// Five neighbouring ports for one broker and perhaps its name server.
///
/// ```text
/// | guard | broker - 2 ("VIP") | name server | broker | broker + 1 (replication) |
/// ```
///
/// 4.9 always replicates on the port after its own, so they cannot be chosen one by one. The guard
/// is held open as long as this lives, which keeps other test processes off all five even while a
/// broker is down; the system frees it when this process dies, so nothing goes stale.
#[derive(Debug)]
pub(super) struct Ports {
    _guard: TcpListener,
    first: u16,
}

/// Below the range from which Linux picks ports for outgoing connections, and clear of RocketMQ's own.
const FIRST: u16 = 22_000;
const BLOCK: u16 = 5;
const BLOCKS: u16 = 2_000;

impl Ports {
    /// # Errors
    ///
    /// There is no free block at all.
    pub(super) fn reserve() -> Result<Self> {
        match candidates().find_map(Self::claim) {
            Some(ports) => Ok(ports),
            None => bail!("no five free ports in a row from {FIRST} to {}", FIRST + BLOCK * BLOCKS - 1),
        }
    }

    fn claim(first: u16) -> Option<Self> {
        let guard = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).ok()?;
        let free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        (first + 1..first + BLOCK).all(free).then_some(Self { _guard: guard, first })
    }

    pub(super) fn name_server(&self) -> SocketAddr {
        self.at(2)
    }

    pub(super) fn broker(&self) -> SocketAddr {
        self.at(3)
    }

    fn at(&self, offset: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.first + offset).into()
    }
}

/// All blocks, from one that other processes and earlier calls are unlikely to begin with.
fn candidates() -> impl Iterator<Item = u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let scattered = process::id().wrapping_mul(61) % u32::from(BLOCKS);
    let start = u16::try_from(scattered).unwrap_or(0) + NEXT.fetch_add(1, Ordering::Relaxed) % BLOCKS;
    (0..BLOCKS).map(move |block| FIRST + (start + block) % BLOCKS * BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_reservations_share_no_port_while_both_live() {
        let (one, two) = (Ports::reserve().unwrap(), Ports::reserve().unwrap());
        assert!(BLOCK <= one.first.abs_diff(two.first));
    }

    #[test]
    fn a_block_with_one_port_in_use_is_passed_over() {
        let ports = Ports::reserve().unwrap();
        let (first, broker) = (ports.first, ports.broker());
        drop(ports);
        let _squatter = TcpListener::bind(broker).unwrap();
        assert!(Ports::claim(first).is_none());
    }
}
