//! Where frames can be captured.

use super::Unanswerable;
use netd_api::Desired;
use std::collections::BTreeMap;

/// One port to capture at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturePoint {
    /// The port's id.
    pub port: String,
    /// Its tap.
    pub tap: String,
}

/// The ports that are meant by ids of ports and networks, each once, sorted by their taps.
///
/// # Errors
/// [`Unanswerable::UnknownPort`]: an id is neither.
pub fn capture_points(desired: &Desired, of: &[String]) -> Result<Vec<CapturePoint>, Unanswerable> {
    let mut points = BTreeMap::new();
    for id in of {
        let mut found = false;
        for network in &desired.networks {
            let whole = network.id == *id;
            found |= whole;
            for port in network.ports.iter().filter(|port| whole || port.id == *id) {
                found = true;
                points.insert(port.tap.clone(), port.id.clone());
            }
        }
        if !found {
            return Err(Unanswerable::UnknownPort(id.clone()));
        }
    }
    Ok(points.into_iter().map(|(tap, port)| CapturePoint { port, tap }).collect())
}
