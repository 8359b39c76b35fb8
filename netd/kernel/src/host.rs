//! The links of ours that are known, by name and index.

use crate::link::{self, Told};
use crate::observe::ObserveError;
use crate::route::{Route, RouteError};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use nix::net::if_::if_nametoindex;
use std::collections::HashMap;
use std::io;

/// One network namespace's socket, and what was last seen over it.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) route: Route,
    /// Indices of links that carry our mark.
    pub(crate) ours: HashMap<String, u32>,
    /// Names of all links.
    pub(crate) names: HashMap<u32, String>,
    /// A link of others has the group number of our doomed ones: deleting by it would take the stranger, too.
    pub(crate) strangers_doomed: bool,
}

impl Host {
    /// Opens the network namespace of the calling thread.
    pub(crate) fn open() -> io::Result<Self> {
        Ok(Self {
            route: Route::open()?,
            ours: HashMap::new(),
            names: HashMap::new(),
            strangers_doomed: true,
        })
    }

    /// Looks one link up, and remembers it.
    pub(crate) fn find(&mut self, name: &str) -> Result<Told, RouteError> {
        let mut found = None;
        let asked = self.route.ask(&link::request(Some(name)), |part| found = link::read(part));
        // The kernel finds links by their alternative names, too.
        let found = asked.and_then(|()| found.filter(|told| told.name == name).ok_or_else(gone));
        self.ours.remove(name);
        let told = found?;
        self.names.insert(told.index, told.name.clone());
        if told.link.is_ours(name) {
            self.ours.insert(told.name.clone(), told.index);
        }
        Ok(told)
    }

    /// The index of a link that carries our mark.
    pub(crate) fn index_of_ours(&mut self, name: &str) -> Result<Option<u32>, RouteError> {
        if let Some(index) = self.ours.get(name) {
            return Ok(Some(*index));
        }
        match self.find(name) {
            Ok(told) => Ok(told.link.is_ours(name).then_some(told.index)),
            Err(error) if error.code() == Some(nix::libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Remembers a link that was just made, by us and nobody else.
    pub(crate) fn made(&mut self, name: &str) {
        if let Ok(index) = if_nametoindex(name) {
            self.ours.insert(name.to_owned(), index);
            self.names.insert(index, name.to_owned());
        }
    }

    /// Remembers that a link is gone.
    pub(crate) fn gone(&mut self, name: &str) {
        if let Some(index) = self.ours.remove(name) {
            self.names.remove(&index);
        }
    }

    /// Learns the name of a link that was told of by its index only.
    pub(crate) fn learn_name(&mut self, index: u32) -> Result<(), ObserveError> {
        if self.names.contains_key(&index) {
            return Ok(());
        }
        let mut request = LinkMessage::default();
        request.header.index = index;
        request.attributes.push(LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]));
        let mut found = None;
        let asked = self.route.ask(&RouteNetlinkMessage::GetLink(request), |part| found = link::read(part));
        match asked {
            Err(error) if error.code() != Some(nix::libc::ENODEV) => {
                Err(ObserveError::Dump { what: "links", source: error })
            }
            _ => {
                self.names.extend(found.map(|told: Told| (told.index, told.name)));
                Ok(())
            }
        }
    }
}

fn gone() -> RouteError {
    RouteError::Refused { source: io::Error::from_raw_os_error(nix::libc::ENODEV), words: String::new() }
}
