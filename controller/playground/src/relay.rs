//! Carries TCP from the machine's own loopback into the switch, where the controller listens.
//!
//! It runs in the switch box, so it ends with it; only its listening socket is made in the machine's network
//! namespace (a socket stays where it was made). Nothing is routed, no link crosses.

use crate::namespace;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::{TcpListener, TcpStream};

/// Connections waiting to be taken.
const BACKLOG: i32 = 256;
/// Carried at once; more wait in the backlog.
const CONNECTIONS_MAX: usize = 1024;

/// Serves until the process ends.
///
/// # Errors
/// The address cannot be bound in the namespace `outer`.
pub async fn serve(outer: &Path, listen: SocketAddr, to: SocketAddr) -> io::Result<()> {
    let socket = namespace::run(outer, move || bind(listen))??;
    let listener = TcpListener::from_std(socket)?;
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let Ok((person, _)) = listener.accept().await else { continue };
        tokio::spawn(async move {
            let _place = place;
            // An absent controller is seen by the caller as a closed connection: that is what it is.
            let _ = carry(person, to).await;
        });
    }
}

/// Makes the socket with std, on the thread that is inside the namespace: tokio only takes it over.
fn bind(listen: SocketAddr) -> io::Result<std::net::TcpListener> {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen as start, setsockopt,
        socket, sockopt,
    };
    let family = if listen.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(family, SockType::Stream, flags, None)?;
    // A restarted relay takes its address again at once.
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(listen))?;
    start(&fd, Backlog::new(BACKLOG)?)?;
    Ok(std::net::TcpListener::from(fd))
}

async fn carry(mut person: TcpStream, to: SocketAddr) -> io::Result<()> {
    let mut controller = TcpStream::connect(to).await?;
    person.set_nodelay(true)?;
    controller.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut person, &mut controller).await?;
    Ok(())
}
