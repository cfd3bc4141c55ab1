//! How many connections each address has: `max_connections_per_address`. IPv6 clients count by their /64, of which one
//! machine has all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

/// The counts. Clones are the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Addresses {
    open: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection's place. Dropped, it is free again.
#[derive(Debug)]
pub(super) struct Place {
    addresses: Addresses,
    address: IpAddr,
}

impl Addresses {
    /// A place for one more connection from `address`, if it has fewer than `most` (zero: however many).
    pub(super) fn enter(&self, address: IpAddr, most: usize) -> Result<Option<Place>, ()> {
        if most == 0 {
            return Ok(None);
        }
        let address = whose(address);
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        if *count >= most {
            return Err(());
        }
        *count += 1;
        drop(open);
        Ok(Some(Place {
            addresses: self.clone(),
            address,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.addresses.lock();
        if let Entry::Occupied(mut entry) = open.entry(self.address) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// The address under which a client counts.
fn whose(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address @ IpAddr::V4(_) => address,
    }
}

/// Whether `address` is in one of `networks`.
pub(super) fn is_in(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_given_back() {
        let addresses = Addresses::default();
        let enter = |address: &str, most| addresses.enter(address.parse().unwrap(), most);
        let first = enter("10.0.0.1", 2).unwrap();
        let second = enter("::ffff:10.0.0.1", 2).unwrap();
        assert!(enter("10.0.0.1", 2).is_err());
        let _other = enter("10.0.0.2", 2).unwrap();
        assert!(matches!(enter("10.0.0.1", 0), Ok(None)));
        drop(first);
        let third = enter("10.0.0.1", 2).unwrap();
        assert!(enter("10.0.0.1", 2).is_err());
        drop((second, third));
        assert_eq!(addresses.lock().len(), 1);
        // One network of IPv6.
        let _one = enter("2001:db8::1", 1).unwrap();
        assert!(enter("2001:db8::ffff:2", 1).is_err());
        enter("2001:db8:0:1::1", 1).unwrap();
    }

    #[test]
    fn networks() {
        let networks = ["10.0.0.0/8", "fd00::/8"].map(|text| text.parse().unwrap());
        for (address, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.0.0.1", true),
            ("fd12::1", true),
            ("11.0.0.1", false),
        ] {
            assert_eq!(is_in(&networks, address.parse().unwrap()), expected, "{address}");
        }
        assert!(!is_in(&[], IpAddr::from([127, 0, 0, 1])));
    }
}
