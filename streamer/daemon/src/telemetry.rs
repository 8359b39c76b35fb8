//! Numbers for Prometheus.

use crate::image::Image;
use metrics::{counter, gauge};
use std::sync::Arc;

/// Sets every number anew.
pub(crate) fn publish(images: &[Arc<Image>], cache_bytes: u64, free_bytes: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge is a float; 2^53 bytes are enough")]
    let float = |number: u64| number as f64;
    gauge!("streamer_images").set(float(images.len() as u64));
    gauge!("streamer_cache_bytes").set(float(cache_bytes));
    gauge!("streamer_free_bytes").set(float(free_bytes));
    for image in images {
        let name = image.volume.image().digest.short();
        let (bytes, uploaded, poisoned) = image.volume.counted();
        let sources = [
            ("origin", bytes.origin),
            ("peer", bytes.peer),
            ("web_seed", bytes.web_seed),
            ("zero", bytes.zero),
            ("cache", bytes.cache),
        ];
        for (source, bytes) in sources {
            gauge!("streamer_image_bytes", "image" => name.clone(), "source" => source).set(float(bytes));
        }
        counter!("streamer_uploaded_bytes_total", "image" => name.clone()).absolute(uploaded);
        counter!("streamer_poisoned_bytes_total", "image" => name.clone()).absolute(poisoned);
        let stalls = image.readers.stalls();
        counter!("streamer_stalls_total", "image" => name.clone()).absolute(stalls.count);
        counter!("streamer_stalled_ms_total", "image" => name.clone()).absolute(stalls.total_ms);
        let readers = image.readers.connected(|_| 0).len() as u64;
        gauge!("streamer_readers", "image" => name.clone()).set(float(readers));
        gauge!("streamer_reads_waiting", "image" => name).set(float(u64::from(stalls.waiting)));
    }
}
