//! Word that something changed: a hint to look, never an input.

use crate::OpenError;
use netlink_sys::{AsyncSocket as _, AsyncSocketExt as _, TokioSocket, protocols};
use std::fmt;

/// Multicast group of links (`RTNLGRP_LINK`).
const GROUP_LINK: u32 = 1;
/// Multicast group of nftables (`NFNLGRP_NFTABLES`).
const GROUP_NFTABLES: u32 = 7;

/// Listens to changes of links and rules, our own included.
pub struct Changes {
    links: TokioSocket,
    rules: TokioSocket,
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Changes")
    }
}

impl Changes {
    /// Listens in the network namespace of the calling thread.
    ///
    /// # Errors
    /// [`OpenError`]: a socket cannot be made or may not listen.
    pub fn open() -> Result<Self, OpenError> {
        let listen = |protocol, group| {
            let mut socket = crate::socket(protocol)?;
            socket.socket_mut().add_membership(group)?;
            Ok(socket)
        };
        let links = listen(protocols::NETLINK_ROUTE, GROUP_LINK).map_err(OpenError)?;
        let rules = listen(protocols::NETLINK_NETFILTER, GROUP_NFTABLES).map_err(OpenError)?;
        Ok(Self { links, rules })
    }

    /// Waits for the next change. An overrun is one too. Cancel-safe.
    pub async fn next(&mut self) {
        let (links, rules) = (&mut self.links, &mut self.rules);
        let ended = tokio::select! {
            message = links.recv_from_full() => message.is_err(),
            message = rules.recv_from_full() => message.is_err(),
        };
        if ended {
            tracing::debug!("changes were missed");
        }
    }
}
