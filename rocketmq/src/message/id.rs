//! The two ids of a message: the one that the sending client makes, and the one that says where a broker keeps it.
//!
//! Source: `protocol.md` sections 4.6 and 4.7, `MessageClientIDSetter`, `MessageDecoder.createMessageId`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{BufMut, BytesMut};

/// A new unique id: upper-case hexadecimal of address, process, a number of this process, time and a counter.
///
/// ```text
/// | address: 4 or 16 | process id: u16 | of this process: u32 | ms since the month began: u32 | counter: u16 |
/// ```
///
/// `mqadmin queryMsgById` reads the time back to know where to search, so the layout matters. The month begins at
/// 00:00 UTC here (Java takes its own zone): the tool allows for that and without a time zone database we cannot.
pub(crate) fn unique() -> String {
    static COUNTER: AtomicU16 = AtomicU16::new(0);
    static PROCESS: OnceLock<String> = OnceLock::new();
    let process = PROCESS.get_or_init(|| {
        let mut bytes = BytesMut::new();
        put_address(&mut bytes, local_address());
        bytes.put_u16(std::process::id() as u16);
        bytes.put_u32(fastrand::u32(..));
        let mut text = String::new();
        push_hexadecimal(&mut text, &bytes);
        text
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let [a, b, c, d] = (since_month_began(now).as_millis() as u32).to_be_bytes();
    let [e, f] = COUNTER.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let mut id = String::with_capacity(process.len() + 12);
    id.push_str(process);
    push_hexadecimal(&mut id, &[a, b, c, d, e, f]);
    id
}

/// The id that names the broker and the place in its commit log; needed to end a transaction or send a message back.
pub(crate) fn of_offset(store_host: SocketAddr, commit_log_offset: i64) -> String {
    let mut bytes = BytesMut::with_capacity(28);
    put_address(&mut bytes, store_host.ip());
    bytes.put_i32(i32::from(store_host.port()));
    bytes.put_i64(commit_log_offset);
    let mut id = String::with_capacity(bytes.len() * 2);
    push_hexadecimal(&mut id, &bytes);
    id
}

/// The place in the commit log that such an id names; `None` for other ids.
pub(crate) fn offset_of(id: &str) -> Option<i64> {
    const OFFSET_DIGITS: usize = 16;
    // With an address of 4 or 16 bytes, and a port.
    if !matches!(id.len(), 32 | 56) || !id.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    i64::from_str_radix(id.get(id.len() - OFFSET_DIGITS..)?, 16).ok()
}

/// The address by which other machines reach this one: that of the interface which carries the default route, or
/// loopback on a machine without one. Nothing is sent to find out.
pub(crate) fn local_address() -> IpAddr {
    static ADDRESS: OnceLock<IpAddr> = OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let routed = |local: &str, remote: &str| {
            let socket = UdpSocket::bind(local)?;
            socket.connect(remote)?;
            socket.local_addr().map(|address| address.ip())
        };
        // Addresses that are reserved for documentation: connecting a UDP socket only consults the routing table.
        routed("0.0.0.0:0", "192.0.2.1:9")
            .or_else(|_| routed("[::]:0", "[2001:db8::1]:9"))
            .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
    })
}

fn put_address(out: &mut BytesMut, address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.put_slice(&address.octets()),
        IpAddr::V6(address) => out.put_slice(&address.octets()),
    }
}

fn push_hexadecimal(text: &mut String, bytes: &[u8]) {
    let digit = |number: u8| char::from(b"0123456789ABCDEF"[usize::from(number)]);
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xF)]));
}

/// The time since the first of the month, 00:00 UTC, for a time given since 1970.
fn since_month_began(now: Duration) -> Duration {
    const DAY: u64 = 86_400;
    let days = now.as_secs() / DAY;
    let day_of_month = day_of_month(days as i64);
    Duration::from_secs((days - u64::from(day_of_month - 1)) * DAY).abs_diff(now)
}

/// The day of the month, from 1, of a day counted from 1970-01-01: the civil calendar in eras of 400 years that
/// begin on the first of March, so that the leap day is the last of its year.
fn day_of_month(days: i64) -> u32 {
    let day_of_era = (days + 719_468).rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    (day_of_year - (153 * month + 2) / 5 + 1) as u32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn unique_ids_differ_and_have_the_length_of_their_address() {
        let ids: HashSet<_> = (0..1_000).map(|_| unique()).collect();
        assert_eq!(ids.len(), 1_000);
        assert!(ids.iter().all(|id| id.len() == 32 || id.len() == 56));
    }

    #[test]
    fn the_offset_id_is_that_of_the_recorded_message() {
        let id = of_offset("127.0.0.1:10911".parse().unwrap(), 0x730890ab);
        assert_eq!(id, "7F00000100002A9F00000000730890AB");
        assert_eq!(offset_of(&id), Some(0x730890ab));
        for no_id in ["", "730890AB", "7F00000100002A9F0000000é730890AB", "7F00000100002A9F0000000x730890AB"]
        {
            assert_eq!(offset_of(no_id), None, "{no_id}");
        }
    }

    #[test]
    fn days_of_the_month_follow_the_calendar() {
        // 1970-01-01, 2000-02-29, 2024-03-01, 2026-11-23, 2100-02-28 and the day after.
        for (days, day) in [(0, 1), (11_016, 29), (19_783, 1), (20_780, 23), (47_540, 28), (47_541, 1)] {
            assert_eq!(day_of_month(days), day, "{days}");
        }
    }
}
