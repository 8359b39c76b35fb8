//! What others, and we, have just changed: told by the kernel as it happens.
//!
//! News is read to decide whether to look, and never instead of looking. Of many changes of one link only the last
//! counts, so that what we did ourselves reads as what was wanted. The kernel queues its word before it answers the
//! request that was its cause: whoever reads the queue after a request finds it.

use crate::host::Host;
use crate::link::{self, RTM_DELLINK, Told};
use crate::route::{attributes, parts, text};
use crate::{Kernel, OpenError};
use netd_plan::{Link, LinkKind};
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket, protocols};
use nix::sys::socket::{MsgFlags, recv};
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::AsRawFd as _;
use std::sync::{Arc, Mutex, PoisonError};

/// Multicast group of links (`RTNLGRP_LINK`).
const GROUP_LINK: u32 = 1;
/// Multicast group of nftables (`NFNLGRP_NFTABLES`).
const GROUP_NFTABLES: u32 = 7;
/// Longest message: a link's with all its attributes, or a transaction's part.
const MESSAGE_BYTES: usize = 64 << 10;
/// `NFNL_SUBSYS_NFTABLES`, the upper byte of the kind of its messages.
const NFTABLES: u16 = 10;
/// `NFT_MSG_NEWGEN`: a transaction is complete.
const NEWGEN: u16 = 15;
/// In every message but [`NEWGEN`] the first attribute names the table.
const TABLE: u16 = 1;
const TABLE_HEADER_BYTES: usize = 4;
/// Our tables' names begin so.
const OUR_TABLES: &str = "collective";

/// What was told since the last look.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    /// Something was not told: anything may have changed.
    pub missed: bool,
    /// What was last said of each link, by name; none if it is gone. Without flood lists and addresses.
    pub links: BTreeMap<String, Option<Link>>,
    /// A link of ours has another name now.
    pub renamed: bool,
    /// Transactions that changed our tables.
    pub rules: u32,
}

impl News {
    /// Takes in what was told later.
    pub fn extend(&mut self, later: Self) {
        self.missed |= later.missed;
        self.renamed |= later.renamed;
        self.links.extend(later.links);
        self.rules += later.rules;
    }
}

/// Listens to changes of links and rules, our own included.
pub struct Changes {
    links: TokioSocket,
    rules: TokioSocket,
    host: Arc<Mutex<Host>>,
    /// The transaction that is being told of changes a table of ours.
    ours: bool,
    buffer: Vec<u8>,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

impl Changes {
    /// Listens in the network namespace of the calling thread, which must be the one that `kernel` was opened in.
    ///
    /// # Errors
    /// [`OpenError`]: a socket cannot be made or may not listen.
    pub fn open(kernel: &Kernel) -> Result<Self, OpenError> {
        let listen = |protocol, group| {
            let mut socket = crate::socket(protocol)?;
            socket.socket_mut().add_membership(group)?;
            Ok(socket)
        };
        let links = listen(protocols::NETLINK_ROUTE, GROUP_LINK).map_err(OpenError)?;
        let rules = listen(protocols::NETLINK_NETFILTER, GROUP_NFTABLES).map_err(OpenError)?;
        Ok(Self { links, rules, host: kernel.host.clone(), ours: false, buffer: vec![0; MESSAGE_BYTES] })
    }

    /// Waits for news. Cancel-safe: what is lost with a cancelled call was not read yet.
    pub async fn next(&mut self) -> News {
        let (links, rules) = (&mut self.links, &mut self.rules);
        let mut news = News::default();
        let (message, is_link) = tokio::select! {
            message = links.recv_from_full() => (message, true),
            message = rules.recv_from_full() => (message, false),
        };
        match message {
            Ok((bytes, _)) if is_link => self.read_links(&bytes, &mut news),
            Ok((bytes, _)) => self.read_rules(&bytes, &mut news),
            Err(_) => news.missed = true,
        }
        news.extend(self.waiting());
        news
    }

    /// What was told already. Does not wait.
    pub fn waiting(&mut self) -> News {
        let mut news = News::default();
        let mut buffer = std::mem::take(&mut self.buffer);
        for is_link in [true, false] {
            let socket = if is_link { &self.links } else { &self.rules };
            let descriptor = socket.socket_ref().as_raw_fd();
            loop {
                match recv(descriptor, &mut buffer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_TRUNC) {
                    // Longer than any that we can read.
                    Ok(bytes) if bytes > buffer.len() => news.missed = true,
                    Ok(bytes) if is_link => self.read_links(&buffer[..bytes], &mut news),
                    Ok(bytes) => self.read_rules(&buffer[..bytes], &mut news),
                    Err(nix::Error::EAGAIN) => break,
                    Err(nix::Error::EINTR) => {}
                    Err(nix::Error::ENOBUFS) => news.missed = true,
                    Err(error) => {
                        tracing::debug!(%error, "changes cannot be heard");
                        news.missed = true;
                        break;
                    }
                }
            }
        }
        self.buffer = buffer;
        news
    }

    fn read_links(&self, bytes: &[u8], news: &mut News) {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        for part in parts(bytes) {
            let Some(Told { index, name, mut link, master, parent, .. }) = link::read(part) else { continue };
            if part.kind == RTM_DELLINK {
                news.links.insert(name, None);
                continue;
            }
            let known = host.names.insert(index, name.clone());
            news.renamed |= known.is_some_and(|known| known != name && host.ours.get(&known) == Some(&index));
            // A master that was never heard of is nobody's we know.
            let name_of =
                |index: u32| host.names.get(&index).cloned().unwrap_or_else(|| format!("link {index}"));
            link.master = master.map(name_of);
            if let LinkKind::Vlan { parent: below, .. } = &mut link.kind {
                *below = parent.map(name_of).unwrap_or_default();
            }
            news.links.insert(name, Some(link));
        }
    }

    fn read_rules(&mut self, bytes: &[u8], news: &mut News) {
        for part in parts(bytes).filter(|part| part.kind >> 8 == NFTABLES) {
            if part.kind & 0xff == NEWGEN {
                news.rules += u32::from(self.ours);
                self.ours = false;
                continue;
            }
            let fields = part.payload.get(TABLE_HEADER_BYTES..).unwrap_or_default();
            let table = attributes(fields).find(|(kind, _)| *kind == TABLE);
            self.ours |= table.is_some_and(|(_, name)| text(name).starts_with(OUR_TABLES));
        }
    }
}
