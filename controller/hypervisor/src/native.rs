//! What the crate `virt` lacks or gets wrong, over `virt-sys`, safe from outside: lifecycle events, the close callback,
//! and a console stream that is neither moved nor freed while libvirt may call back.

use crate::hypervisor::{Change, Event, LibvirtError};
use std::collections::VecDeque;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::{Notify, broadcast, mpsc};
use uuid::Uuid;
use virt::connect::Connect;
use virt_sys as sys;

/// Seconds between keepalive probes, and how many may go unanswered before the connection is closed.
const KEEPALIVE: (i32, u32) = (5, 3);
/// Bytes taken from a console at a time.
const CONSOLE_CHUNK: usize = 4096;
/// Chunks of console output nobody has read yet; then libvirt is not asked for more.
const CONSOLE_CHUNKS_MAX: usize = 64;
/// Bytes of console input the guest has not taken yet; then a writer waits.
const CONSOLE_INPUT_MAX: usize = 64 << 10;
/// Answer of a non-blocking stream that has nothing (receiving) or no room (sending).
const WOULD_BLOCK: c_int = -2;

/// Registers libvirt's event loop and starts its thread, once a process and before the first connection.
pub(crate) fn start_event_loop() -> Result<(), LibvirtError> {
    static STARTED: OnceLock<Result<(), LibvirtError>> = OnceLock::new();
    STARTED
        .get_or_init(|| {
            // Without this libvirt prints every error to standard error.
            virt::error::clear_error_callback();
            virt::event::event_register_default_impl().map_err(LibvirtError::from)?;
            let run = || {
                loop {
                    if let Err(error) = virt::event::event_run_default_impl() {
                        tracing::error!(error = error.message(), "a round of libvirt's event loop failed");
                    }
                }
            };
            std::thread::Builder::new()
                .name("libvirt-events".to_owned())
                .spawn(run)
                .map(drop)
                .map_err(|error| LibvirtError { message: error.to_string(), absent: false })
        })
        .clone()
}

/// An open connection that reports its events and its end.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) connect: Connect,
    broken: Arc<AtomicBool>,
    lifecycle: c_int,
}

/// What the callbacks need; owned by libvirt until it calls the free callback.
struct Listener {
    events: broadcast::Sender<Event>,
    broken: Arc<AtomicBool>,
}

impl Connection {
    pub(crate) fn open(uri: &str, events: &broadcast::Sender<Event>) -> Result<Self, LibvirtError> {
        start_event_loop()?;
        let connect = Connect::open(Some(uri))?;
        connect.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1)?;
        let broken = Arc::new(AtomicBool::new(false));
        let listener = || {
            let listener = Listener { events: events.clone(), broken: Arc::clone(&broken) };
            Box::into_raw(Box::new(listener)).cast::<c_void>()
        };
        let opaque = listener();
        // SAFETY: the connection is open; `opaque` lives until `free_listener`, which libvirt calls when the callback
        // is unregistered.
        let done = unsafe {
            sys::virConnectRegisterCloseCallback(
                connect.as_ptr(),
                Some(on_close),
                opaque,
                Some(free_listener),
            )
        };
        if done < 0 {
            // SAFETY: libvirt did not take `opaque`.
            unsafe { free_listener(opaque) };
            return Err(virt::error::Error::last_error().into());
        }
        let opaque = listener();
        // SAFETY: the callback has the signature that this event's identifier demands; libvirt casts it back to it.
        let callback = unsafe {
            std::mem::transmute::<LifecycleCallback, unsafe extern "C" fn(_, _, _)>(
                on_lifecycle as LifecycleCallback,
            )
        };
        // SAFETY: as above.
        let lifecycle = unsafe {
            sys::virConnectDomainEventRegisterAny(
                connect.as_ptr(),
                ptr::null_mut(),
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
                Some(callback),
                opaque,
                Some(free_listener),
            )
        };
        if lifecycle < 0 {
            let error = virt::error::Error::last_error();
            // SAFETY: libvirt did not take `opaque`.
            unsafe { free_listener(opaque) };
            // SAFETY: the connection is open and this callback is registered.
            unsafe { sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(on_close)) };
            return Err(error.into());
        }
        Ok(Self { connect, broken, lifecycle })
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Acquire)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Both hold a reference to the connection: without this it would never be freed. They may fail on a broken
        // connection after they have let go of it; there is nothing to do about that.
        // SAFETY: the connection is not closed before `connect` is dropped, after this.
        unsafe {
            sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), self.lifecycle);
            sys::virConnectUnregisterCloseCallback(self.connect.as_ptr(), Some(on_close));
        }
    }
}

type LifecycleCallback =
    unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int;

unsafe extern "C" fn free_listener(opaque: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `Connection::open`, and freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<Listener>()) });
}

unsafe extern "C" fn on_close(_connection: sys::virConnectPtr, _reason: c_int, opaque: *mut c_void) {
    // SAFETY: a `Listener` that lives until `free_listener`.
    let listener = unsafe { &*opaque.cast::<Listener>() };
    listener.broken.store(true, Ordering::Release);
    // Nobody listens: then nobody misses it.
    let _ = listener.events.send(Event::Disconnected);
}

unsafe extern "C" fn on_lifecycle(
    _connection: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: a `Listener` that lives until `free_listener`.
    let listener = unsafe { &*opaque.cast::<Listener>() };
    let mut uuid = [0_u8; 16];
    // SAFETY: libvirt lends the domain for this call and writes 16 bytes.
    if unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) } == 0 {
        let event =
            Event::Lifecycle { uuid: Uuid::from_bytes(uuid), change: change(event as u32, detail as u32) };
        let _ = listener.events.send(event);
    }
    0
}

fn change(event: u32, detail: u32) -> Change {
    match event {
        sys::VIR_DOMAIN_EVENT_DEFINED => Change::Defined,
        sys::VIR_DOMAIN_EVENT_UNDEFINED => Change::Undefined,
        sys::VIR_DOMAIN_EVENT_STARTED => Change::Started,
        sys::VIR_DOMAIN_EVENT_SUSPENDED if detail == sys::VIR_DOMAIN_EVENT_SUSPENDED_IOERROR => {
            Change::PausedByIoError
        }
        sys::VIR_DOMAIN_EVENT_SUSPENDED => Change::Paused,
        sys::VIR_DOMAIN_EVENT_RESUMED => Change::Resumed,
        sys::VIR_DOMAIN_EVENT_STOPPED | sys::VIR_DOMAIN_EVENT_CRASHED => Change::Stopped,
        _ => Change::Other,
    }
}

/// A console's stream. Output arrives in the channel given at [`ConsoleStream::open`].
#[derive(Debug)]
pub(crate) struct ConsoleStream {
    stream: sys::virStreamPtr,
    shared: Arc<ConsoleShared>,
    /// The stream's connection outlives it.
    _connection: Arc<Connection>,
}

// SAFETY: libvirt's objects are reference counted and lock themselves; streams may be used from any thread.
unsafe impl Send for ConsoleStream {}
// SAFETY: as above.
unsafe impl Sync for ConsoleStream {}

#[derive(Debug)]
struct ConsoleShared {
    /// None once the console has ended.
    output: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    /// libvirt is not asked for output until the reader has made room.
    paused: AtomicBool,
    input: Mutex<VecDeque<u8>>,
    room: Notify,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ConsoleStream {
    pub(crate) fn open(
        connection: &Arc<Connection>,
        domain: &virt::domain::Domain,
    ) -> Result<(Self, mpsc::Receiver<Vec<u8>>), LibvirtError> {
        let failed = || LibvirtError::from(virt::error::Error::last_error());
        // SAFETY: the connection is open.
        let stream = unsafe { sys::virStreamNew(connection.connect.as_ptr(), sys::VIR_STREAM_NONBLOCK) };
        if stream.is_null() {
            return Err(failed());
        }
        // A viewer that went away without a word would else keep the console for ever.
        let flags = sys::VIR_DOMAIN_CONSOLE_FORCE;
        // SAFETY: domain and stream are live; a null name means the first console.
        if unsafe { sys::virDomainOpenConsole(domain.as_ptr(), ptr::null(), stream, flags) } < 0 {
            let error = failed();
            // SAFETY: made above, used by nobody.
            unsafe { sys::virStreamFree(stream) };
            return Err(error);
        }
        let (sender, receiver) = mpsc::channel(CONSOLE_CHUNKS_MAX);
        let shared = Arc::new(ConsoleShared {
            output: Mutex::new(Some(sender)),
            paused: AtomicBool::new(false),
            input: Mutex::default(),
            room: Notify::new(),
        });
        let opaque = Arc::into_raw(Arc::clone(&shared)).cast_mut().cast::<c_void>();
        let events = sys::VIR_STREAM_EVENT_READABLE as c_int;
        // SAFETY: `opaque` is a reference count of its own, given back in `free_console`.
        let done = unsafe {
            sys::virStreamEventAddCallback(stream, events, Some(on_console), opaque, Some(free_console))
        };
        if done < 0 {
            let error = failed();
            // SAFETY: libvirt took neither `opaque` nor the stream.
            unsafe {
                free_console(opaque);
                sys::virStreamAbort(stream);
                sys::virStreamFree(stream);
            }
            return Err(error);
        }
        Ok((Self { stream, shared, _connection: Arc::clone(connection) }, receiver))
    }

    /// Tells libvirt that the reader has taken something.
    pub(crate) fn took_output(&self) {
        if self.shared.paused.swap(false, Ordering::AcqRel) {
            self.watch(!locked(&self.shared.input).is_empty());
        }
    }

    /// Queues bytes for the guest, waiting for room. False once the console has ended.
    pub(crate) async fn send(&self, bytes: &[u8]) -> bool {
        loop {
            if locked(&self.shared.output).is_none() {
                return false;
            }
            if self.queue(bytes) {
                return true;
            }
            self.shared.room.notified().await;
        }
    }

    fn queue(&self, bytes: &[u8]) -> bool {
        let mut input = locked(&self.shared.input);
        if !input.is_empty() && input.len() + bytes.len() > CONSOLE_INPUT_MAX {
            return false;
        }
        input.extend(bytes);
        drop(input);
        self.watch(true);
        true
    }

    fn watch(&self, writable: bool) {
        watch(self.stream, !self.shared.paused.load(Ordering::Acquire), writable);
    }
}

impl Drop for ConsoleStream {
    fn drop(&mut self) {
        // SAFETY: the stream is live; the callback is removed before the last reference goes, and libvirt frees
        // `opaque` when no call to it is under way.
        unsafe {
            sys::virStreamEventRemoveCallback(self.stream);
            sys::virStreamAbort(self.stream);
            sys::virStreamFree(self.stream);
        }
    }
}

fn watch(stream: sys::virStreamPtr, readable: bool, writable: bool) {
    let mut events = 0;
    if readable {
        events |= sys::VIR_STREAM_EVENT_READABLE;
    }
    if writable {
        events |= sys::VIR_STREAM_EVENT_WRITABLE;
    }
    // SAFETY: callers hold the stream. It fails only when no callback is registered any more.
    unsafe { sys::virStreamEventUpdateCallback(stream, events as c_int) };
}

unsafe extern "C" fn free_console(opaque: *mut c_void) {
    // SAFETY: the reference count made in `ConsoleStream::open`, given back once.
    drop(unsafe { Arc::from_raw(opaque.cast::<ConsoleShared>()) });
}

unsafe extern "C" fn on_console(stream: sys::virStreamPtr, events: c_int, opaque: *mut c_void) {
    // SAFETY: lives until `free_console`.
    let shared = unsafe { &*opaque.cast::<ConsoleShared>() };
    let events = events as u32;
    let mut alive = events & (sys::VIR_STREAM_EVENT_ERROR | sys::VIR_STREAM_EVENT_HANGUP) == 0;
    if events & sys::VIR_STREAM_EVENT_READABLE != 0 {
        alive &= receive(stream, shared);
    }
    if alive && events & sys::VIR_STREAM_EVENT_WRITABLE != 0 {
        alive &= transmit(stream, shared);
    }
    if alive {
        let waiting = !locked(&shared.input).is_empty();
        watch(stream, !shared.paused.load(Ordering::Acquire), waiting);
    } else {
        locked(&shared.output).take();
        watch(stream, false, false);
    }
    shared.room.notify_one();
}

/// Moves output to the reader until there is none or no room. False if the console has ended.
fn receive(stream: sys::virStreamPtr, shared: &ConsoleShared) -> bool {
    let Some(output) = locked(&shared.output).clone() else { return false };
    loop {
        let Ok(place) = output.try_reserve() else {
            shared.paused.store(true, Ordering::Release);
            // The reader may have made room before it could see the flag; and it is gone if the channel is closed.
            let room = output.capacity() > 0;
            if room {
                shared.paused.store(false, Ordering::Release);
            }
            return !output.is_closed();
        };
        let mut bytes = vec![0_u8; CONSOLE_CHUNK];
        // SAFETY: the stream is lent for this call; the buffer has that many bytes.
        let count = unsafe { sys::virStreamRecv(stream, bytes.as_mut_ptr().cast::<c_char>(), bytes.len()) };
        match usize::try_from(count) {
            Ok(0) => return false,
            Ok(count) => {
                bytes.truncate(count);
                place.send(bytes);
            }
            Err(_) => return count == WOULD_BLOCK,
        }
    }
}

/// Moves input to the guest until there is none or no room. False if the console has ended.
fn transmit(stream: sys::virStreamPtr, shared: &ConsoleShared) -> bool {
    let mut input = locked(&shared.input);
    while !input.is_empty() {
        let (front, _) = input.as_slices();
        // SAFETY: the stream is lent for this call; the slice has that many bytes.
        let count = unsafe { sys::virStreamSend(stream, front.as_ptr().cast::<c_char>(), front.len()) };
        match usize::try_from(count) {
            Ok(count) => drop(input.drain(..count)),
            Err(_) => return count == WOULD_BLOCK,
        }
    }
    true
}
