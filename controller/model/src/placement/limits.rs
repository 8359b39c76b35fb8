//! Hard limits: what no policy can talk the controller into.

use super::{Candidate, HostState, Question};
use types::{ByteSize, HostName};

/// Why a host may not have an instance, whatever a policy says. The site that an instance has to be at, and somebody's
/// word for the host, are hard; labels and whom it wishes to be apart from are the policy's to weigh.
#[must_use]
pub fn forbidden(question: &Question, host: &HostName) -> Option<String> {
    let Some(candidate) = question.candidates.iter().find(|candidate| candidate.name == *host) else {
        return Some(format!("{host} is no host of this cluster"));
    };
    elsewhere(question, candidate)
        .or_else(|| out_of_service(candidate))
        .or_else(|| untrusted(question, candidate))
        .or_else(|| too_small(question, candidate))
}

fn elsewhere(question: &Question, candidate: &Candidate) -> Option<String> {
    let host = &candidate.name;
    if let Some(pinned) = question.pinned.as_ref().filter(|pinned| *pinned != host) {
        if let Some(follows) = &question.follows {
            return Some(format!("{host} does not have {follows}, {pinned} does"));
        }
        return Some(format!("{host} does not hold the instance's volumes, {pinned} does"));
    }
    if let Some(site) = question.site.as_ref().filter(|site| **site != candidate.site) {
        return Some(format!("{host} is at site {}, the deployment at {site}", candidate.site));
    }
    let wished = question.wishes.site.as_ref().filter(|site| **site != candidate.site)?;
    Some(format!("{host} is at site {}, the member wishes {wished}", candidate.site))
}

fn out_of_service(candidate: &Candidate) -> Option<String> {
    let host = &candidate.name;
    match candidate.state {
        HostState::Ready => None,
        HostState::Unreachable => Some(format!("{host} is offline")),
        HostState::Cordoned => {
            Some(format!("{host} is cordoned: `collective host uncordon {host}` ends that"))
        }
        HostState::Draining => {
            Some(format!("{host} is draining: `collective host uncordon {host}` ends that"))
        }
        HostState::Maintenance => {
            Some(format!("{host} is in maintenance: `collective host uncordon {host}` ends that"))
        }
    }
}

fn untrusted(question: &Question, candidate: &Candidate) -> Option<String> {
    (question.wishes.attested && !candidate.attested).then(|| {
        let host = &candidate.name;
        format!("nobody vouches for {host}, and the member wishes so: `collective host attest {host}`")
    })
}

fn too_small(question: &Question, candidate: &Candidate) -> Option<String> {
    let host = &candidate.name;
    if let Some(most) = candidate.packet_max.filter(|most| *most < question.packet) {
        return Some(format!(
            "{host} carries packets of {most} bytes between hosts, the instance's networks have {}: write what all \
             hosts carry as the site's underlay_mtu",
            question.packet
        ));
    }
    let needed = question.instance.memory.0.saturating_add(question.followers_memory);
    if candidate.memory_free < needed {
        let free_mib = candidate.memory_free >> 20;
        return Some(format!("{host} has {free_mib}MiB of memory free, {} are needed", ByteSize(needed)));
    }
    let vcpus = question.instance.vcpus;
    if candidate.cpu_free_milli < vcpus.saturating_mul(1_000) {
        let free = candidate.cpu_free_milli / 1_000;
        return Some(format!("{host} has {free} virtual processors left, {vcpus} are needed"));
    }
    // A host that has not said yet what is free on its disks is not blamed for it.
    if candidate.disk_free > 0 && candidate.disk_free < question.disk_bytes {
        let (free_mib, needed) = (candidate.disk_free >> 20, ByteSize(question.disk_bytes));
        return Some(format!("{host} has {free_mib}MiB of disk free, {needed} are needed"));
    }
    None
}
