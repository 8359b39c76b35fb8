//! How long a guest's processors stood, by QEMU's own clock: it stamps its events in microseconds, whereas those that
//! libvirt makes of them are as late as their delivery.

use crate::hypervisor::LibvirtError;
use crate::native::Connection;
use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_void};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};
use virt::domain::Domain as Handle;
use virt_sys as sys;

/// The events that are asked for.
const EVENTS: &CStr = c"^(STOP|RESUME)$";

/// One of QEMU's events, since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The processors stand.
    Stop(Duration),
    /// They are about to run.
    Resume(Duration),
}

/// What was seen of the processors.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Stood {
    /// When they first stood still, since 1970; none if they did not.
    pub(crate) first: Option<Duration>,
    /// For how long in all.
    pub(crate) length: Duration,
    /// They stand still.
    pub(crate) open: Option<Duration>,
}

impl Stood {
    fn note(&mut self, moment: Moment) {
        match moment {
            Moment::Stop(at) => {
                self.first.get_or_insert(at);
                self.open.get_or_insert(at);
            }
            Moment::Resume(at) => {
                let since = self.open.take();
                // A clock that was set back meanwhile makes no pause of a century.
                self.length += since.map_or(Duration::ZERO, |since| at.saturating_sub(since));
            }
        }
    }
}

/// Watches one domain's processors until it is dropped.
pub(crate) struct Stops {
    connection: Arc<Connection>,
    id: c_int,
    moments: Receiver<Moment>,
}

impl Stops {
    pub(crate) fn watch(connection: &Arc<Connection>, handle: &Handle) -> Result<Self, LibvirtError> {
        let (sender, moments) = channel::<Moment>();
        let opaque = Box::into_raw(Box::new(sender)).cast::<c_void>();
        // SAFETY: connection and domain are live; `opaque` lives until `free_sender`, which libvirt calls when the
        // callback is unregistered.
        let id = unsafe {
            sys::virConnectDomainQemuMonitorEventRegister(
                connection.connect.as_ptr(),
                handle.as_ptr(),
                EVENTS.as_ptr(),
                Some(on_event),
                opaque,
                Some(free_sender),
                sys::VIR_CONNECT_DOMAIN_QEMU_MONITOR_EVENT_REGISTER_REGEX,
            )
        };
        if id < 0 {
            let error = virt::error::Error::last_error();
            // SAFETY: libvirt did not take `opaque`.
            unsafe { free_sender(opaque) };
            return Err(error.into());
        }
        Ok(Self { connection: Arc::clone(connection), id, moments })
    }

    /// All stops and resumes so far. With `longest`, waits that long for a stop that has its resume.
    pub(crate) fn stood(self, longest: Option<Duration>) -> Stood {
        let mut stood = Stood::default();
        let deadline = longest.map(|longest| Instant::now() + longest);
        loop {
            let left = match deadline {
                Some(deadline) if stood.first.is_none() || stood.open.is_some() => {
                    deadline.saturating_duration_since(Instant::now())
                }
                _ => Duration::ZERO,
            };
            match self.moments.recv_timeout(left) {
                Ok(moment) => stood.note(moment),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return stood,
            }
        }
    }
}

impl Drop for Stops {
    fn drop(&mut self) {
        // SAFETY: the connection is open, and closed after this. It may be broken: then libvirt has let go of the callback.
        unsafe {
            sys::virConnectDomainQemuMonitorEventDeregister(self.connection.connect.as_ptr(), self.id);
        }
    }
}

unsafe extern "C" fn free_sender(opaque: *mut c_void) {
    // SAFETY: made by `Box::into_raw` in `Stops::watch`, and freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<Sender<Moment>>()) });
}

unsafe extern "C" fn on_event(
    _connection: sys::virConnectPtr,
    _domain: sys::virDomainPtr,
    event: *const c_char,
    seconds: c_longlong,
    micros: c_uint,
    _details: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: a sender that lives until `free_sender`.
    let sender = unsafe { &*opaque.cast::<Sender<Moment>>() };
    let at = Duration::from_secs(u64::try_from(seconds).unwrap_or(0)) + Duration::from_micros(micros.into());
    // SAFETY: libvirt lends a string for this call.
    let moment = match unsafe { CStr::from_ptr(event) }.to_bytes() {
        b"STOP" => Moment::Stop(at),
        b"RESUME" => Moment::Resume(at),
        _ => return,
    };
    // Nobody listens: then nobody misses it.
    let _ = sender.send(moment);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stood(moments: &[Moment]) -> Stood {
        let mut stood = Stood::default();
        moments.iter().for_each(|moment| stood.note(*moment));
        stood
    }

    #[test]
    fn pauses_add_up_and_an_open_one_is_known() {
        let ms = Duration::from_millis;
        let two = stood(&[
            Moment::Stop(ms(100)),
            Moment::Resume(ms(130)),
            Moment::Stop(ms(200)),
            Moment::Resume(ms(205)),
        ]);
        assert_eq!(two, Stood { first: Some(ms(100)), length: ms(35), open: None });
        let open = stood(&[Moment::Resume(ms(1)), Moment::Stop(ms(5))]);
        assert_eq!(open, Stood { first: Some(ms(5)), length: ms(0), open: Some(ms(5)) });
        assert_eq!(stood(&[Moment::Stop(ms(9)), Moment::Resume(ms(3))]).length, ms(0));
    }
}
