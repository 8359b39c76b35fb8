//! The table that counts conversations: which ports are observed, and what was heard.

use super::NftError;
use super::elements::{Fields, read_counter};
use super::message::{Messages, attribute, u64_of};
use super::skeleton::{Elements, dump_elements};
use super::socket::{Batch, NftSocket};
use netd_plan::{CONVERSATION_KEPT_S, Conversation, Element};
use std::collections::BTreeSet;
use std::net::IpAddr;

const OBSERVED: &str = "observed";
const ELEMENT_KEY: u16 = 1;
const ELEMENT_EXPIRATION: u16 = 5;
const DATA_VALUE: u16 = 1;

/// What the keys of a set are, besides link and addresses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    Named,
    None,
}

pub(super) fn write(batch: &mut Batch, kind: u16, table: &str, taps: &BTreeSet<String>) {
    let mut list = Elements::new(batch, kind, table, OBSERVED);
    for tap in taps {
        let element = Element::Link(tap.clone());
        list.push(|message: &mut Messages| super::elements::write(message, &element, None));
    }
    list.end();
}

/// None if there is anything but names.
pub(super) fn observed(socket: &mut NftSocket, table: &str) -> Result<Option<BTreeSet<String>>, NftError> {
    type Found = (BTreeSet<String>, bool);
    let (taps, strange) = dump_elements(socket, table, OBSERVED, |(taps, strange): &mut Found, element| {
        match key_of(element).and_then(|mut key| key.link()) {
            Some(link) => drop(taps.insert(link)),
            None => *strange = true,
        }
    })?;
    Ok((!strange).then_some(taps))
}

/// None if there is no table.
pub(super) fn conversations(socket: &mut NftSocket, table: &str) -> Result<Vec<Conversation>, NftError> {
    let sets = [
        ("spoken4", read_v4 as fn(&mut Fields<'_>) -> Option<IpAddr>, Ports::Named),
        ("spoken6", read_v6, Ports::Named),
        ("bare4", read_v4, Ports::None),
        ("bare6", read_v6, Ports::None),
    ];
    let mut all = Vec::new();
    for (set, address, ports) in sets {
        let found: Vec<Conversation> = dump_elements(socket, table, set, |found: &mut Vec<_>, element| {
            found.extend(read(element, address, ports));
        })?;
        all.extend(found);
    }
    Ok(all)
}

fn key_of(element: &[u8]) -> Option<Fields<'_>> {
    Some(Fields(attribute(attribute(element, ELEMENT_KEY)?, DATA_VALUE)?))
}

fn read_v4(key: &mut Fields<'_>) -> Option<IpAddr> {
    Some(key.v4()?.into())
}

fn read_v6(key: &mut Fields<'_>) -> Option<IpAddr> {
    Some(key.v6()?.into())
}

fn read(
    element: &[u8],
    address: fn(&mut Fields<'_>) -> Option<IpAddr>,
    ports: Ports,
) -> Option<Conversation> {
    let mut key = key_of(element)?;
    let link = key.link()?;
    let (from, to) = (address(&mut key)?, address(&mut key)?);
    let [protocol] = *key.take::<1>()?;
    let (from_port, to_port) = match ports {
        Ports::Named => key
            .take::<4>()
            .map(|[a, b, c, d]| (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))?,
        Ports::None => (0, 0),
    };
    let left_ms = attribute(element, ELEMENT_EXPIRATION).and_then(u64_of).unwrap_or_default();
    let left = u32::try_from(left_ms / 1000).unwrap_or(u32::MAX);
    Some(Conversation {
        link,
        from,
        to,
        protocol,
        from_port,
        to_port,
        counter: read_counter(element)?,
        idle_seconds: CONVERSATION_KEPT_S.saturating_sub(left.saturating_add(1)),
    })
}
