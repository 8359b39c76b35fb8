//! The engine that all policies of a process share.

use crate::cache::{self, Cache, CacheError};
use crate::call::CallState;
use crate::compiler::Compiler;
use crate::deadline::Ticker;
use crate::imports;
use crate::limits::Limits;
use crate::load::{self, LoadError};
use crate::policy::Policy;
use sha2::{Digest as _, Sha256};
use std::io;
use std::path::Path;
use std::sync::Arc;
use types::Digest;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

/// Core instances, tables and table elements of one component: what guests with a language runtime inside need.
const CORE_INSTANCES_MAX: u32 = 40;
const TABLES_MAX: u32 = 20;
const TABLE_ELEMENTS_MAX: usize = 60_000;
/// Memory of an instance that stays mapped for the next one: what `balanced` writes for 10,000 hosts.
const KEPT_RESIDENT_BYTES: usize = 2 << 20;
/// Linear memories of one component.
const MEMORIES_MAX: u32 = 4;

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The engine refuses its configuration or this machine.
    #[error("the WebAssembly engine does not start: {detail}")]
    Engine {
        /// What the engine says.
        detail: String,
    },
    /// There is no thread for the deadline.
    #[error("cannot start the thread that ends overdue calls")]
    Ticker(#[source] io::Error),
}

/// Compiles policies and holds what they share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

/// What every policy keeps alive.
pub(crate) struct Shared {
    pub(crate) engine: Engine,
    pub(crate) linker: Linker<CallState>,
    pub(crate) limits: Limits,
    pub(crate) ticker: Ticker,
    cache: Cache,
    compiler: Compiler,
}

impl Runtime {
    /// Starts the engine with a compiler in this process. `cache_dir` is made if it is absent; it belongs to this crate
    /// and to our user alone.
    ///
    /// # Errors
    /// The folder or its key is not ours alone or cannot be used, or the engine does not start.
    pub fn new(limits: Limits, cache_dir: &Path) -> Result<Self, StartError> {
        Self::with_compiler(limits, cache_dir, Compiler::InProcess)
    }

    /// Starts the engine: what a daemon that compiles components of others does, with [`Compiler::Child`].
    ///
    /// # Errors
    /// As [`Runtime::new`].
    pub fn with_compiler(limits: Limits, cache_dir: &Path, compiler: Compiler) -> Result<Self, StartError> {
        let refused = |error: wasmtime::Error| StartError::Engine { detail: format!("{error:#}") };
        let cache = Cache::open(cache_dir)?;
        let engine = Engine::new(&config(&limits)).map_err(refused)?;
        let mut linker = Linker::new(&engine);
        imports::link(&mut linker).map_err(refused)?;
        let ticker = Ticker::start(&engine).map_err(StartError::Ticker)?;
        Ok(Self { shared: Arc::new(Shared { engine, linker, limits, ticker, cache, compiler }) })
    }

    /// What policies may use.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.shared.limits
    }

    /// Checks and compiles a component, or takes its compiled form from the cache, and asks it what it is. Compiling
    /// keeps a thread busy for 0.1 s (a small policy) to 15 s (an interpreter).
    ///
    /// # Errors
    /// The bytes are no component, not of a world we know, ask for more than policies get, or the policy says
    /// nonsense about itself.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Policy>, LoadError> {
        load::check_header(bytes, self.shared.limits.component_bytes_max)?;
        let digest = component_digest(bytes);
        let component = self.shared.component(bytes, &digest)?;
        Policy::new(&self.shared, &component, digest).map(Arc::new)
    }
}

/// SHA-256 of a component: what it is called by everywhere.
#[must_use]
pub fn component_digest(bytes: &[u8]) -> Digest {
    Digest::from_bytes(Sha256::digest(bytes).into())
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A linker has nothing to show.
        f.debug_struct("Shared").field("limits", &self.limits).finish_non_exhaustive()
    }
}

impl Shared {
    fn component(&self, bytes: &[u8], digest: &Digest) -> Result<Component, LoadError> {
        let name = cache::name(digest, &self.engine);
        if let Some(code) = self.cache.get(&name) {
            // SAFETY: the bytes are what `Component::serialize` gave us: the cache verified our authentication code.
            match unsafe { Component::deserialize(&self.engine, &code) } {
                Ok(component) => return Ok(component),
                Err(error) => {
                    tracing::warn!(%digest, %error, "compiled policy does not fit: compiling it anew")
                }
            }
        }
        let code = self.compiler.compile(&self.engine, &self.limits, bytes)?;
        if let Err(error) = self.cache.put(&name, &code) {
            tracing::warn!(%digest, %error, "compiled policy is not kept: the next start compiles it again");
        }
        // SAFETY: the bytes are what the compiler just gave us.
        let component = unsafe { Component::deserialize(&self.engine, &code) };
        component.map_err(|error| LoadError::Damaged { detail: format!("{error:#}") })
    }
}

/// What shapes code and instances.
pub(crate) fn config(limits: &Limits) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(limits.calls_max)
        .total_core_instances(limits.calls_max * CORE_INSTANCES_MAX)
        .total_memories(limits.calls_max * MEMORIES_MAX)
        .total_tables(limits.calls_max * TABLES_MAX)
        .total_stacks(limits.calls_max)
        .max_core_instances_per_component(CORE_INSTANCES_MAX)
        .max_memories_per_component(MEMORIES_MAX)
        .max_tables_per_component(TABLES_MAX)
        .max_memories_per_module(MEMORIES_MAX)
        .max_tables_per_module(TABLES_MAX)
        .table_elements(TABLE_ELEMENTS_MAX)
        .max_memory_size(limits.memory_bytes_max);
    // Where the kernel tells which pages were written, those are put back by copying, and the next call finds them
    // mapped; elsewhere all would be copied, which costs small policies more than it saves large ones.
    if PoolingAllocationConfig::is_pagemap_scan_available() {
        pool.pagemap_scan(Enabled::Yes).linear_memory_keep_resident(KEPT_RESIDENT_BYTES);
    }
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .wasm_component_model(true)
        // The same input must give the same answer on every machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .epoch_interruption(true);
    config
}
