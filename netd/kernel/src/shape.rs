//! Limits of links: token buckets (`tbf`) at the root of what a link sends.

use crate::apply::mark;
use crate::route::{Part, Route, RouteError, attributes, text, u32_at};
use crate::{Kernel, StepError};
use netd_plan::{Limit, ObservedShape, ShapeStep};
use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage, TcOption};
use rtnetlink::{LinkIfb, LinkMessageBuilder};
use std::collections::HashMap;

pub(crate) const KIND: &str = "tbf";

const RTM_NEWQDISC: u16 = 36;
/// Of the header that precedes the attributes (`struct tcmsg`).
const HEADER_BYTES: usize = 20;
const PARENT_ROOT: u32 = u32::MAX;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
/// Attributes of the bucket (`linux/pkt_sched.h`).
const TCA_TBF_PARMS: u16 = 1;
const TCA_TBF_RATE64: u16 = 4;
const TCA_TBF_BURST: u16 = 6;
/// `struct tc_tbf_qopt`: two rates of 12 bytes, then what may wait, the burst in ticks, and a size, 4 bytes each.
const PARAMETERS_BYTES: usize = 36;
const RATE_AT: usize = 8;
const QUEUE_AT: usize = 24;
/// Of a rate: no table of transmission times is handed over.
const LINK_LAYER_AT: usize = 1;
const LINK_LAYER_ETHERNET: u8 = 1;

impl Kernel {
    pub(crate) fn shape(&self, step: &ShapeStep) -> Result<(), StepError> {
        match step {
            ShapeStep::Create { link, mtu } => {
                let shaper =
                    LinkMessageBuilder::<LinkIfb>::new(link).mtu(*mtu).append_extra_attribute(mark());
                self.add(link, shaper.build())
            }
            ShapeStep::Limit { link, limit } => {
                let message = RouteNetlinkMessage::NewQueueDiscipline(bucket(self.ours(link)?, *limit));
                self.request(link, &message, NLM_F_CREATE | NLM_F_REPLACE)
            }
            ShapeStep::Unlimit { link } => {
                let message = RouteNetlinkMessage::DelQueueDiscipline(at_root(self.ours(link)?));
                self.request(link, &message, 0)
            }
        }
    }
}

fn at_root(index: u32) -> TcMessage {
    // The kernel's number is signed, and never negative.
    let mut message = TcMessage::with_index(i32::try_from(index).unwrap_or_default());
    message.header.parent = TcHandle::ROOT;
    message
}

fn bucket(index: u32, limit: Limit) -> TcMessage {
    let mut parameters = [0; PARAMETERS_BYTES];
    parameters[LINK_LAYER_AT] = LINK_LAYER_ETHERNET;
    let rate = u32::try_from(limit.rate).unwrap_or(u32::MAX);
    parameters[RATE_AT..RATE_AT + 4].copy_from_slice(&rate.to_ne_bytes());
    parameters[QUEUE_AT..QUEUE_AT + 4].copy_from_slice(&limit.queue.to_ne_bytes());
    let option = |kind, value: &[u8]| TcOption::Other(DefaultNla::new(kind, value.to_vec()));
    let options = vec![
        option(TCA_TBF_PARMS, &parameters),
        option(TCA_TBF_BURST, &limit.burst.to_ne_bytes()),
        option(TCA_TBF_RATE64, &limit.rate.to_ne_bytes()),
    ];
    let mut message = at_root(index);
    message.attributes = vec![TcAttribute::Kind(KIND.to_owned()), TcAttribute::Options(options)];
    message
}

/// The limits of all links, by index.
pub(crate) fn list(route: &mut Route) -> Result<HashMap<u32, ObservedShape>, RouteError> {
    let request = RouteNetlinkMessage::GetQueueDiscipline(TcMessage::default());
    route.dump(&request, |found: &mut HashMap<u32, ObservedShape>, part| found.extend(read(part)))
}

fn read(part: Part<'_>) -> Option<(u32, ObservedShape)> {
    if part.kind != RTM_NEWQDISC || u32_at(part.payload, 12)? != PARENT_ROOT {
        return None;
    }
    let (mut is_bucket, mut options) = (false, &[][..]);
    for (kind, value) in attributes(part.payload.get(HEADER_BYTES..)?) {
        match kind {
            TCA_KIND => is_bucket = text(value) == KIND,
            TCA_OPTIONS => options = value,
            _ => {}
        }
    }
    let mut shape = ObservedShape::default();
    let mut wide = None;
    for (kind, value) in attributes(options) {
        match kind {
            TCA_TBF_PARMS => {
                shape =
                    ObservedShape { rate: u32_at(value, RATE_AT)?.into(), queue: u32_at(value, QUEUE_AT)? };
            }
            TCA_TBF_RATE64 => wide = value.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)),
            _ => {}
        }
    }
    shape.rate = wide.unwrap_or(shape.rate);
    is_bucket.then_some((u32_at(part.payload, 4)?, shape))
}
