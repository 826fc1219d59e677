//! The second port of a broker, two below the first, with threads of its own. Source: `behaviour.md` section 1.6.
//!
//! Answers of the first port can be held up by pulls; those of the second are not, because it serves none. Few brokers
//! need it now, so it is used only where the configuration says so.

use std::borrow::Cow;
use std::sync::Arc;

use super::MqClient;
use crate::remoting::Address;

impl MqClient {
    /// Where to send what may take the second port.
    pub(super) fn vip<'a>(&self, address: &'a Address) -> Cow<'a, Address> {
        match self.config.vip_channel {
            true => second_port(address).map_or(Cow::Borrowed(address), Cow::Owned),
            false => Cow::Borrowed(address),
        }
    }
}

/// `None` where the address has no port, or one that has none below it.
fn second_port(address: &Address) -> Option<Address> {
    let (host, port) = address.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?.checked_sub(2).filter(|port| *port > 0)?;
    Some(Arc::from(format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_port_is_two_below_the_first() {
        for (address, expected) in [
            ("10.0.0.1:10911", Some("10.0.0.1:10909")),
            ("[::1]:10911", Some("[::1]:10909")),
            ("broker", None),
            ("broker:2", None),
            ("broker:x", None),
        ] {
            assert_eq!(second_port(&address.into()).as_deref(), expected, "{address}");
        }
    }
}
