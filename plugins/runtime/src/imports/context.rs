//! `context`, and `types`, which has no functions.

use crate::bindings::{context, types};
use crate::call::CallState;

impl types::Host for CallState {}

impl context::Host for CallState {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.header()?.now_ms)
    }

    fn seed(&mut self) -> wasmtime::Result<u32> {
        Ok(self.header()?.seed)
    }

    fn decision_id(&mut self) -> wasmtime::Result<String> {
        Ok(self.header()?.decision_id.clone())
    }

    fn revision(&mut self) -> wasmtime::Result<u64> {
        Ok(self.header()?.revision)
    }

    fn time_budget(&mut self) -> wasmtime::Result<u64> {
        self.header()?;
        Ok(self.deadline_ms)
    }

    fn settings(&mut self) -> wasmtime::Result<String> {
        Ok(self.header()?.settings.to_string())
    }

    fn symbol_text(&mut self, symbol: u32) -> wasmtime::Result<String> {
        Ok(self.header()?.symbols.text(symbol).to_owned())
    }

    fn find_symbol(&mut self, text: String) -> wasmtime::Result<u32> {
        Ok(self.header()?.symbols.find(&text))
    }
}
