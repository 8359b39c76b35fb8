//! Tests of the streamer with clients and tools that are not ours; see `tests`.
